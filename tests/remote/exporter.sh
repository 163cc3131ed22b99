#!/bin/sh
# Linux as the machine that has members of an array (see scripts/guest/remote): exports each
# of its disks, ubda, ubdb ..., as the only namespace of a subsystem of its own, at two
# addresses, and does what it is told from outside (see scripts/guest/obey.sh).
#
# From the environment: DISKS, how many there are; NQN, to which the number of the disk is
# appended, from 0 on. The addresses are 10.9.0.2 on vec0, and 10.9.1.2 on vec1.
set -e

letters=abcdefghijklmnop
nvmet=/sys/kernel/config/nvmet

# disk NUMBER: its name.
disk() { echo "ubd$(echo $letters | cut -c $(($1 + 1)))"; }

# port NUMBER ADDRESS
port() {
    mkdir "$nvmet/ports/$1"
    echo tcp >"$nvmet/ports/$1/addr_trtype"
    echo ipv4 >"$nvmet/ports/$1/addr_adrfam"
    echo "$2" >"$nvmet/ports/$1/addr_traddr"
    echo 4420 >"$nvmet/ports/$1/addr_trsvcid"
}

# export_disk NUMBER: with an identity that is the same after each boot.
export_disk() {
    subsystem=$nvmet/subsystems/$NQN$1
    mkdir "$subsystem" "$subsystem/namespaces/1"
    echo 1 >"$subsystem/attr_allow_any_host"
    printf '/dev/%s' "$(disk "$1")" >"$subsystem/namespaces/1/device_path"
    printf '6c696e75786c696e75786c696e7578%02d' "$1" >"$subsystem/namespaces/1/device_nguid"
    echo 1 >"$subsystem/namespaces/1/enable"
    ln -s "$subsystem" "$nvmet/ports/1/subsystems/$NQN$1"
    ln -s "$subsystem" "$nvmet/ports/2/subsystems/$NQN$1"
}

# way NUMBER OPTION...: what the network of vecNUMBER does to packets, each way, in the words of
# tc-netem: `way 0 delay 20ms loss 1%`; nothing where there are no options.
way() {
    way_number=$1
    shift
    # `limit` is in packets: more than all windows together.
    tc qdisc replace dev "vec$way_number" root netem limit 20000 "$@"
    tc qdisc replace dev "ifb$way_number" root netem limit 20000 "$@"
}

# incoming NUMBER: has ifbNUMBER receive what comes to vecNUMBER, so that it can be delayed, too.
incoming() {
    ip link set "ifb$1" up
    tc qdisc add dev "vec$1" ingress
    tc filter add dev "vec$1" parent ffff: matchall action mirred egress redirect dev "ifb$1"
}

# written NUMBER: sectors that were written to this disk.
written() { awk '{ print $7 }' "/sys/block/$(disk "$1")/stat"; }

# well: the kernel has no error to report.
well() { ! dmesg | grep -Ei 'I/O error|BUG|Call Trace|Kernel panic'; }

ip addr add 10.9.1.2/24 dev vec1
ip link set vec1 up
port 1 10.9.0.2
port 2 10.9.1.2
number=0
while [ $number -lt "$DISKS" ]; do
    export_disk $number
    number=$((number + 1))
done
incoming 0
incoming 1

. "$(dirname "$0")/../../scripts/guest/obey.sh"
