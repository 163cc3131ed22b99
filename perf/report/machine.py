"""What the figures were measured on."""

import os
import subprocess
from pathlib import Path

from .network import congestion

ROOT = Path(__file__).resolve().parents[2]


def _field(path, name):
    """The value of a line `name: value` of a file in /proc."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name)
    return next(found, None)


def _output(*command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def load():
    """Load averages of one, five and fifteen minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def machine():
    """Facts for the head of a report; None where the machine does not tell."""
    changes = _output("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": sorted(os.sched_getaffinity(0)),
        "kernel": " ".join(os.uname()[i] for i in (0, 2, 4)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "hugepages": f"{_field('/proc/meminfo', 'HugePages_Total')} of {_field('/proc/meminfo', 'Hugepagesize')}",
        "congestion": congestion(),
        "commit": _output("git", "rev-parse", "--short=12", "HEAD"),
        "changed": bool(changes),
        "rust": _output("rustc", "--version"),
    }
