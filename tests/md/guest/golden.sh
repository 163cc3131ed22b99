#!/bin/sh
# Makes arrays with mdadm and the kernel, one after another, and leaves each one's
# members and what Linux says of it in /run/out/NAME (see scripts/guest/md-golden).
. "$(dirname "$0")/lib.sh"
set -e

# begin NAME SENTENCE: the array to come, and what there is to see in it.
begin() {
    begin_record "$@"
    mkdir now
}

# disks SIZE...: a file of each size is a member.
disks() {
    disks_number=0
    for disks_size in "$@"; do
        truncate -s "$disks_size" now/m$disks_number
        disks_number=$((disks_number + 1))
    done
    attach now
}

# create COUNT DEVICES OPTIONS...: an array of so many of these devices, with blocks
# of generation 0 all over.
create() {
    create_only "$@"
    settled
    perl "$guest/pattern.pl" fill $MD 0
}

create_only() {
    create_count=$1 create_devices=$2
    shift 2
    # shellcheck disable=SC2086 # a list
    run mdadm --create $MD --run --quiet --homehost=host --name="$name" \
        --raid-devices="$create_count" "$@" $create_devices
}

# first COUNT: the first so many members.
first() { echo "$members" | cut -d' ' -f2-$(($1 + 1)); }

# policy of arrays that are about something else
plain="--level=5 --metadata=1.2 --consistency-policy=resync"

# checked [MISSING]: the kernel finds parity right, and the record says so.
checked() {
    scrub "$@" >"$record/mismatch_cnt"
    [ "$(cat "$record/mismatch_cnt")" = 0 ]
}

# calm: waits until the kernel has cleared all bits of the bitmap that it may.
calm() {
    echo 1 >$md/bitmap/time_base
    sleep 4
}

# seal: records the array, stops it, and keeps its members.
seal() {
    running "$record/running"
    run mdadm --stop $MD
    keep
}

# keep: records and keeps the members of an array that is stopped already.
keep() {
    stopped "$record/members"
    detach
    cp now/m* "$record"
    rm -r now
}

# ---- layouts, chunks and widths

layout() { # NAME LAYOUT MEMBERS CHUNK_KIB USED_KIB
    begin "$1" "layout $2, $3 members, chunks of $4 KiB"
    # shellcheck disable=SC2046 # a list
    disks $(yes 6M | head -n "$3")
    # shellcheck disable=SC2086 # a list
    create "$3" "$members" $plain --layout="$2" --chunk="$4" --size="$5"
    checked
    seal
}
layout left-asymmetric left-asymmetric 3 4 512
layout right-asymmetric right-asymmetric 5 16 512
layout left-symmetric left-symmetric 4 64 1024
layout right-symmetric right-symmetric 3 128 1536
layout parity-first parity-first 4 32 768
layout parity-last parity-last 6 8 512
layout eight-members left-symmetric 8 16 512
layout large-chunk left-symmetric 3 1024 2048

# ---- where the superblock is

begin metadata-1.0 "superblock at the end; members of different sizes"
disks 2200K 2M 3000K
create 3 "$members" --level=5 --metadata=1.0 --consistency-policy=resync --chunk=64
checked
seal

begin metadata-1.1 "superblock at the start"
disks 3M 3M 3M
create 3 "$members" --level=5 --metadata=1.1 --consistency-policy=resync --chunk=32 --size=768
checked
seal

begin data-offset "data begins where the user said; flags of members; a long name"
disks 2M 2M 2M
name=a-name-of-twenty-seven-bytes
create 3 "$members" $plain --chunk=16 --data-offset=256K
echo writemostly >$md/dev-loop1/state
echo failfast >$md/dev-loop2/state
checked
seal

# ---- bitmap and PPL

begin bitmap "write-intent bitmap; all bits clear after some writes"
disks 3M 3M 3M 3M
create 4 "$members" --level=5 --metadata=1.2 --bitmap=internal --bitmap-chunk=16 --chunk=64 --size=1024
checked
calm
seal

begin bitmap-1.0 "write-intent bitmap in front of the superblock"
disks 2M 2M 2M
create 3 "$members" --level=5 --metadata=1.0 --bitmap=internal --bitmap-chunk=64 --chunk=16 --size=1024
checked
seal

begin bitmap-degraded "write-intent bitmap; written while a member is missing, so bits stay set"
disks 3M 3M 3M 3M
create 4 "$members" --level=5 --metadata=1.2 --bitmap=internal --bitmap-chunk=16 --chunk=64 --size=1024
calm
run mdadm $MD --fail /dev/loop2
perl "$guest/pattern.pl" fill $MD 1 200 100
calm
seal

begin ppl "partial parity log, a ring of several"
disks 3M 3M 3M 3M
create 4 "$members" --level=5 --metadata=1.2 --consistency-policy=ppl --chunk=64
checked
seal

begin ppl-single "a partial parity log with room for one, in place of the bad block log"
disks 3M 3M 3M
create 3 "$members" $plain --chunk=16 --size=1024 --data-offset=512K
for update in no-bbl ppl; do
    run mdadm --stop $MD
    # shellcheck disable=SC2086 # a list
    run mdadm --assemble --update=$update $MD $members
done
perl "$guest/pattern.pl" fill $MD 0
checked
seal

# ---- members that are not all there, or not all up to date

begin missing "made without one of its members"
disks 2M 2M 2M
create_only 4 "/dev/loop0 missing /dev/loop1 /dev/loop2" $plain --chunk=64
settled 1
perl "$guest/pattern.pl" fill $MD 0
seal

