#!/bin/sh
# Every command of nvme-cli that a fabrics controller answers, and those that it
# refuses, by their status; then two hosts that shut each other out with reservations.
# Reservations and the persistent event log are looked at again after the target was
# killed and started. Both hosts are this guest, under two names.
#
# Event: restart-target.
. "$(dirname "$0")/lib.sh"

# denied CODE CMD...: the command fails with this NVMe status, and is not to be repeated.
denied() {
    denied_code=$1
    shift
    refuses "0x4$denied_code\\)" "$@"
}
# value PATTERN ID [OPTIONS]: a feature, read.
value() {
    value_pattern=$1 value_id=$2
    shift 2
    says "Current value: *(0x)?$value_pattern" nvme get-feature "$char" --feature-id="$value_id" "$@"
}
# page BYTES ID: a log page has so many bytes, and not all of them are beyond its end.
page() { test "$(nvme get-log "$char" --log-id="$2" --log-len="$1" --raw-binary | wc -c)" -eq "$1"; }
live() { test "$(cat "/sys/class/nvme/$CTRL/state")" = live; }

check "connect" connect --reconnect-delay=1 --ctrl-loss-tmo=60
[ -b "$DEV" ] || finish
char=/dev/$CTRL
block=$(blockdev --getss "$DEV")
data=/run/tmp/data back=/run/tmp/back
head -c "$block" /dev/urandom >$data

# ---- what the controller says of itself

check "id-ctrl: reservations are offered" test "$(($(field oncs nvme id-ctrl "$char") & 0x20))" -eq 32
check "id-ctrl: 128 error log entries" test "$(field elpe nvme id-ctrl "$char")" -eq 127
check "id-ns: every type, and over a loss of power" says '^rescap *: 0xff$' nvme id-ns "$DEV"
check "cmdset-ind-id-ns: the same" says '^rescap *: *(0x)?ff$' nvme cmdset-ind-id-ns "$char" --namespace-id=1
check "list-ns" says '0x1$' nvme list-ns "$char"
check "ns-descs" says '^uuid *: 00000000-0000-0000-0000-0000000000c1$' nvme ns-descs "$char" --namespace-id=1
check "nvm-id-ctrl" says '^dmrl *: 0$' nvme nvm-id-ctrl "$char"
check "id-iocs" says 'Combination\[0\]:1$' nvme id-iocs "$char"
check "nvm-id-ns" nvme nvm-id-ns "$char" --namespace-id=1
check "list-ctrl is refused" denied 002 nvme list-ctrl "$char"
check "primary-ctrl-caps is refused" denied 002 nvme primary-ctrl-caps "$char"
check "list-secondary is refused" denied 002 nvme list-secondary "$char"
check "id-nvmset is refused" denied 002 nvme id-nvmset "$char"
check "id-uuid is refused" denied 002 nvme id-uuid "$char"
check "id-domain is refused" denied 002 nvme id-domain "$char"
check "list-endgrp is refused" denied 002 nvme list-endgrp "$char"
check "id-ns-granularity is refused" denied 002 nvme id-ns-granularity "$char"

# ---- log pages

for lid in 0x00 0x01 0x02 0x03 0x04 0x05 0x12 0x13 0x80; do
    check "get-log $lid" page 64 $lid
done
for lid in 0x06 0x07 0x09 0x0e 0x70 0xc0; do
    check "get-log $lid is refused" denied 109 nvme get-log "$char" --log-id=$lid --log-len=64
done
check "get-log beyond the end is refused" denied 002 \
    nvme get-log "$char" --log-id=0x02 --log-len=64 --lpo=1024
check "supported-log-pages" says '0x80' nvme supported-log-pages "$char"
check "fid-support-effects-log" says '82|130' nvme fid-support-effects-log "$char" --output-format=json
check "mi-cmd-support-effects-log" nvme mi-cmd-support-effects-log "$char"
effect() { nvme get-log "$char" --log-id=0x05 --log-len=4096 --raw-binary | od -An -tu4 -j$((1024 + 4 * $1)) -N4; }
check "effects-log" nvme effects-log "$char"
check "effects-log: a write changes blocks" test "$(($(effect 1)))" -eq 3
check "effects-log: Reservation Acquire is there" test "$(($(effect 17)))" -eq 1
check "effects-log: Verify is not" test "$(($(effect 12)))" -eq 0
check "fw-log" says 'frs1' nvme fw-log "$char"
check "changed-ns-list-log" nvme changed-ns-list-log "$char"
check "smart-log" says '^available_spare[[:space:]]*: 100%$' nvme smart-log "$char"
check "resv-notif-log: nothing" says 'Log Page Type[[:space:]]*: 0' nvme resv-notif-log "$char"
check "a read past the end fails" denied 080 nvme read "$char" --namespace-id=1 \
    --start-block=81985529216486895 --data-size="$block" --data=$back
