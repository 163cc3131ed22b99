# shellcheck shell=bash
# The two that work on one array in turn: Linux in a guest, and Stripewise. Sourced by
# md-judge, whose variables binary, netns, work, nqn and nguid it uses. The members are
# the files $work/m0 ... m3.
#
# Both sides can do the same:
#   SIDE_create POLICY     makes an array of all members and exports it
#   SIDE_open [NUMBER...]  assembles it from these members (default: all), and exports it
#   SIDE_refuses NUMBER... will not assemble it from these, for it was not stopped cleanly
#   SIDE_settled [MISSING] waits until there is nothing left to do but for so many members
#   SIDE_rests             nobody writes, and it says so: its superblocks become clean
#   SIDE_lose NUMBER       a member fails
#   SIDE_regain NUMBER     it comes back
#   SIDE_regain_half NUMBER  the same, but its rebuild gets half way only
#   SIDE_spared NUMBER SECTORS  no more than so many sectors of the member were written
#   SIDE_written           prints how many writes it has done
#   SIDE_close             stops the array, and leaves, in good order
#   SIDE_kill              is gone
# SIDE_address is where it exports.

numbers=(0 1 2 3)
member_mib=64

# wait_for SECONDS CMD...: asks again and again until it is so.
wait_for() {
    local tries=$(($1 * 20))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "waited in vain for: $*"; return 1; }
        sleep 0.05
    done
}

# ---- Linux

# shellcheck disable=SC2034 # used by md-judge
linux_address=10.9.0.2
linux_pid=''

# linux_boot NUMBER...: a guest with these members.
linux_boot() {
    local number options=()
    for number in "$@"; do options+=(--disk "$work/m$number"); done
    rm -rf "$work/linux"
    mkdir "$work/linux"
    "$here/uml-run" --netns "$netns" --out "$work/linux" --timeout 300 \
        --env "MEMBERS=$*" --env "ADDR=$linux_address" --env "NQN=$nqn" --env "NGUID=$nguid" \
        "${options[@]}" --script "$guest/agent.sh" >>"$work/console" 2>&1 &
    linux_pid=$!
}

# tell COMMAND...: has the guest do it; prints what it says.
tell() {
    local status
    rm -f "$work/linux/done"
    echo "$*" >"$work/linux/do.new"
    mv "$work/linux/do.new" "$work/linux/do"
    until [ -s "$work/linux/done" ]; do
        kill -0 "$linux_pid" 2>/dev/null || { echo "the guest has ended"; return 1; }
        sleep 0.02
    done
    cat "$work/linux/said"
    status=$(cat "$work/linux/done")
    return "$status"
}

