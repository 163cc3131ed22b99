"""Parity kernels beside ISA-L's: `cargo bench --bench parity`."""

import json

from .machine import ROOT
from .process import output, pinned, shown
from .sample import of_parity


class Parity:
    """One run of the bench for each round; it takes turns among kernels by itself."""

    def __init__(self, run):
        self.run = run

    def round(self):
        """Subject, work, sample and command of each measurement of a round."""
        options = ["--json", "--slices", "5", "--cold-mib", "64"] if self.run.quick else ["--json"]
        command = ["cargo", "bench", "--quiet", "--locked", "--bench", "parity", "--", *options]
        command = pinned(self.run.target_core, command)
        printed = json.loads(output(command, 600, cwd=ROOT))
        if printed["isal_missing"]:
            self.run.results.absent["ISA-L"] = printed["isal_missing"]
        for subject, work, sample in of_parity(printed):
            yield subject, work, sample, shown(command)
