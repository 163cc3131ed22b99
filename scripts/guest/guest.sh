# shellcheck shell=bash
# What uml-run and qemu-run have in common: their options, the job that the
# guest's init reads, and the life of the guest's processes. Sourced by both.
#
#   --netns NAME     the namespace, made by `netns up`; uml-run can do without one,
#                    and then the guest has no network
#   --script FILE    a shell script to run in the guest; may be repeated
#   --disk FILE      a disk of the guest, which may write it (uml-run only): the
#                    first is /dev/ubda, then ubdb, ... 16 at most
#   --guest N        which tap and address the guest takes (default 0: 10.9.0.2)
#   --second N       another tap that it takes, as vec1 (uml-run only)
#   --out DIR        a folder that the guest may write, /run/out over there
#   --env K=V        environment for the scripts; may be repeated
#   --timeout S      seconds until the guest is killed (default 120)
#   --mem SIZE       the guest's memory (default 1G)
#   --kernel ARG     an argument of the guest's kernel (uml-run only); may be repeated
#
# The guest's / is the machine's own, read-only, so every installed program and
# every file of the tree is there under its usual path. Its console is on stdout.
# Status: 0 all scripts passed, 1 one failed, 124 timed out, 125 the guest died.

guest_usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    sed -n '/^#   --netns/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# guest_options "$@": sets netns guest second out timeout mem scripts disks env arguments, and work,
# a folder that is removed when the script ends.
guest_options() {
    netns='' guest=0 second='' out='' timeout=120 mem=1G scripts=() disks=() env=() arguments=()
    while [ $# -gt 1 ]; do
        case $1 in
        --netns) netns=$2 ;;
        --script) scripts+=("$(realpath -e "$2")") ;;
        --disk) disks+=("$(realpath -e "$2")") ;;
        --guest) guest=$2 ;;
        --second) second=$2 ;;
        --out) out=$(realpath -e "$2") ;;
        --env) env+=("$2") ;;
        --timeout) timeout=$2 ;;
        --mem) mem=$2 ;;
        --kernel) arguments+=("$2") ;;
        *) guest_usage ;;
        esac
        shift 2
    done
    [ $# -eq 0 ] && [ ${#scripts[@]} -gt 0 ] || guest_usage
    [ -z "$netns" ] || [ -e "/run/netns/$netns" ] ||
        die "no namespace $netns; make it with: netns up $netns"

    guest_pid=''
    work=$(mktemp -d)
    trap guest_end EXIT
    trap 'exit 130' INT TERM
    [ -n "$out" ] || { out=$work/out; mkdir "$out"; }
    case $out in
    *[[:space:],]*) die "the guest cannot mount a folder whose name has blanks or commas: $out" ;;
    esac
}

# guest_job INTERFACE: plain shell assignments, quoted, and the scripts as $@.
# INTERFACE is empty where the guest has no network.
guest_job() {
    local pair
    {
        printf 'INTERFACE=%q\nexport GUEST=%q\n' "$1" "$guest"
        for pair in ${env[@]+"${env[@]}"}; do
            printf 'export %s=%q\n' "${pair%%=*}" "${pair#*=}"
        done
        printf 'set --'
        printf ' %q' "${scripts[@]}"
        printf '\n'
    } >"$out/job"
    rm -f "$out/status"
}

guest_end() {
    # `timeout` leads a process group; without its head, the guest's process
    # namespace ends, and all of the guest with it.
    [ -z "$guest_pid" ] || kill -KILL -- "-$guest_pid" 2>/dev/null || true
    rm -rf "$work"
}

# guest_boot CMD...: runs the guest to its end and exits with its status.
guest_boot() {
    local rc=0 enter=()
    [ -z "$netns" ] || enter=(nsenter "--net=/run/netns/$netns" --)
    # A process namespace, because a guest may be several processes (UML is) and
    # must end as one.
    timeout -s KILL "$timeout" ${enter[@]+"${enter[@]}"} \
        unshare --mount --pid --fork --kill-child --mount-proc "$@" </dev/null &
    guest_pid=$!
    wait "$guest_pid" 2>/dev/null || rc=$?
    guest_pid=''

    if [ -s "$out/status" ]; then
        exit "$(cat "$out/status")"
    elif [ "$rc" -eq 137 ]; then
        say "the guest was killed, after $timeout s if by nobody else"
        rc=124
    else
        say "the guest died (status $rc)"
        rc=125
    fi
    say "its last kernel messages:"
    tail -n 20 "$out/dmesg" >&2 2>/dev/null || true
    exit $rc
}