linux_create() { linux_boot "${numbers[@]}" && tell create "$1" && tell serve; }
linux_open() {
    [ $# -gt 0 ] || set -- "${numbers[@]}"
    linux_boot "$@" && tell assemble && tell serve
}
linux_refuses() {
    linux_boot "$@" && tell refused 'not clean' && tell leave && wait "$linux_pid" && linux_pid=''
}
linux_settled() { tell settled "$@"; }
linux_rests() { tell rests; }
linux_lose() { tell lose "$1"; }
linux_regain() { tell regain "$1"; }
linux_regain_half() {
    local half=$((member_mib * 1024))
    tell stop_at $half && tell regain "$1" && tell halfway $half
}
linux_spared() { tell spared "$@"; }
linux_written() { tell written; }
linux_close() {
    tell well && tell stop && tell leave && wait "$linux_pid" && linux_pid=''
}
linux_kill() {
    [ -n "$linux_pid" ] || return 0
    kill "$linux_pid" 2>/dev/null
    wait "$linux_pid" 2>/dev/null
    linux_pid=''
}

# ---- Stripewise

# shellcheck disable=SC2034 # used by md-judge
ours_address=10.9.0.1
ours_pid=''
ours_socket=$work/rpc.sock

rpc() { "$binary" rpc -s "$ours_socket" "$@"; }

# ours_start NUMBER...: a target with these members.
ours_start() {
    local number bdevs=''
    for number in "$@"; do
        bdevs+="${bdevs:+,}{\"method\":\"bdev_uring_create\",\"params\":
            {\"name\":\"m$number\",\"filename\":\"$work/m$number\",\"block_size\":512}}"
    done
    cat >"$work/config.json" <<JSON
{"subsystems": [
  {"subsystem": "bdev", "config": [
    {"method": "bdev_raid_set_options", "params": {"degraded_start_wait_sec": 1}}, $bdevs]},
  {"subsystem": "nvmf", "config": [
    {"method": "nvmf_create_transport", "params": {"trtype": "TCP"}},
    {"method": "nvmf_create_subsystem", "params": {"nqn": "$nqn", "allow_any_host": true}}]}]}
JSON
    "$here/netns" exec "$netns" "$binary" serve -s 256 -c "$work/config.json" -r "$ours_socket" \
        >>"$work/target.log" 2>&1 &
    ours_pid=$!
    wait_for 30 rpc spdk_get_version
}

ours_serve() {
    rpc nvmf_subsystem_add_ns nqn=$nqn "namespace={\"bdev_name\": \"judge\", \"nguid\": \"$nguid\"}" &&
        rpc nvmf_subsystem_add_listener "nqn=$nqn" \
            "listen_address={\"trtype\": \"TCP\", \"adrfam\": \"IPv4\", \"traddr\": \"$ours_address\", \"trsvcid\": \"4420\"}"
}

# ours_state FILTER: whether it holds of the array.
ours_state() { rpc bdev_raid_get_bdevs category=all | jq -e ".[0] | $1"; }

ours_create() {
    ours_start "${numbers[@]}" &&
        rpc bdev_raid_create name=judge raid_level=raid5 strip_size_kb=64 superblock=true \
            "consistency_policy=$1" 'base_bdevs=["m0", "m1", "m2", "m3"]' &&
        ours_settled && ours_serve
}
# ours_create_owing POLICY: the same of members on which parity is right nowhere, with a resync that is
# slow enough to be met under way.
ours_create_owing() {
    local number
    for number in "${numbers[@]}"; do
        head -c "${member_mib}M" /dev/urandom >"$work/m$number"
    done
    ours_start "${numbers[@]}" &&
        rpc bdev_raid_set_options process_max_bandwidth_mb_sec=4 process_busy_bandwidth_mb_sec=4 &&
        rpc bdev_raid_create name=judge raid_level=raid5 strip_size_kb=64 superblock=true \
            "consistency_policy=$1" 'base_bdevs=["m0", "m1", "m2", "m3"]' &&
        ours_serve
}
ours_owes() { ours_state '.process.type == "resync" and .process.progress.percent < 90'; }
# ours_create_spoilt: the same, where member 1 can be made to fail.
ours_create_spoilt() {
    ours_start "${numbers[@]}" && rpc bdev_error_create base_name=m1 &&
        rpc bdev_raid_create name=judge raid_level=raid5 strip_size_kb=64 superblock=true \
            'base_bdevs=["m0", "EE_m1", "m2", "m3"]' &&
        ours_settled && ours_serve
}
# ours_spoil COUNT: its next so many writes fail.
ours_spoil() {
    rpc bdev_error_inject_error name=EE_m1 io_type=write error_type=failure "num=$1"
}
ours_open() {
    [ $# -gt 0 ] || set -- "${numbers[@]}"
    ours_start "$@" && wait_for 30 ours_state '.state == "online"' && ours_serve
}
ours_refuses() {
    local answer
    ours_start "$@" || return 1
    if answer=$(rpc bdev_raid_assemble name=judge 2>&1); then
        echo "it has started: $answer"
        return 1
    fi
    echo "$answer"
    grep -q 'not stopped cleanly' <<<"$answer" && ours_close
}
ours_settled() {
    wait_for 120 ours_state ".process == null and .num_base_bdevs_operational == $((4 - ${1:-0}))
        and .md.in_sync"
}
ours_rests() { wait_for 20 ours_state '.md.dirty == false'; }
ours_lose() { rpc bdev_raid_remove_base_bdev "name=m$1"; }
ours_regain() { rpc bdev_raid_add_base_bdev raid_bdev=judge "base_bdev=m$1"; }
ours_regain_half() {
    rpc bdev_raid_set_options process_max_bandwidth_mb_sec=4 process_busy_bandwidth_mb_sec=4 &&
        ours_regain "$1" && wait_for 60 ours_state '.process.progress.percent >= 20'
}
ours_spared() {
    rpc bdev_get_iostat "name=m$1" | jq -e ".bdevs[0].bytes_written <= $2 * 512"
}
ours_written() { rpc nvmf_get_stats | jq '[.poll_groups[].completed_nvme_io] | add'; }
ours_close() {
    kill -TERM "$ours_pid" && wait "$ours_pid" && ours_pid=''
}
ours_kill() {
    [ -n "$ours_pid" ] || return 0
    kill -KILL "$ours_pid" 2>/dev/null
    wait "$ours_pid" 2>/dev/null
    ours_pid=''
}
