"""The engine: `stripewise bench`."""

import json
from contextlib import contextmanager
from functools import partial

from . import work as works
from .process import output, pinned, shown
from .sample import of_stripewise

# Subjects, their options and works.
VARIANTS = {
    "engine": ([], works.ENGINE),
    "engine+raw": (["--raw"], works.RAW),
    "engine+missing": (["--missing", "1"], works.MISSING),
    "engine+resync": (["--policy", "resync"], works.POLICY),
    "engine+bitmap": (["--policy", "bitmap"], works.POLICY),
    "engine+ppl": (["--policy", "ppl"], works.POLICY),
}


class Engine:
    """The engine and its variants, on the target's core."""

    kind = name = "engine"

    def __init__(self, run):
        self.run = run

    @contextmanager
    def steps(self):
        """Works, and what measures each and gives subject, work, sample and command."""
        core = str(self.run.target_core)
        steps = [
            (work.name, partial(self._measure, subject, work, options, core))
            for subject, (options, all_works) in VARIANTS.items()
            for work in works.chosen(all_works, self.run.quick)
        ]
        if self.run.target_core != self.run.load_core:
            both = f"{self.run.target_core},{self.run.load_core}"
            steps += [
                (work.name, partial(self._measure, "engine+2cores", work, [], both))
                for work in works.chosen(works.CORES, self.run.quick)
            ]
        yield [*steps, ("rebuild", self._rebuild)]

    def _measure(self, subject, work, options, cores):
        command = self._command(cores, [*work.options(self.run.seconds), *options])
        printed = json.loads(output(command, self.run.seconds))
        return subject, work.name, of_stripewise(printed), shown(command)

    def _rebuild(self):
        size = "256m" if self.run.quick else "1g"
        options = ["--rebuild", "--iodepth", "0", "--member-size", size, "--runtime", "60", "--output", "json"]
        command = self._command(str(self.run.target_core), options)
        rebuild = json.loads(output(command, 60))["results"][0]["rebuild"]
        return "engine", "rebuild", {"mibps": rebuild["mibps"]}, shown(command)

    def _command(self, cores, options):
        return pinned(cores, [self.run.binary, "bench", "--block-size", "4k", "--cores", f"[{cores}]", *options])
