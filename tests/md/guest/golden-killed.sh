#!/bin/sh
# Makes arrays on the disks ubda, ubdb, ... and writes them until the guest is killed
# from outside (see scripts/guest/md-golden). /run/out/NAME/acknowledged has a line,
# "BLOCK GENERATION", for each write that Linux had said was done. The last write of a
# block may have been done without that.
#
# One member of each array takes its time, so that at the end some stripes have been
# written on the others only.
. "$(dirname "$0")/lib.sh"
set -e

# prepare N NAME SENTENCE DISKS OPTIONS...: array N of these disks, clean, all over of
# generation 0. Sets devices, of which the second is the slow one.
prepare() {
    array "$1"
    begin_record "$2" "$3"
    # shellcheck disable=SC2086 # a list
    slow "$2" $4
    shift 4
    # shellcheck disable=SC2086 # a list
    run mdadm --create $MD --run --quiet --homehost=host --name="$name" --raid-devices="$(echo "$devices" | wc -w)" \
        --level=5 --metadata=1.2 --chunk=16 --size=1024 --assume-clean "$@" $devices
    perl "$guest/pattern.pl" fill $MD 0
}

# slow NAME FIRST SECOND REST...: sets devices; the second's writes take 30 ms more.
slow() {
    dmsetup create --noudevsync "$1" --table "0 $(blockdev --getsz "$3") delay $3 0 0 $3 0 30"
    devices="$2 /dev/mapper/$1"
    shift 3
    devices="$devices $*"
}

load() { perl "$guest/pattern.pl" load "/dev/md$1" 1 8 "/run/out/$2/acknowledged" & }

prepare 1 killed-resync "killed under load: nothing says which stripes were being written" \
    "/dev/ubda /dev/ubdb /dev/ubdc" --consistency-policy=resync
prepare 2 killed-bitmap "killed under load: the bitmap says where" \
    "/dev/ubdd /dev/ubde /dev/ubdf /dev/ubdg" --bitmap=internal --bitmap-chunk=16
prepare 3 killed-ppl "killed under load: the partial parity log has what is needed" \
    "/dev/ubdh /dev/ubdi /dev/ubdj /dev/ubdk" --consistency-policy=ppl
prepare 4 killed-rebuilding "killed under load, with a member half rebuilt" \
    "/dev/ubdl /dev/ubdm /dev/ubdn /dev/ubdo" --bitmap=internal --bitmap-chunk=16
run mdadm $MD --fail /dev/ubdn --remove /dev/ubdn
echo 1024 >$md/sync_max
mdadm --zero-superblock /dev/ubdn
run mdadm $MD --add /dev/ubdn
halfway 1024

load 1 killed-resync
load 2 killed-bitmap
load 3 killed-ppl
load 4 killed-rebuilding
wait
exit 1
