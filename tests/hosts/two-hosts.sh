#!/bin/sh
# One of two hosts that work on the volume at the same time, each on its own half
# of one region, down to neighbouring stripes.
#
# Event: meet (answered when both hosts have asked).
. "$(dirname "$0")/lib.sh"

check "host $GUEST connects" connect
[ -b "$DEV" ] || finish
check "host $GUEST meets the other" ask meet
# 64 KiB of the region for one host, the next 64 KiB for the other, and so on:
# every stripe of the volume is written by both.
check "host $GUEST verifies its chunks" \
    verified --name=chunks --rw=write:64k --bs=64k --offset="$((GUEST * 64))k" --size=64m --io_size=32m
check "host $GUEST verifies its half at random" \
    verified --name=half --rw=randwrite --bssplit=512/20:4k/40:64k/20:192k/20 \
    --offset="$((64 + GUEST * 32))m" --size=32m
check "host $GUEST disconnects" disconnect
check "host $GUEST has nothing to complain of" kernel_content
finish
