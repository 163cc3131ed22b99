# shellcheck shell=bash
# What the peers have in common: their options, and a guest of User Mode Linux on one core, its memory on huge pages.
# Sourced, never run.

peers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
guests=$(cd "$peers/../../scripts/guest" && pwd)
. "$guests/machine.sh"

peer_usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

# peer_options "$@": sets outdir, seconds, core, other, policies; and work, a folder that is removed at the end, when
# everything ends that was started here.
peer_options() {
    [ $# -ge 1 ] && [ "${1#-}" = "$1" ] || peer_usage
    outdir=$1 seconds=5 core=1 other=0 policies=''
    shift
    while [ $# -gt 1 ]; do
        case $1 in
        --seconds) seconds=$2 ;;
        --core) core=$2 ;;
        --other) other=$2 ;;
        --policy)
            case $2 in
            none | bitmap | ppl) policies+=" $2" ;;
            *) die "--policy $2: none, bitmap and ppl are there" ;;
            esac
            ;;
        *) peer_usage ;;
        esac
        shift 2
    done
    [ $# -eq 0 ] || peer_usage
    [[ $seconds =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--seconds $seconds: a number is wanted"
    # fio counts whole ones.
    seconds=$(awk -v "s=$seconds" 'BEGIN { s = int(s + 0.5); print s < 1 ? 1 : s }')
    mkdir -p "$outdir"
    outdir=$(realpath "$outdir")

    work=$(mktemp -d)
    guest_pid='' netns=''
    trap peer_end EXIT
    trap 'exit 130' INT TERM
    mkdir "$work/ram" "$work/out"
}

peer_end() {
    trap - INT TERM
    # uml-run ends its guest when it is told to end.
    [ -z "$guest_pid" ] || { kill "$guest_pid" && wait "$guest_pid"; } 2>/dev/null || true
    [ -z "$netns" ] || "$guests/netns" down "$netns"
    rm -rf "$work"
}

# peer_boot SCRIPT MIB TIMEOUT OPTION...: starts a guest with so much memory, pinned to the core. Its memory is a file on a
# tmpfs that only it sees, and its RAM disks have 256 MiB each. Its / is the machine's own, so fio and mdadm are there.
peer_boot() {
    huge_before=$(huge_kib) huge=0 huge_wanted=$(($2 * 1024))
    local script=$1 mib=$2 timeout=$3 memory='mount -t tmpfs -o huge=always ram "$0" && exec "$@"'
    # A kernel without huge pages for shared memory gives ordinary ones.
    unshare --mount sh -c "$memory" "$work/ram" env "TMPDIR=$work/ram" taskset -c "$core" \
        "$guests/uml-run" --out "$work/out" --mem "${mib}M" --timeout "$timeout" --kernel brd.rd_size=262144 \
        --env "SECONDS_EACH=$seconds" --env "POLICIES=${policies# }" --script "$peers/$script" "${@:4}" \
        >"$work/console" 2>&1 &
    guest_pid=$!
}

# huge_kib: memory of files on huge pages, of all processes, in KiB.
huge_kib() { awk '/^ShmemPmdMapped:/ { print $2 }' /proc/meminfo; }

# peer_sample: notes how much of that is the guest's.
peer_sample() {
    local now=$(($(huge_kib) - huge_before))
    [ $now -le $huge ] || huge=$now
}

# peer_wait: until the guest ends; what it has said comes out where it failed.
peer_wait() {
    local status=0
    while kill -0 "$guest_pid" 2>/dev/null; do
        peer_sample
        sleep 1
    done
    wait "$guest_pid" || status=$?
    guest_pid=''
    [ $status -eq 0 ] || { tail -n 30 "$work/console" >&2; die "the guest failed (status $status)"; }
}

# peer_note NAME KEY=VALUE...: writes NAME.json, which says what ran; guest_huge_mib is what of the guest's memory was on huge
# pages.
peer_note() {
    local pair arguments=()
    [ "$huge" -ge $((huge_wanted / 2)) ] ||
        say "only $((huge / 1024)) of the guest's $((huge_wanted / 1024)) MiB were on huge pages: Linux is shown slower than it can be"
    for pair in "peer=$1" "kernel=$(cat "$work/out/kernel")" "fio=$(fio --version)" "seconds=$seconds" "guest_core=$core" \
        "guest_huge_mib=$((huge / 1024))" \
        "load_average=$(cut -d' ' -f1-3 /proc/loadavg)" "${@:2}"; do
        arguments+=(--arg "${pair%%=*}" "${pair#*=}")
    done
    jq -n "${arguments[@]}" '$ARGS.named' >"$outdir/$1.json"
}
