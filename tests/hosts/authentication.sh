#!/bin/sh
# The host and the target prove to each other who they are, by DH-HMAC-CHAP; who
# has another secret, or none, does not come in. Secrets are changed under way.
#
# Events: DIGEST-GROUP (the target is served anew, and chooses these), completed
# (the target has authenticated every queue that way), new-key (the host has
# another key from now on).
#
# From the environment: HOST_KEY NEW_KEY CTRL_KEY, secrets as nvme-cli makes them.
. "$(dirname "$0")/lib.sh"

: "${HOST_KEY:?}" "${NEW_KEY:?}" "${CTRL_KEY:?}"

refused() { refuses 'fail|required|denied|could not|refused|rejected|error' fabrics connect --nqn="$NQN" "$@" && gone; }
# told WORDS: the kernel has said so since the last mark.
mark() { marked=$(dmesg | wc -l); }
told() { dmesg | tail -n "+$((marked + 1))" | grep -E -- "$1"; }
works() { verified --name=works --rw=randwrite --bs=4k --size=1m; }

for way in sha256-null sha384-null sha512-null sha256-ffdhe2048 sha384-ffdhe3072 \
    sha512-ffdhe4096 sha256-ffdhe6144 sha512-ffdhe8192; do
    hash="hmac\\(${way%-*}\\) dhgroup ${way#*-}"
    check "$way: the target is served" ask "$way"
    mark
    check "$way: the host is admitted" connect --dhchap-secret="$HOST_KEY"
    check "$way: by these" told "authenticated with hash $hash"
    check "$way: every queue is" ask completed
    check "$way: I/O works" works
    check "$way: disconnect" disconnect
    mark
    check "$way: both are authenticated" \
        connect --dhchap-secret="$HOST_KEY" --dhchap-ctrl-secret="$CTRL_KEY"
    check "$way: the host knows the controller" told "controller authenticated"
    check "$way: I/O works with that" works
    check "$way: disconnect again" disconnect
    check "$way: another secret is refused" refused --dhchap-secret="$NEW_KEY"
    mark
    check "$way: a controller with another secret is left" \
        refused --dhchap-secret="$HOST_KEY" --dhchap-ctrl-secret="$NEW_KEY"
    check "$way: because of that" told "controller authentication failed"
done
check "no secret is refused" refused

check "the target chooses as before" ask sha256-ffdhe2048
check "connect" connect --dhchap-secret="$HOST_KEY" --dhchap-ctrl-secret="$CTRL_KEY"
[ -b "$DEV" ] || finish
check "the host gets another key over there" ask new-key
check "who is connected stays so" works
mark
check "the host takes it" sh -c "echo '$NEW_KEY' >/sys/class/nvme/$CTRL/dhchap_secret"
check "and proves itself again" until_true 20 told "authenticated with hash hmac\\(sha256\\)"
check "every queue does" until_true 20 ask completed
check "I/O goes on" works
check "disconnect at the end" disconnect
check "the old key is of no use any more" refused --dhchap-secret="$HOST_KEY"
check "the new one is" connect --dhchap-secret="$NEW_KEY"
check "disconnect for good" disconnect
finish
