#!/bin/sh
# A namespace that grows while its host writes to it: the kernel shows the new
# size, the new blocks work, and nothing of the old ones is lost.
#
# Events: show, hide (the second namespace), grow (its file, from 32 to 64 MiB),
# shrink (which is refused, and undone).
. "$(dirname "$0")/lib.sh"

mib=1048576
size_is() { [ "$(blockdev --getsize64 "$DEV")" -eq $(($1 * mib)) ]; }

check "connect" connect
[ -b "$DEV" ] || finish
check "the second namespace is shown" ask show
check "it appears" until_true 10 shown
shown || finish
DEV=$(second)
check "it has 32 MiB" size_is 32
check "it is written whole" verified --name=old --rw=write --bs=64k --size=32m
kept=$(digest 24 8)
paced --name=busy --rw=randwrite --bs=4k --size=24m --rate=,2m
check "it grows" ask grow
check "the kernel shows it" until_true 10 size_is 64
check "the new blocks work" verified --name=new --rw=write --bs=64k --offset=32m --size=32m
check "writes were under way until then" kill -0 "$paced_pid"
check "the old blocks are as they were" test "$(digest 24 8)" = "$kept"
check "it is not made smaller under its host" ask shrink
check "the kernel has not heard of that" size_is 64
check "all writes verify" paced_ended_well
check "it is hidden at the end" ask hide
check "it disappears" until_true 10 hidden
check "the kernel has nothing to complain of" kernel_content
check "disconnect" disconnect
finish
