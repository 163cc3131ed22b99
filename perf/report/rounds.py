"""Rounds: every stand once in each of them, forwards and backwards in turn, so that nobody always comes first."""

import sys
from pathlib import Path

from .machine import load, machine
from .process import Failed
from .results import Results


class Run:
    """What all stands have to know of a run."""

    def __init__(self, binary, cores, out, scratch, seconds, rounds, quick):
        self.binary, self.out, self.scratch = binary, Path(out), Path(scratch)
        self.target_core, self.load_core = cores
        self.seconds, self.rounds, self.quick = seconds, rounds, quick
        options = {"seconds": seconds, "rounds": rounds, "quick": quick, "cores": cores}
        self.results = Results(machine(), options)


def take_turns(run, stands):
    """Measures all stands in all rounds. One that fails is told, noted as absent, and left out from then on."""
    standing = list(stands)
    for number in range(1, run.rounds + 1):
        run.results.loads.append(load())
        for stand in standing[:: 1 if number % 2 else -1]:
            try:
                for subject, work, sample, command in stand.round():
                    run.results.add(subject, work, sample, command)
                    _tell(number, run.rounds, subject, work, sample)
            except Failed as error:
                name = type(stand).__name__ if not hasattr(stand, "name") else stand.name
                run.results.absent[name] = str(error)
                standing.remove(stand)
                print(f"perf/run: {name} is left out: {error}", file=sys.stderr)


def _tell(number, rounds, subject, work, sample):
    speed = ", ".join(f"{sample[key]:,.1f} {key}" for key in ("iops", "mibps", "gbps") if key in sample)
    print(f"[{number}/{rounds}] {subject:20} {work:28} {speed}", flush=True)
