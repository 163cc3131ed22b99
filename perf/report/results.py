"""What was measured, and the file that keeps it.

A results file is JSON: `format` 1, `machine`, `options`, `loads` (load averages at the start of each round), `absent` (who
could not be measured, and why), `commands` (by subject and work), and `measurements`: subject, work and the samples of all
rounds. A sample has some of: iops, mibps, latencies p50, p90, p99, p99_9 in microseconds, cpu_us (microseconds of a core of
the subject for an I/O), gbps (parity), mean.
"""

import json

from .spread import Spread

FORMAT = 1
# What speed is told in, the first that a sample has.
SPEEDS = ("iops", "gbps", "mibps")


class ResultsError(Exception):
    """A results file that is none."""


class Results:
    """Samples by subject and work."""

    def __init__(self, machine=None, options=None):
        self.machine = machine or {}
        self.options = options or {}
        self.loads = []
        self.absent = {}
        self.commands = {}
        self.samples = {}

    def add(self, subject, work, sample, command=None):
        """Adds what one round has measured."""
        self.samples.setdefault((subject, work), []).append(sample)
        if command:
            self.commands.setdefault(f"{subject} {work}", command)

    def spread(self, subject, work, key=None):
        """The spread of a figure, by default of the speed; None where it was not measured."""
        samples = self.samples.get((subject, work), [])
        keys = [key] if key else [name for name in SPEEDS if any(name in s for s in samples)][:1]
        values = [sample[keys[0]] for sample in samples if keys and sample.get(keys[0]) is not None]
        return Spread(values) if values else None

    def subjects(self):
        """All subjects, in the order in which they were measured first."""
        return list(dict.fromkeys(subject for subject, _ in self.samples))

    def works(self, subject):
        """The works of a subject."""
        return [work for who, work in self.samples if who == subject]

    def to_json(self):
        measurements = [
            {"subject": subject, "work": work, "samples": samples} for (subject, work), samples in self.samples.items()
        ]
        return {
            "format": FORMAT,
            "machine": self.machine,
            "options": self.options,
            "loads": self.loads,
            "absent": self.absent,
            "commands": self.commands,
            "measurements": measurements,
        }

    def write(self, path):
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def read(cls, path):
        try:
            kept = json.loads(path.read_text())
        except OSError as error:
            raise ResultsError(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise ResultsError(f"{path} is not JSON: {error}") from error
        if not isinstance(kept, dict) or kept.get("format") != FORMAT:
            raise ResultsError(f"{path} is not a results file of format {FORMAT}; perf/run writes one")
        results = cls(kept.get("machine"), kept.get("options"))
        results.loads, results.absent = kept.get("loads", []), kept.get("absent", {})
        results.commands = kept.get("commands", {})
        for measurement in kept["measurements"]:
            results.samples[measurement["subject"], measurement["work"]] = measurement["samples"]
        return results
