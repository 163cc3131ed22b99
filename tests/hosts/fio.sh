#!/bin/sh
# Data integrity over all transfer sizes, random and in order, without and with
# digests: fio writes blocks with checksums and reads them all back.
. "$(dirname "$0")/lib.sh"

sizes=512/15:1k/5:1536/5:4k/25:12k/10:64k/15:96k/5:192k/10:1m/10
for digests in off on; do
    case $digests in
    off) check "connect, digests $digests" connect ;;
    on) check "connect, digests $digests" connect --hdr-digest --data-digest ;;
    esac
    [ -b "$DEV" ] || finish
    check "random mixed sizes, digests $digests" \
        verified --name=random --rw=randwrite --bssplit=$sizes --size=48m
    check "sequential mixed sizes, digests $digests" \
        verified --name=sequential --rw=write --bssplit=$sizes --offset=48m --size=48m
    check "single blocks at random, digests $digests" \
        verified --name=blocks --rw=randwrite --bs=512 --offset=96m --size=2m
    check "whole stripes in order, digests $digests" \
        verified --name=stripes --rw=write --bs=192k --offset=98m --size=30m
    check "reads among the writes, digests $digests" \
        verified --name=mixed --rw=randrw --bssplit=$sizes --offset=128m --size=32m
    check "one command at a time, digests $digests" \
        verified --name=single --rw=randwrite --bsrange=512-1m --iodepth=1 --offset=160m --size=16m
    check "disconnect, digests $digests" disconnect
done
check "the kernel has nothing to complain of" kernel_content
finish
