"""Medians, ratios, verdicts and results files, by figures worked out by hand."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from report.judgement import judge, verdicts
from report.ratios import GOALS, reached, worst_of_families
from report.results import Results, ResultsError
from report.spread import Spread, ratio

COMPARE = Path(__file__).resolve().parents[2] / "compare"


def results(**speeds):
    """Results of works named by the keys, of the subject `engine`."""
    made = Results()
    for work, values in speeds.items():
        for value in values:
            made.add("engine", work, {"iops": value})
    return made


class Spreads(unittest.TestCase):
    def test_the_median_is_the_middle_one_or_between_the_two(self):
        self.assertEqual((Spread([5, 1, 3]).least, Spread([5, 1, 3]).median, Spread([5, 1, 3]).most), (1, 3, 5))
        self.assertEqual(Spread([4, 1, 3, 2]).median, 2.5)
        with self.assertRaises(ValueError):
            Spread([])

    def test_ratios_of_a_round_belong_together(self):
        # The second round was slow for both: each is still twice the other.
        self.assertEqual(ratio(Spread([20, 10]), Spread([10, 5])).values, [2, 2])
        self.assertEqual(ratio(Spread([20, 10]), Spread([10, 5]), 4).median, 8)
        # Rounds that are not the same ones: the least is our worst against their best.
        apart = ratio(Spread([10, 20, 30]), Spread([5, 10]))
        self.assertEqual((apart.least, apart.most), (1, 6))
        self.assertAlmostEqual(apart.median, 20 / 7.5)
        self.assertIsNone(ratio(Spread([1]), Spread([0])))


class Verdicts(unittest.TestCase):
    def test_only_what_lies_apart_counts(self):
        for old, new, word in (
            ([100, 101, 102], [90, 91, 92], "worse"),
            ([100, 101, 102], [110, 111, 112], "better"),
            # One round reaches into those of the other.
            ([100, 101, 102], [90, 91, 100], "within noise"),
            # Apart, but by less than 2 %.
            ([100.0, 100.1, 100.2], [99.0, 99.1, 99.2], "within noise"),
            ([100], [50], "too few rounds"),
            ([100, 101, 102], [50, 51], "too few rounds"),
        ):
            self.assertEqual(judge(Spread(old), Spread(new)), word, (old, new))

    def test_works_that_both_have_are_compared(self):
        old, new = results(a=[1, 1, 1], b=[1, 1, 1]), results(b=[2, 2, 2], c=[1, 1, 1])
        self.assertEqual([(v.work, v.ratio, v.word) for v in verdicts(old, new)], [("b", 2, "better")])

    def test_the_exit_status_tells(self):
        with tempfile.TemporaryDirectory() as folder:

            def written(name, made):
                path = Path(folder) / name
                made.write(path)
                return path

            def compared(*paths):
                return subprocess.run([sys.executable, COMPARE, *paths], capture_output=True, text=True, check=False)

            old = written("old", results(a=[100, 101, 102], b=[100, 101, 102]))
            worse = written("worse", results(a=[100, 101, 102], b=[50, 51, 52]))
            other = written("other", results(c=[1, 1, 1]))
            (Path(folder) / "text").write_text("no JSON")
            self.assertEqual(compared(old, old).returncode, 0)
            said = compared(old, worse)
            self.assertEqual(said.returncode, 1)
            self.assertIn("1 within noise, 1 worse", said.stdout)
            for path, words in ((other, "no work in common"), (Path(folder) / "none", "No such file"),
                                (Path(folder) / "text", "not JSON")):  # fmt: skip
                said = compared(old, path)
                self.assertEqual(said.returncode, 2, path)
                self.assertIn(words, said.stderr)


class Files(unittest.TestCase):
    def test_results_read_back(self):
        made = results(a=[1, 2])
        made.absent["SPDK"] = "not here"
        made.add("md", "a", {"iops": 3}, "perf/peers/md")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.json"
            made.write(path)
            self.assertEqual(Results.read(path).to_json(), made.to_json())
            path.write_text(json.dumps({"format": 9}))
            with self.assertRaisesRegex(ResultsError, "format 1"):
                Results.read(path)

    def test_speed_is_told_in_what_there_is(self):
        made = Results()
        made.add("engine", "rebuild", {"mibps": 5})
        made.add("engine", "read", {"iops": 7, "mibps": 1})
        self.assertEqual(made.spread("engine", "rebuild").median, 5)
        self.assertEqual(made.spread("engine", "read").median, 7)
        self.assertEqual(made.spread("engine", "read", "mibps").median, 1)
        self.assertIsNone(made.spread("engine", "read", "p99"))
        self.assertIsNone(made.spread("md", "read"))


class Goals(unittest.TestCase):
    def one(self, made, title, against):
        (found,) = (r for r in reached(made) if r.goal.title == title and r.goal.against == against)
        return found

    def test_a_goal_is_reached_by_its_median(self):
        made = Results()
        for ours, theirs in ((600, 100), (500, 100), (400, 100)):
            made.add("engine", "randwrite-4k-qd32", {"iops": ours})
            made.add("md", "randwrite-4k-qd32", {"iops": theirs})
        found = self.one(made, "engine, randwrite-4k-qd32", "md raid5, one core")
        self.assertEqual((found.word, found.spread.least, found.spread.median), ("reached", 4, 5))
        made.samples["engine", "randwrite-4k-qd32"][1]["iops"] = 490
        self.assertEqual(self.one(made, "engine, randwrite-4k-qd32", "md raid5, one core").word, "not reached")

    def test_the_limit_is_a_quarter_of_bare_members(self):
        made = Results()
        made.add("engine", "randwrite-4k-qd32", {"iops": 230})
        made.add("engine+raw", "randrw50-4k-qd32", {"iops": 1000})
        found = self.one(made, "engine, randwrite-4k-qd32", "the limit: bare members / 4")
        self.assertAlmostEqual(found.spread.median, 0.92)
        self.assertEqual(found.word, "reached")

    def test_tails_are_to_be_short(self):
        made = Results()
        made.add("target", "randwrite-4k-qd32-half", {"iops": 1, "p50": 10, "p99_9": 99})
        title = "target, p99.9 at half of peak rate"
        self.assertEqual(self.one(made, title, "p50 of the same").word, "reached")
        made.samples["target", "randwrite-4k-qd32-half"][0]["p99_9"] = 101
        self.assertEqual(self.one(made, title, "p50 of the same").word, "not reached")

    def test_a_family_is_as_good_as_its_worst(self):
        made = Results()
        for work, speed in (("hot-4k-3+1", 12), ("hot-64k-3+1", 9), ("hot-1m-3+1", 11)):
            made.add("parity", work, {"gbps": speed})
            made.add("ISA-L", work, {"gbps": 10})
        rows = list(worst_of_families(reached(made)))
        ((worst, word),) = ((row, word) for row, word in rows if row.goal.family == "parity, hot")
        self.assertEqual((worst.goal.title, worst.spread.median), ("parity, hot-64k-3+1", 0.9))
        # 13 of the 16 were not measured.
        self.assertEqual(word, "not reached; 2 of 16")
        self.assertEqual(len(rows), len(GOALS) - 2 * 15)

    def test_what_was_not_measured_is_not_reached(self):
        self.assertEqual({r.word for r in reached(Results())}, {"not measured"})

    def test_goals_are_of_works_that_are_measured(self):
        """A goal whose work nobody measures would never be seen to fail."""
        from report import work as works
        from report.engine import VARIANTS

        measured = {(s, w.name) for s, (_, table) in VARIANTS.items() for w in table}
        measured |= {("engine+2cores", w.name) for w in works.CORES} | {("engine", "rebuild")}
        measured |= {("target", w.name) for w in works.TARGET} | {("target+malloc", w.name) for w in works.TARGET_MALLOC}
        measured |= {("SPDK target+malloc", w.name) for w in works.TARGET_MALLOC}
        measured |= {("SPDK target", w.name) for w in works.TARGET_RAID5F} | {("SPDK engine", "rebuild")}
        measured |= {("SPDK engine", w.name) for w in works.SPDK_ENGINE}
        measured |= {("SPDK engine+missing", w.name) for w in works.MISSING[:1]}
        elsewhere = ("md", "nvmet", "ISA-L", "parity")
        for goal in GOALS:
            for subject, work in (goal.ours, goal.theirs):
                self.assertTrue(subject in elsewhere or (subject, work) in measured, (goal.title, subject, work))


if __name__ == "__main__":
    unittest.main()
