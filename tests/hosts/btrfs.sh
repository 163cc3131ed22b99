#!/bin/sh
# A copy-on-write file system with checksums of its own: synchronous writes,
# shared extents, and a scrub that reads and verifies every block.
. "$(dirname "$0")/lib.sh"

mnt=/run/mnt
mount_btrfs() { busybox mount -t btrfs "$DEV" $mnt; }
umount_btrfs() { busybox umount $mnt; }
sum() { sha256sum <"$1"; }

check "connect" connect
[ -b "$DEV" ] || finish
check "mkfs.btrfs" mkfs.btrfs -q -f "$DEV"
check "mount" mount_btrfs
check "synchronous writes" fio --name=sync --directory=$mnt --filename=sync --rw=randwrite \
    --bssplit=4k/60:16k/20:128k/20 --size=16m --ioengine=psync --fsync=8 \
    --verify=crc32c --do_verify=1 --verify_state_save=0 --minimal
check "a large file" dd if=/dev/urandom of=$mnt/origin bs=1M count=24 conv=fsync
before=$(sum $mnt/origin)
check "a copy that shares its extents" cp --reflink=always $mnt/origin $mnt/copy
check "the copy has the same content" test "$(sum $mnt/copy)" = "$before"
check "overwrite the middle of the copy" dd if=/dev/zero of=$mnt/copy bs=64k seek=100 count=16 conv=notrunc,fsync
check "the origin did not change with the copy" test "$(sum $mnt/origin)" = "$before"
changed=$(sum $mnt/copy)
check "the copy did change" test "$changed" != "$before"
check "a snapshot" btrfs subvolume snapshot -r $mnt $mnt/snapshot
check "unmount" umount_btrfs
check "disconnect" disconnect

check "connect again" connect
check "mount again" mount_btrfs
check "the origin is as it was" test "$(sum $mnt/origin)" = "$before"
check "the copy is as it was" test "$(sum $mnt/copy)" = "$changed"
check "the snapshot is as it was" test "$(sum $mnt/snapshot/origin)" = "$before"
check "scrub finds no errors" says 'no errors found' btrfs scrub start -B $mnt
check "unmount at the end" umount_btrfs
check "btrfs check is clean" btrfs check --readonly "$DEV"
check "the kernel has nothing to complain of" kernel_content
check "disconnect at the end" disconnect
finish
