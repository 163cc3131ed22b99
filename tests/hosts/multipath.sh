#!/bin/sh
# One host on two paths, which are better and worse and gone and back while it
# writes; and a namespace that it sees only now and then. Nothing may fail: what
# one path refuses goes by the other, or waits.
#
# Events: near-STATE, far-STATE (what the listeners at PORT and FAR_PORT offer
# from then on), far-gone, far-back, show, hide (the second namespace).
. "$(dirname "$0")/lib.sh"

: "${FAR_PORT:=4421}"

# controller PORT: the controller of the path to there.
controller() {
    for controller_path in /sys/class/nvme/nvme*; do
        [ "$(cat "$controller_path/subsysnqn" 2>/dev/null)" = "$NQN" ] || continue
        case $(cat "$controller_path/address") in *trsvcid="$1"*) echo "${controller_path##*/}" ;; esac
    done
}
live() { [ "$(cat "/sys/class/nvme/$(controller "$1")/state")" = live ]; }
# namespace PORT: where the kernel keeps the first namespace by that path.
namespace() { echo /sys/class/nvme/"$(controller "$1")"/nvme*c*n1; }
is() { [ "$(cat "$(namespace "$1")/ana_state")" = "$2" ]; }
# written PORT: commands that have written by that path so far.
written() { awk '{ print $5 }' "$(namespace "$1")/stat"; }

connect_far() {
    nvme connect --transport=tcp --traddr="$ADDR" --trsvcid="$FAR_PORT" --nqn="$NQN" \
        --hostnqn="$HOST_NQN" --hostid="$HOST_ID" --reconnect-delay=1
}

# turn PATH STATE: the target offers it, and the kernel knows it; as the kernel spells it.
turn() {
    case $1 in near) turn_port=$PORT ;; *) turn_port=$FAR_PORT ;; esac
    ask "$1-$2" && until_true 10 is "$turn_port" "$(echo "$2" | tr _ -)"
}

# soon CMD...: what was under way may take its time where the machine is busy.
soon() { "$@" || "$@" || "$@"; }
# only PORT OTHER: for a second, writes go by the first path and not by the other.
only() {
    sleep 0.3
    only_before=$(written "$1") only_other=$(written "$2")
    sleep 1
    [ "$(written "$1")" -gt "$only_before" ] && [ "$(written "$2")" -eq "$only_other" ]
}
# still: for a second, nothing is written.
still() {
    sleep 0.3
    still_before="$(written "$PORT") $(written "$FAR_PORT")"
    sleep 1
    [ "$(written "$PORT") $(written "$FAR_PORT")" = "$still_before" ]
}
flows() {
    flows_before=$(($(written "$PORT") + $(written "$FAR_PORT")))
    until_true 10 more
}
more() { [ $(($(written "$PORT") + $(written "$FAR_PORT"))) -gt $((flows_before + 10)) ]; }

content() {
    ! kernel_messages | grep -E 'I/O error|digest|corrupt|BUG|WARNING|Call Trace'
}

check "the kernel makes one device of several paths" \
    says '^Y$' cat /sys/module/nvme_core/parameters/multipath
check "connect by one path" connect --reconnect-delay=1
[ -b "$DEV" ] || finish
near=$(controller "$PORT")
check "connect by the other" connect_far
check "both paths are live" until_true 10 live "$FAR_PORT"
far=$(controller "$FAR_PORT")
check "both reach the namespace" until_true 10 is "$FAR_PORT" optimized
check "these are two controllers" test "$near" != "$far"

paced --name=across --rw=randwrite --bssplit=512/20:4k/40:64k/20:192k/20 --size=160m --rate=,3m
check "writes are under way" flows
check "one path is worse: the other is taken" turn far non_optimized
check "nothing goes by the worse" soon only "$PORT" "$FAR_PORT"
check "the better path is closed" turn near inaccessible
check "all goes by the worse" soon only "$FAR_PORT" "$PORT"
check "nvme list-subsys shows both" says "trsvcid=$PORT.* live inaccessible" nvme list-subsys "$DEV"
check "and the other" says "trsvcid=$FAR_PORT.* live non-optimized" nvme list-subsys "$DEV"
check "the log page of the one" says 'state.*inaccessible' nvme ana-log "/dev/$near"
check "the log page of the other" says 'state.*non-optimized' nvme ana-log "/dev/$far"
check "a closed path may still be asked what is there" nvme id-ctrl "/dev/$near"
check "both are closed" turn far inaccessible
check "nothing is written" soon still
check "one is opened" turn near non_optimized
check "it goes on" flows
check "the other is opened" turn far optimized
check "and taken" soon only "$FAR_PORT" "$PORT"
check "writes were under way" kill -0 "$paced_pid"

check "the listener of the path in use goes" ask far-gone
check "the kernel sees it gone" until_true 10 sh -c "! grep -q live /sys/class/nvme/$far/state"
check "all goes by the other" flows
check "the listener comes back" ask far-back
check "the kernel comes back" until_true 20 live "$FAR_PORT"
check "and knows the path to be good" until_true 10 is "$FAR_PORT" optimized
check "nothing goes by the worse path again" soon only "$FAR_PORT" "$PORT"
for round in 1 2 3; do
    for path in near far; do
        for state in inaccessible non_optimized optimized; do
            check "round $round: $path is $state" turn $path $state
        done
    done
done
check "writes were under way until then" kill -0 "$paced_pid"

check "there is one namespace" hidden
check "another is shown" ask show
check "it appears" until_true 10 shown
before=''
if shown; then
    first=$DEV DEV=$(second)
    check "it works" verified --name=second --rw=randwrite --bs=4k --size=4m
    before=$(digest 0 4)
    DEV=$first
fi
check "it is hidden" ask hide
check "it disappears" until_true 10 hidden
check "the first one is not concerned" flows
check "it is shown again" ask show
check "it appears again" until_true 10 shown
if shown; then
    first=$DEV DEV=$(second)
    check "what was written is there" test "$(digest 0 4)" = "$before"
    DEV=$first
fi
check "it is hidden at the end" ask hide
check "all writes verify" paced_ended_well
check "the kernel has nothing to complain of" content
check "disconnect" disconnect
finish
