#!/bin/sh
# Several I/O queues of one host, one per processor, and queues of their own for
# reads and for polling. Needs a guest with several processors (qemu-run).
. "$(dirname "$0")/lib.sh"

cpus=$(nproc)

# queues COUNT: the kernel has as many I/O queues; the admin queue counts too.
queues() { says "^$(($1 + 1))\$" cat "/sys/class/nvme/$CTRL/queue_count"; }

# on_every_queue: a verifying job for each processor, so that each queue is used.
on_every_queue() {
    verified --name=queue --numjobs="$cpus" --cpus_allowed="0-$((cpus - 1))" --cpus_allowed_policy=split \
        --offset_increment=16m --rw=randwrite --bssplit=512/20:4k/40:64k/20:192k/20 --size=2m "$@"
}

check "the guest has several processors" test "$cpus" -ge 2
for count in 1 2 $cpus; do
    check "connect with $count queues" connect --nr-io-queues="$count"
    [ -b "$DEV" ] || finish
    check "the target gave $count queues" queues "$count"
    check "data on $count queues verifies" on_every_queue
    check "disconnect from $count queues" disconnect
done

check "connect with digests" connect --nr-io-queues="$cpus" --hdr-digest --data-digest
check "data with digests on $cpus queues verifies" on_every_queue
check "disconnect with digests" disconnect

check "connect with queues for writes and for polling" \
    connect --nr-io-queues=2 --nr-write-queues=1 --nr-poll-queues=1
check "the target gave them all" queues 4
check "data on default queues verifies" on_every_queue
check "disconnect from all kinds of queues" disconnect
check "the kernel has nothing to complain of" kernel_content
finish
