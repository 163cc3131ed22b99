#!/bin/sh
# Linux as one of the two that work on an array in turn (see scripts/guest/md-judge):
# does what it is told from outside (see scripts/guest/obey.sh).
#
# From the environment: MEMBERS, the numbers of the members that are there; the first of
# them is /dev/ubda, the next ubdb ... ; and ADDR, NQN, NGUID of the namespace to export.
. "$(dirname "$0")/lib.sh"
set -e

# disk NUMBER: the disk of this member.
disk() {
    disk_letters=abcdefghijklmnop
    for disk_number in $MEMBERS; do
        if [ "$disk_number" = "$1" ]; then
            echo "/dev/ubd${disk_letters%"${disk_letters#?}"}"
            return
        fi
        disk_letters=${disk_letters#?}
    done
    echo "no member $1 is here" >&2
    return 1
}

# ---- an array, from its start to its end

# create POLICY: a new array of all members.
create() {
    case $1 in
    bitmap) set -- --bitmap=internal --bitmap-chunk=1M ;;
    *) set -- --consistency-policy="$1" ;;
    esac
    # shellcheck disable=SC2046 # a list
    mdadm --create $MD --run --quiet --homehost=any --name=judge --level=5 --chunk=64 \
        --raid-devices="$(echo "$MEMBERS" | wc -w)" "$@" $(for n in $MEMBERS; do disk "$n"; done)
    settled
}

# assemble: the array that is on the members.
assemble() {
    # shellcheck disable=SC2046 # a list
    mdadm --assemble --run $MD $(for n in $MEMBERS; do disk "$n"; done)
}

# refused WORDS: it is not started, and these words are in the reason.
refused() {
    ! refused_reason=$(assemble 2>&1) || return 1
    echo "$refused_reason"
    echo "$refused_reason" | grep -q "$1"
}

# serve: exports it through the kernel's own NVMe/TCP target.
serve() {
    nvmet=/sys/kernel/config/nvmet
    subsystem=$nvmet/subsystems/$NQN
    mkdir "$subsystem" "$subsystem/namespaces/1" $nvmet/ports/1
    echo 1 >"$subsystem/attr_allow_any_host"
    printf %s $MD >"$subsystem/namespaces/1/device_path"
    echo "$NGUID" >"$subsystem/namespaces/1/device_nguid"
    echo 1 >"$subsystem/namespaces/1/enable"
    echo tcp >$nvmet/ports/1/addr_trtype
    echo ipv4 >$nvmet/ports/1/addr_adrfam
    echo "$ADDR" >$nvmet/ports/1/addr_traddr
    echo 4420 >$nvmet/ports/1/addr_trsvcid
    ln -s "$subsystem" "$nvmet/ports/1/subsystems/$NQN"
}

# stop: takes all that down, and leaves the array clean.
stop() {
    nvmet=/sys/kernel/config/nvmet
    if [ -d "$nvmet/ports/1" ]; then
        rm "$nvmet/ports/1/subsystems/$NQN"
        echo 0 >"$nvmet/subsystems/$NQN/namespaces/1/enable"
    fi
    mdadm --stop $MD
}

# ---- members

# lose NUMBER: the member fails, and is taken out.
lose() { mdadm $MD --fail "$(disk "$1")" --remove "$(disk "$1")"; }

# regain NUMBER: it is put in again, and rebuilt: only where the bitmap says so, if there
# is one and the member is not too old.
regain() {
    mdadm $MD --re-add "$(disk "$1")" && return
    mdadm --zero-superblock "$(disk "$1")"
    mdadm $MD --add "$(disk "$1")"
}

# stop_at SECTOR: no resync or rebuild goes on behind it.
stop_at() { echo "$1" >$md/sync_max; }

# ---- what there is to judge

# untouched [MISSING]: nothing had to be done for the array, and nothing is being done: it
# was clean, and nothing about it surprised the kernel.
untouched() {
    [ "$(cat $md/sync_action) $(cat $md/resync_start) $(cat $md/degraded)" = "idle none ${1:-0}" ] &&
        # What was found wanting when it was assembled, in the words of md and its bitmap.
        ! dmesg | grep -E 'md|bitmap' | grep -Ei 'not clean|non-fresh|out of date|resync of|recovery of|mismatch|invalid|corrupt'
}

# rests: its superblocks become clean, for nobody writes.
rests() { until [ "$(cat $md/array_state)" = clean ]; do sleep 0.1; done; }

# recovered: the array that was killed needs no resync.
recovered() { [ "$(cat $md/resync_start)" = none ]; }

# agrees [MISSING]: parity is right everywhere.
agrees() { finds 0 "$@"; }

# finds SECTORS [MISSING]: parity is wrong in just so many sectors.
finds() {
    finds_wanted=$1
    shift
    finds_sectors=$(scrub "$@")
    echo "$finds_sectors sectors do not agree"
    [ "$finds_sectors" = "$finds_wanted" ]
}

# spared NUMBER SECTORS: no more than so many sectors of this disk were written, so that
# what was right on it already was left alone.
spared() {
    spared_disk=$(disk "$1")
    spared_written=$(awk '{ print $7 }' "/sys/block/${spared_disk#/dev/}/stat")
    echo "$spared_written sectors were written"
    [ "$spared_written" -le "$2" ]
}

# well: the kernel has no error to report.
well() { ! dmesg | grep -Ei 'I/O error|BUG|WARNING|Call Trace'; }

# written: how many writes the array has done.
written() { awk '{ print $5 }' /sys/block/md0/stat; }

. "$(dirname "$0")/../../../scripts/guest/obey.sh"
