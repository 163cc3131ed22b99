"""The page, of figures made up here."""

import re
import unittest

from report.results import Results

try:
    import matplotlib
except ImportError:
    matplotlib = None


def made_up():
    machine = {"cpu": "A <Processor>", "cores": [0, 1], "commit": "abc"}
    results = Results(machine, {"seconds": 1, "rounds": 3, "cores": [0, 1], "quick": False})
    results.loads = [[0.5, 0.5, 0.5]] * 3
    results.absent["SPDK"] = "not here"
    for number in range(3):
        for depth in (1, 32, 128):
            for subject, speed in (("engine", 1000), ("md", 100)):
                for rw in ("randread", "randwrite"):
                    sample = {"iops": speed * depth + number, "mibps": 4, "p50": 9, "p90": 10, "p99": 20, "p99_9": 40, "cpu_us": 2}
                    results.add(subject, f"{rw}-4k-qd{depth}", sample, f"{subject} --rw {rw}")
        for size in ("64k", "1m"):
            results.add("engine", f"write-{size}-qd16", {"iops": 5, "mibps": 300 + number})
    return results


@unittest.skipUnless(matplotlib, "matplotlib is not there")
class Page(unittest.TestCase):
    def test_it_needs_nothing_else_and_shows_everything(self):
        from report.page import page

        text = page(made_up())
        # No address is fetched: names of XML are none, and nothing else has one.
        addresses = set(re.findall(r'(?:src|href)="([^"#][^"]*)"', text))
        self.assertFalse(addresses, addresses)
        self.assertNotIn("@import", text)
        self.assertIn("A &lt;Processor&gt;", text)
        for heading in ("IOPS against depth", "Latency percentiles", "Throughput against the size", "CPU time", "Side by side"):
            self.assertIn(heading, text)
        self.assertGreaterEqual(text.count("<svg"), 5)
        self.assertIn("SPDK</b> was not measured: not here", text)
        # 1000 against 100, at all depths.
        self.assertIn(">10.00<", text)

    def test_next_to_nothing_makes_a_page_too(self):
        from report.page import page

        results = Results({}, {"seconds": 1, "rounds": 1, "cores": [0, 0]})
        results.add("engine", "rebuild", {"mibps": 1})
        self.assertIn("rebuild", page(results))


if __name__ == "__main__":
    unittest.main()
