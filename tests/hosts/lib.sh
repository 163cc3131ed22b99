# shellcheck shell=sh
# What the guest scripts share: checks that count, the NVMe connection, and the
# hand-shake with the machine outside. Sourced by plain sh (dash and busybox).
#
# From the environment: ADDR PORT NQN of the target, GUEST (0, 1, ...), and
# /run/out, a folder that both the guest and the machine outside can write.

: "${ADDR:=10.9.0.1}" "${PORT:=4420}" "${GUEST:=0}"
: "${NQN:=nqn.2026-11.io.stripewise:demo}"
# Fixed, because a host keeps its name over reconnects, and different for each
# guest, because the target tells hosts apart by them.
HOST_ID=00000000-0000-4000-8000-00000000000$GUEST
HOST_NQN=nqn.2014-08.org.nvmexpress:uuid:$HOST_ID

passed=0 failed=0
captured=$(mktemp)

# check NAME CMD...: one line of verdict; the command's output only when it fails.
check() {
    check_name=$1
    shift
    if "$@" >"$captured" 2>&1; then
        passed=$((passed + 1))
        echo "ok $check_name"
    else
        failed=$((failed + 1))
        echo "not ok $check_name"
        echo "#   ran: $*"
        tail -n 25 "$captured" | sed 's/^/#   /'
    fi
}

# says PATTERN CMD...: the command succeeds and its output has the pattern.
says() {
    says_pattern=$1
    shift
    says_output=$("$@" 2>&1) || { echo "$says_output"; return 1; }
    echo "$says_output"
    echo "$says_output" | grep -Eq -- "$says_pattern"
}

# refuses PATTERN CMD...: the command fails, and says why in these words.
refuses() {
    refuses_pattern=$1
    shift
    if refuses_output=$("$@" 2>&1); then
        echo "it succeeded: $refuses_output"
        return 1
    fi
    echo "$refuses_output"
    echo "$refuses_output" | grep -Eqi -- "$refuses_pattern"
}

# finish: the closing line; the script's status says whether all checks passed.
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

# until_true SECONDS CMD...: polls until the command succeeds, at most so long.
until_true() {
    tries=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# find_device: sets CTRL (nvme0) and DEV (/dev/nvme0n1) of the connection to NQN.
# With native multipath the block device hangs under the subsystem, else under
# the controller.
find_device() {
    CTRL='' DEV=''
    for find_path in /sys/class/nvme/nvme*; do
        if [ "$(cat "$find_path/subsysnqn" 2>/dev/null)" = "$NQN" ]; then
            CTRL=${find_path##*/}
        fi
    done
    [ -n "$CTRL" ] || return 1
    for find_path in /sys/class/nvme-subsystem/nvme-subsys*/nvme*n* /sys/class/nvme/"$CTRL"/nvme*n*; do
        case ${find_path##*/} in nvme*c*n*) continue ;; esac
        if [ "$(cat "${find_path%/*}/subsysnqn" 2>/dev/null)" = "$NQN" ]; then
            DEV=/dev/${find_path##*/}
        fi
    done
    [ -b "$DEV" ]
}

# second: the block device of the second namespace.
second() {
    for second_path in /sys/class/nvme-subsystem/nvme-subsys*/nvme*n2; do
        case ${second_path##*/} in nvme*c*n*) continue ;; esac
        [ "$(cat "${second_path%/*}/subsysnqn" 2>/dev/null)" = "$NQN" ] || continue
        [ -b "/dev/${second_path##*/}" ] && echo "/dev/${second_path##*/}"
    done
}
# shown, hidden: whether the kernel has it.
shown() { [ -n "$(second)" ]; }
hidden() { [ -z "$(second)" ]; }

# fabrics VERB OPTIONS...: an nvme command that reaches the target by itself.
fabrics() {
    fabrics_verb=$1
    shift
    nvme "$fabrics_verb" --transport=tcp --traddr="$ADDR" --trsvcid="$PORT" \
        --hostnqn="$HOST_NQN" --hostid="$HOST_ID" "$@"
}

# connect OPTIONS...: connects to NQN and waits for the block device.
connect() { fabrics connect --nqn="$NQN" "$@" && until_true 10 find_device && find_device; }

# disconnect: leaves NQN; true once the kernel has let go of it.
disconnect() { nvme disconnect --nqn="$NQN" && until_true 10 gone; }
gone() { ! find_device && [ -z "$CTRL" ]; }

# field NAME CMD...: the value of "NAME : value" in a command's output.
field() {
    field_name=$1
    shift
    "$@" | sed -n "s/^$field_name *: *//p" | head -n 1
}

# ask EVENT [SECONDS]: has the machine outside do something and waits for it;
# its status is what became of it over there.
ask() {
    rm -f "/run/out/done-$1"
    : >"/run/out/want-$1"
    until_true "${2:-60}" test -s "/run/out/done-$1" || { echo "no answer to $1"; return 1; }
    ask_status=$(cat "/run/out/done-$1")
    rm -f "/run/out/done-$1"
    return "$ask_status"
}

# kernel_content: the kernel reported no I/O error, timeout or digest mismatch
# since this script began.
kernel_messages() { dmesg | tail -n "+$((log_start + 1))"; }
log_start=$(dmesg | wc -l)
kernel_content() {
    ! kernel_messages | grep -Ei 'I/O error|timeout|digest|failed|invalid|corrupt|BUG|WARNING|Call Trace|EXT4-fs error|BTRFS (error|critical)'
}

# verified OPTIONS...: fio on DEV with checksums that are read back.
verified() {
    verified_log=$(mktemp)
    fio --filename="$DEV" --direct=1 --ioengine=libaio --iodepth=16 \
        --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 \
        --randseed=20261122 --group_reporting --minimal "$@" >"$verified_log" 2>&1
    verified_status=$?
    cat "$verified_log"
    [ $verified_status -eq 0 ] || return 1
    # fio is content when there was nothing to do, as on a region past the end of
    # the disk. Terse fields 6 and 47: KiB read and written.
    awk -F';' '/^3;/ { found = 1; ok = ($47 > 0 && $6 >= $47) } END { exit !(found && ok) }' "$verified_log"
}

# paced OPTIONS...: verified writes in the background, slow enough to be still at
# it when the events have been answered.
paced() {
    verified "$@" >/run/tmp/paced 2>&1 &
    paced_pid=$!
}
paced_ended_well() { wait "$paced_pid" || { cat /run/tmp/paced; return 1; }; }

# digest OFFSET_MIB MIB: a checksum of part of DEV, read past the page cache.
digest() { dd if="$DEV" bs=1M skip="$1" count="$2" iflag=direct 2>/dev/null | sha256sum; }
