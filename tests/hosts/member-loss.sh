#!/bin/sh
# A member goes and comes back while the host works on the volume. Then another
# member goes, so that what the rebuild wrote must be right for reads to be right.
#
# Events: remove-member, add-member, wait-rebuilt, remove-other, add-other.
. "$(dirname "$0")/lib.sh"

check "connect" connect
[ -b "$DEV" ] || finish
check "write a region before the loss" verified --name=before --rw=randwrite --bs=16k --size=32m
before=$(digest 0 32)

paced --name=during --rw=randwrite --bssplit=512/20:4k/40:64k/20:192k/20 --offset=32m --size=64m --rate=,6m
sleep 1
check "a member is removed" ask remove-member
check "writes were under way at the loss" kill -0 "$paced_pid"
check "the old region reads the same without the member" test "$(digest 0 32)" = "$before"
check "the member is added back" ask add-member
check "writes were under way at the return" kill -0 "$paced_pid"
check "all writes around the loss verify" paced_ended_well
during=$(digest 32 64)
check "the member is rebuilt" ask wait-rebuilt 120

check "another member is removed" ask remove-other
check "the old region reads the same from the rebuilt member" test "$(digest 0 32)" = "$before"
check "the new region reads the same from the rebuilt member" test "$(digest 32 64)" = "$during"
check "writes without the other member verify" \
    verified --name=after --rw=randwrite --bssplit=4k/60:192k/40 --offset=96m --size=16m
check "the other member is added back" ask add-other
check "the other member is rebuilt" ask wait-rebuilt 120
check "the old region is intact at the end" test "$(digest 0 32)" = "$before"
check "the kernel has nothing to complain of" kernel_content
check "disconnect" disconnect
finish
