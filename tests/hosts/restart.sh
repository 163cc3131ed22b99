#!/bin/sh
# The target is killed without warning and started again while the host works.
# The host retries; no acknowledged write may be lost and no error may surface.
#
# Event: restart-target.
. "$(dirname "$0")/lib.sh"

mnt=/run/mnt

# synced: a file, its directory entry and its checksum, each acknowledged by the
# target before the next one starts.
synced() {
    for i in $(seq 1 40); do
        head -c "$((i * 7919 % 60000 + 1))" /dev/urandom >$mnt/f"$i" || return 1
        sync $mnt/f"$i" || return 1
        (cd $mnt && sha256sum "f$i") >>/run/tmp/synced.sums
        sleep 0.1
    done
}
same_sums() { (cd $mnt && sha256sum --check --quiet /run/tmp/synced.sums); }
live() { test "$(cat "/sys/class/nvme/$CTRL/state")" = live; }

check "connect" connect --reconnect-delay=1 --ctrl-loss-tmo=60 --keep-alive-tmo=2
[ -b "$DEV" ] || finish

paced --name=raw --rw=randwrite --bssplit=512/20:4k/40:64k/20:192k/20 --size=64m --rate=,6m
sleep 2
check "the target is killed and started again under raw writes" ask restart-target
check "raw writes were under way" kill -0 "$paced_pid"
check "the host reconnects" until_true 60 live
check "the host had lost the target" says 'Successfully reconnected' kernel_messages
check "raw writes end without an error and verify" paced_ended_well

check "mkfs.ext4" mkfs.ext4 -q -F "$DEV"
check "mount" busybox mount -t ext4 "$DEV" $mnt
synced >/run/tmp/synced 2>&1 &
files=$!
sleep 1
check "the target is killed and started again under a file system" ask restart-target
check "file writes were under way" kill -0 $files
check "synced file writes end without an error" wait $files
check "the host is connected" until_true 60 live
check "unmount" busybox umount $mnt
check "fsck is clean" fsck.ext4 -fn "$DEV"
check "drop what the kernel has cached" sh -c 'echo 3 >/proc/sys/vm/drop_caches'
check "mount again" busybox mount -t ext4 "$DEV" $mnt
check "all synced files are there" same_sums
check "unmount at the end" busybox umount $mnt
check "no error reached a user of the volume" sh -c '! dmesg | grep -E "I/O error|EXT4-fs error"'
check "disconnect" disconnect
finish