begin stale "a member failed, then the array was written: it is behind"
disks 3M 3M 3M 3M
create 4 "$members" $plain --chunk=64 --size=1024
run mdadm $MD --fail /dev/loop1
perl "$guest/pattern.pl" fill $MD 1 100 300
seal

begin spare "a spare stands by"
disks 3M 3M 3M 3M
create 3 "$members" $plain --chunk=64 --size=512 --spare-devices=1
checked
seal

begin replaced "a member was replaced by another while it was still good"
disks 3M 3M 3M 3M
create 3 "$(first 3)" $plain --chunk=64 --size=512
run mdadm $MD --add /dev/loop3
run mdadm $MD --replace /dev/loop1 --with /dev/loop3
until [ "$(cat $md/sync_action) $(cat $md/dev-loop3/state)" = "idle in_sync" ]; do sleep 0.02; done
seal

# ---- in the middle of something

begin rebuilding "a rebuild onto a new member is half done"
disks 3M 3M 3M 3M 3M
create 4 "$(first 4)" $plain --chunk=64 --size=1024
run mdadm $MD --fail /dev/loop1 --remove /dev/loop1
echo 1024 >$md/sync_max
run mdadm $MD --add /dev/loop4
halfway 1024
seal

begin rebuilding-bitmap "a member that was away returns, and what the bitmap says is half done"
disks 3M 3M 3M 3M
create 4 "$members" --level=5 --metadata=1.2 --bitmap=internal --bitmap-chunk=16 --chunk=64 --size=1024
calm
run mdadm $MD --fail /dev/loop2 --remove /dev/loop2
perl "$guest/pattern.pl" fill $MD 1 20 600
echo 1024 >$md/sync_max
run mdadm $MD --re-add /dev/loop2
halfway 1024
seal

begin replacing "a member is being copied to its replacement, half done"
disks 3M 3M 3M 3M
create 3 "$(first 3)" $plain --chunk=64 --size=1024
run mdadm $MD --add /dev/loop3
echo 1024 >$md/sync_max
run mdadm $MD --replace /dev/loop1 --with /dev/loop3
halfway 1024
seal

begin resyncing "the first resync is half done; parity beyond is wrong"
disks 3M 3M 3M
# What parity does not agree with: each member has blocks of a generation of its own.
for file in 0 1 2; do perl "$guest/pattern.pl" fill now/m$file $((file + 10)); done
create_only 3 "$members" $plain --assume-clean --chunk=64 --size=512
run mdadm --stop $MD
# An array that starts read-only waits with its resync until it has been told how far.
echo 1 >/sys/module/md_mod/parameters/start_ro
# shellcheck disable=SC2086 # a list
run mdadm --assemble --update=resync $MD $members
echo 0 >/sys/module/md_mod/parameters/start_ro
echo 512 >$md/sync_max
run mdadm --readwrite $MD
halfway 512
seal

# ---- bad blocks

begin bad-blocks "two places of a member refuse writes, so they are in its bad block log"
disks 3M 3M 3M
sectors=$((3 * 2048))
dmsetup create --noudevsync bad <<TABLE
0 2400 linear /dev/loop1 0
2400 8 error
2408 592 linear /dev/loop1 2408
3000 72 error
3072 $((sectors - 3072)) linear /dev/loop1 3072
TABLE
create_only 3 "/dev/loop0 /dev/mapper/bad /dev/loop2" $plain --assume-clean --chunk=4 --size=1024
perl "$guest/pattern.pl" fill $MD 0
running "$record/running"
run mdadm --stop $MD
dmsetup remove --noudevsync bad
keep

# ---- what Stripewise does not take

# begin_foreign NAME SENTENCE: like begin; the record says that it is not for us.
begin_foreign() {
    begin "$@"
    echo yes >"$record/foreign"
}

foreign() { # NAME SENTENCE MEMBERS OPTIONS...
    begin_foreign "$1" "$2"
    foreign_count=$3
    shift 3
    # shellcheck disable=SC2046 # a list
    disks $(yes 3M | head -n "$foreign_count")
    create "$foreign_count" "$members" "$@"
    seal
}

foreign raid6 "RAID6" 4 --level=6 --metadata=1.2 --consistency-policy=resync --chunk=64 --size=256
foreign raid4 "RAID4" 3 --level=4 --metadata=1.2 --consistency-policy=resync --chunk=64 --size=256
foreign raid1 "RAID1" 2 --level=1 --metadata=1.2 --consistency-policy=resync --size=256
foreign metadata-0.90 "the superblock of old, which is another format" 3 \
    --level=5 --metadata=0.90 --consistency-policy=resync --chunk=64 --size=256

begin_foreign journal "RAID5 with a journal device"
disks 3M 3M 3M 6M
create 3 "$(first 3)" --level=5 --metadata=1.2 --chunk=64 --size=256 --write-journal=/dev/loop3
seal

begin_foreign reshaping "RAID5 that is growing from three members to four"
disks 8M 8M 8M 8M
create 3 "$(first 3)" $plain --chunk=64 --size=2048
run mdadm $MD --add /dev/loop3
echo 1 >/proc/sys/dev/raid/speed_limit_min
echo 100 >/proc/sys/dev/raid/speed_limit_max
run mdadm --grow $MD --raid-devices=4
until grep -q 'reshape = *[1-9]' /proc/mdstat; do sleep 0.02; done
# mdadm would not stop it before a better place; so it is looked at in full flight,
# as the last of all, and goes down with the guest.
echo frozen >$md/sync_action
mkdir "$record/running"
mdadm --detail $MD >"$record/running/detail"
stopped "$record/members"
cp now/m* "$record"
