"""A network of its own for a run, in which nothing is set as on the rest of the machine."""

import os
import sys
from pathlib import Path

SETTINGS = Path("/proc/sys/net/ipv4")
# Only the loopback device is there, and it is down at first.
PREPARE = f'ip link set lo up && echo "$0" > {SETTINGS}/tcp_congestion_control && exec "$@"'


def congestion():
    """By which algorithm TCP controls congestion here; None where the machine does not tell."""
    try:
        return (SETTINGS / "tcp_congestion_control").read_text().strip()
    except OSError:
        return None


def allowed():
    """The algorithms that the kernel has loaded and lets other networks than the machine's own choose."""
    try:
        return (SETTINGS / "tcp_allowed_congestion_control").read_text().split()
    except OSError:
        return []


def command(algorithm, *words):
    """The command that runs these words in a new network, in which TCP controls congestion by this algorithm."""
    # Who is not root gets a user namespace with it.
    options = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
    return ["unshare", *options, "sh", "-c", PREPARE, algorithm, *words]


def start_over(algorithm, *arguments):
    """Becomes the same program in a new network. Does not return."""
    words = command(algorithm, sys.executable, *arguments)
    os.execvp(words[0], words)
