"""An unmodified fio on our target, through the engine of perf/fio-engine and with the jobs of perf/fio; where the two are there."""

import os
import re
import shutil
from functools import partial

from .array import ARRAY, NQN
from .machine import ROOT
from .process import output, pinned, shown
from .sample import of_fio

JOBS = ROOT / "perf" / "fio"
LIBRARY = ROOT / "target" / "release" / "libstripewise_fio_engine.so"
# Jobs by their files; the last parts of a name are depth and jobs of fio.
SECTIONS = (
    *(f"{rw}-4k-qd{depth}-j1" for rw in ("randread", "randwrite") for depth in (1, 32, 128)),
    *("read-192k-qd16", "write-192k-qd16", "read-1m-qd16", "write-1m-qd16", "write-4k-qd32"),
    *("zipf-randread-4k-qd32", "zipf-randwrite-4k-qd32"),
)
QUICK = {"randread-4k-qd32-j1", "write-192k-qd16"}


def absent():
    """Why fio can't be used, or None."""
    if not shutil.which("fio"):
        return "fio is not installed"
    if not JOBS.is_dir() or not LIBRARY.exists():
        return "its engine is not built: perf/fio-engine/build"
    return None


def work_of(section):
    """randread-4k-qd32-j4 is randread-4k-qd32x4, zipf-randread-4k-qd32 is randread-4k-qd32-zipf:1.1."""
    zipf, plain = section.startswith("zipf-"), section.removeprefix("zipf-")
    plain = re.sub(r"-j(\d+)$", lambda jobs: "" if jobs[1] == "1" else f"x{jobs[1]}", plain)
    return f"{plain}-zipf:1.1" if zipf else plain


def file_of(section):
    """The file in which a section is."""
    if section.startswith("zipf-"):
        return "zipf.fio"
    return "random.fio" if section.startswith("rand") else "stream.fio"


def steps(run, port, sections=SECTIONS, digests=False, subject="fio"):
    """Works, and what measures each on the array at this port, and gives subject, work, sample and command."""
    where = f"trtype=TCP adrfam=IPv4 traddr=127.0.0.1 trsvcid={port} subnqn={NQN} ns={ARRAY}"
    where = where.replace(NQN, NQN.replace(":", "\\:")) + (" hdgst=1 ddgst=1" if digests else "")
    settings = {"ENGINE": f"external:{LIBRARY}", "TARGET": where, "RUNTIME": str(max(1, round(run.seconds)))}
    return [
        (work_of(section), partial(_measure, run, settings, section, subject))
        for section in sections
        if not run.quick or section in QUICK
    ]


def _measure(run, settings, section, subject):
    command = pinned(run.load_core, ["fio", "--output-format=json", f"--section={section}", file_of(section)])
    printed = output(command, 2 + 2 * run.seconds, cwd=JOBS, env={**os.environ, **settings})
    line = " ".join(f"{name}='{value}'" for name, value in settings.items())
    return subject, work_of(section), of_fio(printed), f"{line} {shown(command)}"
