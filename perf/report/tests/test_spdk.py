"""SPDK's memory: huge pages where there are enough, and a word in the report where there are not."""

import unittest
from types import SimpleNamespace
from unittest import mock

from report import spdk


def options(free_pages, mib):
    """What SPDK is told, and what the report says of it."""
    run = SimpleNamespace(results=SimpleNamespace(absent={}))
    meminfo = f"MemTotal: 1 kB\nHugePages_Free: {free_pages}\nHugepagesize: 2048 kB\n"
    with mock.patch.object(spdk.Path, "read_text", return_value=meminfo):
        return spdk._memory(run, mib), run.results.absent


class Memory(unittest.TestCase):
    def test_enough_huge_pages_are_taken(self):
        self.assertEqual(options(1024, 2048), (["-s", 2048], {}))

    def test_ordinary_pages_are_told(self):
        asked, absent = options(1023, 2048)
        self.assertEqual(asked, ["--no-huge", "-s", 2048])
        (told,) = absent.items()
        self.assertEqual(told[0], "SPDK on 2048 MiB of huge pages")
        self.assertIn("2046 MiB of huge pages were free", told[1])