logged() {
    nvme error-log "$char" --log-entries=4 >/run/tmp/errors && cat /run/tmp/errors &&
        grep -Eq '^lba[[:space:]]*: 0x123456789abcdef$' /run/tmp/errors &&
        grep -Eq '^status_field[[:space:]]*: 0x4080' /run/tmp/errors && grep -Eq '^nsid[[:space:]]*: 0x1$' /run/tmp/errors
}
check "error-log has it" until_true 10 logged
cat /run/tmp/errors
entries() { nvme smart-log "$char" | sed -n 's/^num_err_log_entries[[:space:]]*: //p'; }
check "smart-log counts it" test "$(entries)" -ge 10

# ---- the persistent event log

# events BEGUN: establishes a context, has nvme-cli tell the log, and releases the context. It is that of a
# target that was started so often: each time a power-on event and a snapshot of health.
events() {
    events_page=$(nvme persistent-event-log "$char" --action=1 --log_len=4096) || { echo "$events_page"; return 1; }
    echo "$events_page"
    nvme persistent-event-log "$char" --action=2 || return 1
    echo "$events_page" | grep -Eq "^Total Number of Events: $((2 * $1))\$" &&
        echo "$events_page" | grep -Eq "Power Cycle Count: $1\$" &&
        [ "$(echo "$events_page" | grep -c '^Event Type: Power-on or Reset')" -eq "$1" ] &&
        [ "$(echo "$events_page" | grep -c '^Event Type: SMART/Health')" -eq "$1" ] &&
        echo "$events_page" | grep -q '^Serial Number (SN): STRIPEWISE01' &&
        echo "$events_page" | grep -Fq "$NQN"
}
check "id-ctrl: a persistent event log is offered" test "$(($(field lpa nvme id-ctrl "$char") & 0x10))" -eq 16
check "id-ctrl: of 64 KiB" test "$(field pels nvme id-ctrl "$char")" -eq 1
check "supported-log-pages: Persistent Event Log" says 'Persistent Event' nvme supported-log-pages "$char" --verbose
check "persistent-event-log: a read without a context is refused" denied 00c \
    nvme persistent-event-log "$char" --action=0 --log_len=512
check "persistent-event-log" events 1
check "persistent-event-log: once more" events 1
check "persistent-event-log: establish" nvme persistent-event-log "$char" --action=1
check "persistent-event-log: a second context is refused" denied 00c nvme persistent-event-log "$char" --action=1
check "persistent-event-log: read" says '^Total Number of Events: 2$' nvme persistent-event-log "$char" --action=0
raw() { test "$(nvme persistent-event-log "$char" --action=0 --log_len=1080 --raw-binary | wc -c)" -eq 1080; }
check "persistent-event-log: all of it" raw
check "persistent-event-log: release" nvme persistent-event-log "$char" --action=2
check "persistent-event-log: release, though there is none" nvme persistent-event-log "$char" --action=2

# ---- features

for id in 0x01 0x02 0x04 0x05 0x06 0x07 0x0a 0x0b 0x0f; do
    check "get-feature $id" value '[0-9a-f]+' $id
done
check "get-feature 0x0e" says '[0-9a-f]' nvme get-feature "$char" --feature-id=0x0e --data-len=8
check "get-feature 0x16" nvme get-feature "$char" --feature-id=0x16 --data-len=512
check "get-feature 0x81" says '"[^"]*"|00' nvme get-feature "$char" --feature-id=0x81 --cdw11=1 --data-len=16
for id in 0x03 0x08 0x09 0x0c 0x0d 0x10 0x11 0x84; do
    check "get-feature $id is refused" denied 002 nvme get-feature "$char" --feature-id=$id --namespace-id=1
