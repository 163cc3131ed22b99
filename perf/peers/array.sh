# shellcheck shell=sh
# Sourced in the guest: an array of Linux's md over RAM disks.

MD=/dev/md127
MEMBERS='/dev/ram0 /dev/ram1 /dev/ram2 /dev/ram3'

# filled DEVICE: every block of it is written. Pages of a RAM disk that never were are not there, and reads of them cost
# nothing.
filled() {
    dd if=/dev/zero of="$1" bs=1M oflag=direct 2>/run/tmp/dd || grep -q 'No space left' /run/tmp/dd || { cat /run/tmp/dd; return 1; }
}

# array POLICY: 3+1, chunks of 64 KiB, in sync, with none, bitmap or ppl; filled.
array() {
    case $1 in
    none) array_policy='--bitmap=none --consistency-policy=resync' ;;
    bitmap) array_policy='--bitmap=internal' ;;
    ppl) array_policy='--consistency-policy=ppl' ;;
    esac
    # shellcheck disable=SC2086 # lists
    mdadm --create $MD --run --quiet --homehost=any --name=peer --metadata=1.2 --level=5 --raid-devices=4 --chunk=64 \
        --assume-clean $array_policy $MEMBERS || return 1
    echo 256 >/sys/block/${MD#/dev/}/md/stripe_cache_size
    filled $MD
}

# no_array: it is gone, and so are its superblocks.
no_array() {
    mdadm --stop --quiet $MD || return 1
    # shellcheck disable=SC2086 # a list
    mdadm --zero-superblock $MEMBERS
}
