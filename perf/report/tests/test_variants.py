"""Variants of the target, on a fake of its RPC server; and the sections of perf/fio that they name."""

import configparser
import json
import socket
import tempfile
import threading
import unittest
from pathlib import Path

from report import fio
from report.array import ARRAY, PLAIN, configuration
from report.process import Failed
from report.variants import VARIANTS, Variant


def answer(listener, answers, asked):
    """Answers calls, one a connection: each method with the next of its answers."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            request = json.loads(connection.recv(65536))
            asked.append((request["method"], request.get("params", {})))
            left = answers.get(request["method"], [True])
            result = left.pop(0) if len(left) > 1 else left[0]
            connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


def array(rebuilt, operational):
    process = {"process": {"type": "rebuild"}} if rebuilt else {}
    return [{"name": "array", "num_base_bdevs": 4, "num_base_bdevs_operational": operational, **process}]


class VariantTests(unittest.TestCase):
    def during(self, seconds, arrays):
        """What is called of a target whose array is this, in turn."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = Path(folder) / "rpc.sock"
            listener.bind(str(path))
            listener.listen()
            asked = []
            server = threading.Thread(target=answer, args=(listener, {"bdev_raid_get_bdevs": arrays}, asked))
            server.start()
            try:
                with Variant(rebuilding=True).during(path, seconds):
                    asked.append("measured")
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                server.join()
            return asked

    def test_a_rebuild_lasts_as_long_as_it_is_needed_and_is_waited_for(self):
        asked = self.during(5, [array(True, 3), array(True, 3), array(False, 3), array(False, 4)])
        # 256 MiB in 8 s.
        self.assertEqual(asked[0], ("bdev_raid_set_options", {"process_max_bandwidth_mb_sec": 32}))
        self.assertEqual([a[0] for a in asked[1:3]], ["bdev_raid_remove_base_bdev", "bdev_raid_add_base_bdev"])
        self.assertEqual(asked[3], "measured")
        self.assertEqual(asked[5], ("bdev_raid_set_options", {"process_max_bandwidth_mb_sec": 0}))
        self.assertEqual(len(asked), 9)

    def test_a_rebuild_that_was_over_too_soon_is_no_measurement(self):
        with self.assertRaisesRegex(Failed, "ended before"):
            self.during(5, [array(False, 4)])

    def test_without_a_rebuild_nobody_is_asked(self):
        with Variant().during(Path("/nowhere"), 1):
            pass

    def test_configurations(self):
        whole = configuration("raid5", 4420)
        self.assertEqual([len(s["config"]) for s in whole["subsystems"]], [6, 5])
        by_name = {variant.name: variant for variant in VARIANTS}
        missing = configuration("raid5", 4420, by_name["missing"].calls(), plain=False)
        self.assertEqual(missing["subsystems"][0]["config"][-1]["method"], "bdev_raid_remove_base_bdev")
        spaces = [c["params"]["namespace"]["nsid"] for c in missing["subsystems"][1]["config"] if "namespace" in c["params"]]
        self.assertEqual(spaces, [ARRAY])
        self.assertNotIn(PLAIN, spaces)
        ppl = configuration("raid5", 4420, more=by_name["ppl"].raid)
        raid = ppl["subsystems"][0]["config"][4]["params"]
        self.assertEqual((raid["consistency_policy"], raid["superblock"]), ("ppl", True))

    def test_every_section_is_in_its_file(self):
        sections = {*fio.SECTIONS, *(job for variant in VARIANTS for job in variant.jobs)}
        for section in sections:
            jobs = configparser.ConfigParser(allow_no_value=True, strict=False)
            text = (fio.JOBS / fio.file_of(section)).read_text().replace("include common.inc", "")
            jobs.read_string(text)
            self.assertIn(section, jobs.sections())

    def test_names_of_works(self):
        self.assertEqual(fio.work_of("randread-4k-qd32-j4"), "randread-4k-qd32x4")
        self.assertEqual(fio.work_of("write-192k-qd16"), "write-192k-qd16")
        # As Work names it.
        self.assertEqual(fio.work_of("zipf-randwrite-4k-qd32"), "randwrite-4k-qd32-zipf:1.1")


if __name__ == "__main__":
    unittest.main()
