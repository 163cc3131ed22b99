# shellcheck shell=sh
# What the guest scripts about md share: members that are files on loop devices, and
# the records of what mdadm and the kernel say about an array. Sourced by plain sh.

guest=$(dirname "$0")

# array N: what is below is about /dev/mdN from now on; its sysfs folder is $md.
array() { MD=/dev/md$1 md=/sys/block/md$1/md; }
array 0

# No udev here: device-mapper and mdadm need not wait for it.
export MDADM_NO_UDEV=1 DM_DISABLE_UDEV=1 TZ=UTC
# A small array's resync must not wait for the slow start that the kernel gives it.
echo 1000000 >/proc/sys/dev/raid/speed_limit_min

# attach DIR: the files DIR/m0, DIR/m1, ... are /dev/loop0, /dev/loop1, ...; sets
# members, the devices.
attach() {
    members=''
    for attach_file in "$1"/m[0-9]*; do
        attach_number=${attach_file##*/m}
        [ -b "/dev/loop$attach_number" ] || mknod "/dev/loop$attach_number" b 7 "$attach_number"
        losetup "/dev/loop$attach_number" "$attach_file" || return 1
        members="$members /dev/loop$attach_number"
    done
}

# detach: lets go of them. What the last writers left in the cache goes to the files.
detach() {
    # shellcheck disable=SC2086 # a list
    for detach_device in $members; do
        blockdev --flushbufs "$detach_device"
        losetup -d "$detach_device" || return 1
    done
}

# quiet CMD...: its output only when it fails.
quiet() { quiet_output=$("$@" 2>&1) || { echo "failed: $*: $quiet_output" >&2; return 1; }; }

# begin_record NAME SENTENCE: the folder $record in /run/out is about an array of this
# name, and the sentence says what there is to see in it.
begin_record() {
    name=$1
    echo "-- $name"
    record=/run/out/$name
    mkdir -p "$record"
    echo "$2" >"$record/what"
    uname -r >"$record/kernel"
    mdadm --version >"$record/mdadm" 2>&1
    : >"$record/commands"
}

# run CMD...: runs it and notes it in the record.
run() {
    echo "$*" >>"$record/commands"
    quiet "$@"
}

# content DEVICE: the checksum of all its bytes, from the members and not the cache.
content() {
    if dd if="$1" of=content bs=64k iflag=direct 2>/dev/null; then
        sha256sum content | cut -d' ' -f1
    else
        echo unreadable
    fi
    rm content
}

# settled [MISSING]: waits until nothing is left to do for an array that lacks so many
# members (default 0): it is in sync, and no resync, rebuild or check is under way.
settled() {
    until [ "$(cat $md/sync_action) $(cat $md/resync_start) $(cat $md/degraded)" = "idle none ${1:-0}" ]; do
        sleep 0.02
    done
}

# halfway SECTOR: waits until the kernel has resynced so much of each member, beyond
# which it may not go.
halfway() {
    [ "$(cat $md/sync_max)" = "$1" ]
    until [ "$(cut -d' ' -f1 $md/sync_completed)" = "$1" ]; do sleep 0.02; done
}

# scrub [MISSING]: has the kernel check parity; prints how many sectors do not agree.
scrub() {
    settled "$@"
    echo check >$md/sync_action
    settled "$@"
    cat $md/mismatch_cnt
}

# running DIR: what Linux says of the running array, in files of DIR.
running() {
    mkdir -p "$1"
    mdadm --detail $MD >"$1/detail"
    cat /proc/mdstat >"$1/mdstat"
    for running_name in array_state consistency_policy degraded resync_start sync_action sync_completed; do
        cat "$md/$running_name" >"$1/$running_name" 2>/dev/null || true
    done
    blockdev --getsize64 $MD >"$1/size"
    content $MD >"$1/sha256"
}

# stopped DIR: what mdadm reads from each member, in DIR/0, DIR/1, ...
stopped() {
    for stopped_device in $members; do
        stopped_dir=$1/${stopped_device#/dev/loop}
        mkdir -p "$stopped_dir"
        mdadm --examine "$stopped_device" >"$stopped_dir/examine" 2>&1
        if grep -q '^ *Bad Block Log' "$stopped_dir/examine"; then
            mdadm --examine-badblocks "$stopped_device" >"$stopped_dir/badblocks" 2>&1
        fi
        if grep -q '^Internal Bitmap' "$stopped_dir/examine"; then
            mdadm --examine-bitmap "$stopped_device" >"$stopped_dir/bitmap" 2>&1
        fi
    done
}
