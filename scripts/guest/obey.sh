# shellcheck shell=sh
# How a guest does what it is told from outside, one command after another, until `leave`.
# Sourced at the end of a guest's script, whose functions are the commands.
#
# A command is the text of /run/out/do; its output comes to /run/out/said, and then its
# status to /run/out/done.

until [ -n "${left:-}" ]; do
    until [ -e /run/out/do ]; do sleep 0.05; done
    command=$(cat /run/out/do)
    rm /run/out/do
    case $command in
    leave) left=yes status=0 ;;
    *)
        # In a shell of its own, where -e holds, as it would not behind && or ||.
        set +e
        (set -e; eval "$command") >/run/out/said 2>&1
        status=$?
        set -e
        ;;
    esac
    echo "$status" >/run/out/done.new
    mv /run/out/done.new /run/out/done
done
