#!/bin/sh
# Discovery, connect, and every command that a host's tools send outside of I/O.
. "$(dirname "$0")/lib.sh"

check "discovery finds the subsystem" says "subnqn: *$NQN\$" fabrics discover
check "discovery names the transport address" says "traddr: *$ADDR\$" fabrics discover
check "discovery names the service" says "trsvcid: *$PORT\$" fabrics discover
check "an unknown subsystem is refused" refuses 'failed|refused|invalid|not' \
    fabrics connect --nqn=nqn.2026-11.io.stripewise:nobody
check "an unknown subsystem leaves no controller" gone

check "connect" connect
[ -b "$DEV" ] || finish
char=/dev/$CTRL
nsid=$(nvme get-ns-id "$DEV" | sed 's/.*://')

check "nvme list shows the namespace" says "^$DEV " nvme list
check "nvme list-subsys shows a live controller" says "$CTRL tcp .*live" nvme list-subsys
check "identify controller names the subsystem" says "^subnqn *: $NQN" nvme id-ctrl "$char"
check "identify controller agrees with connect on the controller id" \
    test "$(field cntlid nvme id-ctrl "$char")" = "0x$(printf %x "$(cat "/sys/class/nvme/$CTRL/cntlid")")"
check "the active namespaces hold ours" says "0x0*$(printf %x "$nsid")\$" nvme list-ns "$char"

blocks=$(field nsze nvme id-ns "$DEV")
block=$(blockdev --getss "$DEV")
check "identify namespace agrees with the block device on the size" \
    test "$((blocks * block))" -eq "$(blockdev --getsize64 "$DEV")"
check "the namespace has a size" test "$((blocks))" -gt 0
check "the namespace has a descriptor that names it for good" \
    says '^(uuid|nguid|eui64) *: *.*[1-9a-f]' nvme ns-descs "$DEV"
uuid=$(cat "/sys/block/${DEV##*/}/wwid")

check "error log" says 'error_count|Error Log Entries' nvme error-log "$char"
check "SMART log" says '^critical_warning[[:space:]]*: 0$' nvme smart-log "$char"
check "firmware log" says 'frs1|Firmware Log' nvme fw-log "$char"
check "changed namespaces log" nvme changed-ns-list-log "$char"
for feature in 0x01 0x02 0x04 0x05 0x07 0x0a 0x0b 0x0f; do
    check "get feature $feature" says "Current value" nvme get-feature "$char" --feature-id=$feature
done
# One by one, for `nvme show-regs` of Debian 12 prints rubbish over fabrics, against
# the kernel's own target too.
check "controller property: capabilities" says 'value: *[1-9a-f]' nvme get-property "$char" --offset=0x00
check "controller property: version" says 'value: *0*[12]0[0-9]00$' nvme get-property "$char" --offset=0x08
check "controller property: enabled" says 'value: *[0-9a-f]*[13579bdf]$' nvme get-property "$char" --offset=0x14
check "controller property: status is ready" says 'value: *0*1$' nvme get-property "$char" --offset=0x1c

# Data commands through the passthrough path, on blocks of our own choosing.
here=/run/tmp/here back=/run/tmp/back
length=$((8 * block))
head -c "$length" /dev/urandom >$here
check "write" nvme write "$DEV" --start-block=64 --block-count=7 --data-size="$length" --data=$here
check "flush" nvme flush "$DEV" --namespace-id="$nsid"
check "read" nvme read "$DEV" --start-block=64 --block-count=7 --data-size="$length" --data=$back
check "what was read is what was written" cmp $here $back

oncs=$(field oncs nvme id-ctrl "$char")
check "compare, deallocate and write zeroes are offered" test "$((oncs & 0x0d))" -eq 13
check "compare of equal data succeeds" nvme compare "$DEV" \
    --start-block=64 --block-count=7 --data-size="$length" --data=$here
tr '\000-\377' '\001-\377\000' <$here >$back
check "compare of other data fails as a miscompare" refuses 'compare.failure|0x[0-9]*285' nvme compare "$DEV" \
    --start-block=64 --block-count=7 --data-size="$length" --data=$back
check "write zeroes" nvme write-zeroes "$DEV" --start-block=66 --block-count=1
head -c "$length" /dev/zero | dd of=$here bs="$block" seek=2 count=2 conv=notrunc 2>/dev/null
nvme read "$DEV" --start-block=64 --block-count=7 --data-size="$length" --data=$back >/dev/null 2>&1
check "write zeroes cleared its blocks and no others" cmp $here $back
check "deallocate" nvme dsm "$DEV" --ad --slbs=72 --blocks=8
nvme read "$DEV" --start-block=64 --block-count=7 --data-size="$length" --data=$back >/dev/null 2>&1
check "deallocate left its neighbours alone" cmp $here $back
check "a read past the end is refused" refuses 'range' nvme read "$DEV" \
    --start-block="$((blocks))" --block-count=0 --data-size="$block" --data=$back

check "disconnect" disconnect
check "connect with both digests" connect --hdr-digest --data-digest
check "the namespace has the same name as before" test "$(cat "/sys/block/${DEV##*/}/wwid")" = "$uuid"
check "data reads back under digests" cmp -n "$length" -i "0:$((64 * block))" $here "$DEV"
check "disconnect after digests" disconnect
finish