done
for pair in 0x01=0x7 0x04=0x150 0x05=0x9 0x0a=0x1; do
    check "set-feature $pair" nvme set-feature "$char" --feature-id=${pair%=*} --value=${pair#*=}
    check "set-feature $pair is kept" value "0*${pair#*=0x}\$" ${pair%=*}
done
check "set-feature 0x06: the cache cannot be off" denied 10e nvme set-feature "$char" --feature-id=0x06 --value=0
check "set-feature 0x82" nvme set-feature "$char" --namespace-id=1 --feature-id=0x82 --value=0x2
check "set-feature 0x82 is kept" value '0*2$' 0x82 --namespace-id=1
check "set-feature 0x82 back" nvme set-feature "$char" --namespace-id=1 --feature-id=0x82 --value=0
check "get-feature 0x83" value '0+$' 0x83 --namespace-id=1
check "set-feature 0x83" nvme set-feature "$char" --namespace-id=1 --feature-id=0x83 --value=1
check "set-feature 0x83 is kept" value '0*1$' 0x83 --namespace-id=1
check "set-feature 0x83 back" nvme set-feature "$char" --namespace-id=1 --feature-id=0x83 --value=0
check "saving a feature is refused" denied 10d nvme set-feature "$char" --feature-id=0x01 --value=7 --save

# ---- I/O

io() { io_verb=$1; shift; nvme "$io_verb" "$char" --namespace-id=1 --start-block=8 --block-count=0 "$@"; }
check "write" io write --data-size="$block" --data=$data
check "read" io read --data-size="$block" --data=$back
check "it is what was written" cmp $data $back
check "compare" io compare --data-size="$block" --data=$data
check "compare with something else" denied 285 io compare --data-size="$block" --data=/bin/busybox
check "flush" nvme flush "$char" --namespace-id=1
check "write-zeroes" io write-zeroes
check "dsm" nvme dsm "$char" --namespace-id=1 --ad --slbs=8 --blocks=1
check "write-uncor is refused" denied 001 io write-uncor
check "verify is refused" denied 001 io verify
check "copy is refused" denied 001 nvme copy "$char" --namespace-id=1 --sdlba=9 --slbs=8 --blocks=0
check "an unknown I/O command is refused" denied 001 nvme io-passthru "$char" --namespace-id=1 --opcode=0x99

# ---- what a fabrics controller of this kind does not do

check "device-self-test is refused" denied 001 nvme device-self-test "$char" --namespace-id=1 --self-test-code=1
check "sanitize is refused" denied 001 nvme sanitize "$char" --sanact=2
check "format is refused" denied 001 nvme format "$char" --namespace-id=1 --lbaf=0 --force
check "fw-download is refused" denied 001 nvme fw-download "$char" --fw=$data
check "fw-commit is refused" denied 001 nvme fw-commit "$char" --slot=1 --action=1
check "create-ns is refused" denied 001 nvme create-ns "$char" --nsze=8 --ncap=8 --flbas=0
check "delete-ns is refused" denied 001 nvme delete-ns "$char" --namespace-id=1
check "attach-ns is refused" denied 001 nvme attach-ns "$char" --namespace-id=1 --controllers=1
check "security-recv is refused" denied 001 nvme security-recv "$char" --namespace-id=1 --size=16
check "get-lba-status is refused" denied 001 nvme get-lba-status "$char" --namespace-id=1 --max-dw=7 --action=0x11
check "dir-receive is refused" denied 001 nvme dir-receive "$char" --namespace-id=1 --dir-type=0 --dir-oper=1 --data-len=8
check "an unknown admin command is refused" denied 001 nvme admin-passthru "$char" --opcode=0xc1
check "subsystem-reset is refused" refuses '.' nvme subsystem-reset "$char"
check "reset" nvme reset "$char"
check "the controller is there again" until_true 20 live
check "what was set is as it was before" value '0+$' 0x01

# ---- two hosts

mine=$char other_id=00000000-0000-4000-8000-0000000000ff
# Not with nvme-cli, which takes every host for the one that is connected.
other_connect() {
    other_options=hostnqn=nqn.2014-08.org.nvmexpress:uuid:$other_id,hostid=$other_id
    echo "transport=tcp,traddr=$ADDR,trsvcid=$PORT,nqn=$NQN,$other_options,reconnect_delay=1,ctrl_loss_tmo=60" \
        >/dev/nvme-fabrics && until_true 10 find_other && find_other
}
find_other() {
    for other_path in /sys/class/nvme/nvme*; do
        if [ "$(cat "$other_path/hostid" 2>/dev/null)" = $other_id ]; then
            other=/dev/${other_path##*/}
        fi
    done
    [ -c "$other" ] && [ "$(cat "/sys/class/nvme/${other#/dev/}/state")" = live ]
}
register() { nvme resv-register "$1" --namespace-id=1 --rrega=0 --nrkey="$2"; }
acquire() { nvme resv-acquire "$1" --namespace-id=1 --racqa=0 --crkey="$2" --rtype="$3"; }
preempt() { nvme resv-acquire "$1" --namespace-id=1 --racqa="${5:-1}" --crkey="$2" --prkey="$3" --rtype="$4"; }
release() { nvme resv-release "$1" --namespace-id=1 --rrela=0 --crkey="$2" --rtype="$3"; }
clear_all() { nvme resv-release "$1" --namespace-id=1 --rrela=1 --crkey="$2"; }
reads() { nvme read "$1" --namespace-id=1 --start-block=0 --data-size="$block" --data=$back; }
writes() { nvme write "$1" --namespace-id=1 --start-block=0 --data-size="$block" --data=$data; }
report() { nvme resv-report "$1" --namespace-id=1 --eds; }

check "the other host connects" other_connect
[ -c "$other" ] || finish
check "who is not registered cannot reserve" denied 083 acquire "$mine" 0xa 1
for kind in 1 2 3 4 5 6; do
    check "type $kind: register" register "$mine" 0xa
    check "type $kind: acquire" acquire "$mine" 0xa $kind
    check "type $kind: the holder writes" writes "$mine"
    check "type $kind: others do not write" denied 083 writes "$other"
    case $kind in
    2 | 4 | 6) check "type $kind: others do not read" denied 083 reads "$other" ;;
    *) check "type $kind: others read" reads "$other" ;;
    esac
    check "type $kind: the other registers" register "$other" 0xb
    case $kind in
    1 | 2) check "type $kind: registered, it does not write either" denied 083 writes "$other" ;;
    *) check "type $kind: registered, it writes" writes "$other" ;;
    esac
    check "type $kind: the report names it" says "^rtype *: *$kind\$" report "$other"
    check "type $kind: the report has both" says '^regctl *: *2$' report "$other"
    check "type $kind: another type cannot be had" denied 083 acquire "$mine" 0xa $((kind % 6 + 1))
    check "type $kind: clear" clear_all "$mine" 0xa
    check "type $kind: the other writes again" writes "$other"
