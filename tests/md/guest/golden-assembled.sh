#!/bin/sh
# What Linux makes of the arrays in /run/out: assembles copies of each one's members,
# all of them and all but one, and leaves what came of it in NAME/assembled.
. "$(dirname "$0")/lib.sh"
set -e

# look FROM DIR WITHOUT [OPTION]: assembles FROM's members but the one of this number,
# if it is there. First read-only, so that nothing moves; then Linux may finish what there is to
# do, and say whether parity is right in the end.
look() {
    mkdir -p "$2" now
    cp "$1"/m[0-9]* now
    rm -f "now/m$3"
    attach now
    look_status=0
    # shellcheck disable=SC2086 # a list
    mdadm --assemble --run $4 $MD $members >"$2/message" 2>&1 || look_status=$?
    echo $look_status >"$2/status"
    if [ $look_status -eq 0 ]; then
        running "$2"
        [ "$(cat $md/array_state)" != read-auto ] || quiet mdadm --readwrite $MD
        at_rest
        echo check >$md/sync_action
        at_rest
        cat $md/mismatch_cnt >"$2/mismatch_cnt"
        content $MD >"$2/sha256-in-the-end"
    fi
    mdadm --stop --quiet $MD 2>/dev/null || true
    detach
    rm -r now
}

# at_rest: waits until nothing has been under way for a while.
at_rest() {
    at_rest_looks=0
    while [ $at_rest_looks -lt 5 ]; do
        at_rest_looks=$((at_rest_looks + 1))
        [ "$(cat $md/sync_action)" = idle ] || at_rest_looks=0
        sleep 0.05
    done
}

echo 1 >/sys/module/md_mod/parameters/start_ro
for record in /run/out/*/m0; do
    record=${record%/m0}
    echo "-- ${record##*/}"
    if [ ! -d "$record/members" ]; then
        attach "$record"
        stopped "$record/members"
        detach
    fi
    [ ! -e "$record/foreign" ] || continue
    look "$record" "$record/assembled/all" none
    if [ "$(cat "$record/assembled/all/status")" != 0 ]; then
        look "$record" "$record/assembled/forced" none --force
    fi
    for member in "$record"/m[0-9]*; do
        number=${member##*/m}
        look "$record" "$record/assembled/without-$number" "$number"
    done
done
