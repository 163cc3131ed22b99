"""Stands that take turns work by work, as fakes that note what is done to them."""

import contextlib
import io
import unittest
from contextlib import contextmanager
from types import SimpleNamespace

from report.process import Failed
from report.together import together


class Stand:
    """Measures the works of a table; notes in `log` when it is there, and what it measures."""

    kind = "target"

    def __init__(self, name, works, log, broken=()):
        self.name, self.works, self.log, self.broken = name, works, log, broken

    @contextmanager
    def steps(self):
        if "start" in self.broken:
            raise Failed(f"{self.name} does not start")
        self.log.append(f"{self.name} starts")
        try:
            yield [(work, lambda work=work: self.measure(work)) for work in self.works]
        finally:
            self.log.append(f"{self.name} ends")

    def measure(self, work):
        self.log.append(f"{self.name} {work}")
        if work in self.broken:
            raise Failed(f"{self.name} can't do {work}")
        return self.name, work, {"iops": 1}, "command"


def rounds(stands, number=1):
    """What a number of rounds of the only kind brings, and what was left out."""
    run = SimpleNamespace(results=SimpleNamespace(absent={}))
    (kind,) = together(run, stands)
    with contextlib.redirect_stderr(io.StringIO()):
        brought = [[(subject, work) for subject, work, _, _ in kind.round()] for _ in range(number)]
    return brought, run.results.absent


class TogetherTests(unittest.TestCase):
    def test_a_work_is_measured_of_all_before_the_next_one(self):
        log = []
        brought, absent = rounds([Stand("a", ["x", "y"], log), Stand("b", ["y", "z"], log)], 2)
        self.assertEqual(brought[0], [("a", "x"), ("a", "y"), ("b", "y"), ("b", "z")])
        # The other way round in the second round.
        self.assertEqual(brought[1], [("b", "y"), ("a", "y"), ("b", "z"), ("a", "x")])
        self.assertEqual(absent, {})
        self.assertEqual(log[:3], ["a starts", "b starts", "a x"])
        self.assertEqual(log[6:8], ["b ends", "a ends"])

    def test_who_fails_is_left_out_and_the_others_go_on(self):
        log = []
        stands = [Stand("a", ["x", "y"], log, {"start"}), Stand("b", ["x", "y"], log, {"x"}), Stand("c", ["x", "y"], log)]
        brought, absent = rounds(stands, 2)
        self.assertEqual(brought, [[("c", "x"), ("c", "y")]] * 2)
        self.assertEqual(absent, {"a": "a does not start", "b": "b can't do x"})
        self.assertEqual(log.count("b x"), 1)
        self.assertEqual(log.count("b ends"), log.count("b starts"))

    def test_stands_without_a_kind_stay_by_themselves(self):
        run, peer = SimpleNamespace(), SimpleNamespace(name="md")
        other = Stand("e", [], [])
        other.kind = "engine"
        names = [stand.name for stand in together(run, [Stand("a", [], []), peer, other, Stand("b", [], [])])]
        self.assertEqual(names, ["target", "engine", "md"])


if __name__ == "__main__":
    unittest.main()