done
check "a report without EDS is refused" denied 018 nvme resv-report "$mine" --namespace-id=1
check "register, to be kept" nvme resv-register "$mine" --namespace-id=1 --rrega=0 --nrkey=0xa --cptpl=3
check "acquire" acquire "$mine" 0xa 1
check "replace the key" nvme resv-register "$mine" --namespace-id=1 --rrega=2 --crkey=0xa --nrkey=0xc
check "the old key is of no use" denied 083 release "$mine" 0xa 1
check "the other registers" register "$other" 0xb
check "the other preempts" preempt "$other" 0xb 0xc 1
check "the first one is told" says 'Log Page Type[[:space:]]*: 1' nvme resv-notif-log "$mine"
check "the first one does not write" denied 083 writes "$mine"
check "the other leaves" nvme disconnect --device="${other#/dev/}"
fails() { refuses 'Invalid exchange' dd if=$data of="$DEV" bs="$block" count=1 oflag=direct; }
check "a write to the block device fails as a conflict" fails
check "a read of it does not" dd if="$DEV" of=$back bs="$block" count=1 iflag=direct
check "the target is killed and started again" ask restart-target
check "the host is back" until_true 60 live
check "the persistent event log goes on" events 2
check "the write fails as before" fails
check "the other host comes back" other_connect
check "it writes" writes "$other"
check "the report says that this is kept" says '^ptpls *: *1$' report "$other"
check "the first one registers again" register "$mine" 0xa
check "and preempts and aborts" preempt "$mine" 0xa 0xb 2 2
check "the other does not read" denied 083 reads "$other"
check "release" release "$mine" 0xa 2
check "the other reads" reads "$other"
check "unregister" nvme resv-register "$mine" --namespace-id=1 --rrega=1 --crkey=0xa
check "nobody is left" says '^regctl *: *0$' report "$mine"
check "disconnect" disconnect
finish
