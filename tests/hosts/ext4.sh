#!/bin/sh
# A file system that lives through a disconnect: many files with checksums, then
# a second life with deletions and new files.
. "$(dirname "$0")/lib.sh"

mnt=/run/mnt sums=/run/tmp/ext4.sums

# files DIRECTORY: some hundred files, from a byte to a MiB. Cut from a stream,
# because a process for each file is slow in a guest.
files() {
    mkdir "$mnt/$1" || return 1
    for kind in 1:60 511:100 4096:60 70001:60 1000003:16; do
        bytes=${kind%:*} count=${kind#*:}
        head -c "$((bytes * count))" /dev/urandom |
            split -a 3 -b "$bytes" - "$mnt/$1/bytes-$bytes." || return 1
    done
}
note_sums() { (cd $mnt && find . -type f -exec sha256sum {} + >$sums && test -s $sums); }
same_sums() { (cd $mnt && sha256sum --check --quiet $sums); }
mount_ext4() { busybox mount -t ext4 "$DEV" $mnt; }
umount_ext4() { busybox umount $mnt; }

check "connect" connect
[ -b "$DEV" ] || finish
check "mkfs.ext4" mkfs.ext4 -q -F "$DEV"
check "mount" mount_ext4
check "write files" files first
check "take checksums" note_sums
check "unmount" umount_ext4
check "disconnect" disconnect

check "connect again" connect
check "fsck is clean after the reconnect" fsck.ext4 -fn "$DEV"
check "mount again" mount_ext4
check "all files are as they were" same_sums
check "delete a part" sh -c "rm $mnt/first/bytes-70001.* $mnt/first/bytes-511.*"
check "write more files" files second
check "trim" fstrim $mnt
check "take checksums again" note_sums
check "unmount again" umount_ext4
check "drop what the kernel has cached" sh -c 'echo 3 >/proc/sys/vm/drop_caches'
check "mount a third time" mount_ext4
check "all files are as they were, again" same_sums
check "unmount at the end" umount_ext4
check "fsck is clean at the end" fsck.ext4 -fn "$DEV"
check "the kernel has nothing to complain of" kernel_content
check "disconnect at the end" disconnect
finish
