"""What tools print, read; and names of works."""

import json
import unittest

from report.fio import work_of
from report.md import subject_and_work
from report.process import Failed
from report.sample import of_bdevperf, of_fio, of_parity, of_stripewise
from report.work import Work, chosen

# As SPDK's bdevperf prints it.
BDEVPERF = """Running I/O for 3 seconds...
       Latency(us)
 Device Information          : runtime(s)       IOPS      MiB/s     Fail/s     TO/s    Average        min        max
 Job: array (Core Mask 0x1, workload: randread, depth: 32, IO size: 4096)
\t array               :       3.00 1012345.67    3954.48       0.00     0.00      31.60      12.51     912.10
 ===================================================================================================================
 Total                       :            1012345.67    3954.48       0.00     0.00      31.60      12.51     912.10
"""


def lane(ios, iops, p50=None):
    percentile = {"50.000000": p50, "99.000000": p50 * 10, "99.900000": p50 * 20} if p50 else {}
    clat = {"mean": 250_000.0, "percentile": percentile} if ios else {"mean": 0.0}
    return {"total_ios": ios, "iops": iops, "bw_bytes": iops * 4096, "clat_ns": clat}


class Tools(unittest.TestCase):
    def test_bdevperf_has_a_line_of_sums(self):
        self.assertEqual(of_bdevperf(BDEVPERF), {"iops": 1012345.67, "mibps": 3954.48, "mean": 31.60})
        with self.assertRaisesRegex(Failed, "7.0 requests a second failed"):
            of_bdevperf(BDEVPERF.replace("3954.48       0.00", "3954.48       7.00"))
        with self.assertRaisesRegex(Failed, "no line of sums: ERROR"):
            of_bdevperf("ERROR: no bdevs")

    def test_fio_tells_reads_and_writes_apart(self):
        printed = {"jobs": [{"jobname": "a", "error": 0, "read": lane(700, 70, 200_000), "write": lane(300, 30, 900_000)}]}
        sample = of_fio("fio: a word before\n" + json.dumps(printed, indent=2))
        self.assertEqual((sample["iops"], sample["p50"], sample["p99"]), (100, 200, 2000))
        self.assertAlmostEqual(sample["mibps"], 100 * 4096 / 2**20)
        self.assertNotIn("p90", sample)
        printed["jobs"][0]["error"] = 5
        with self.assertRaisesRegex(Failed, "job a ended with error 5"):
            of_fio(json.dumps(printed))
        with self.assertRaisesRegex(Failed, "no result"):
            of_fio("fio: no such job")

    def test_stripewise_prints_as_bdevperfs_json(self):
        result = {"iops": 5.0, "mibps": 1.0, "avg_latency_us": 3.0, "io_failed": 0, "cpu_us_per_io": 2.0}
        result |= {f"{key}_latency_us": 1.0 for key in ("p50", "p90", "p99", "p99_9")}
        sample = of_stripewise({"results": [result]})
        self.assertEqual((sample["iops"], sample["cpu_us"], sample["p99_9"]), (5.0, 2.0, 1.0))
        with self.assertRaisesRegex(Failed, "3 requests failed"):
            of_stripewise({"results": [result | {"io_failed": 3}]})

    def test_of_our_kernels_the_best_counts(self):
        speed = lambda name, median: {"name": name, "median": median}  # noqa: E731
        speeds = [speed("avx512", 7.0), speed("avx512, uncached", 9.0), speed("ISA-L 2.30", 8.0)]
        row = {"temperature": "cold", "sources": 3, "block_bytes": 65536, "speeds": speeds}
        found = list(of_parity({"rows": [row]}))
        self.assertEqual(found, [("parity", "cold-64k-3+1", {"gbps": 9.0}), ("ISA-L", "cold-64k-3+1", {"gbps": 8.0})])


class Names(unittest.TestCase):
    def test_works_are_named_by_what_they_do(self):
        self.assertEqual(Work("randwrite", "4k", 32).name, "randwrite-4k-qd32")
        self.assertEqual(Work("randrw", "4k", 32, reads=50).name, "randrw50-4k-qd32")
        self.assertEqual(Work("randread", "4k", 128, queues=4).name, "randread-4k-qd128x4")
        self.assertEqual(Work("randwrite", "4k", 32, random="zipf:1.1").name, "randwrite-4k-qd32-zipf:1.1")

    def test_a_plain_array_of_a_peer_has_its_name_alone(self):
        self.assertEqual(subject_and_work("md-none-randwrite-4k-qd32"), ("md", "randwrite-4k-qd32"))
        self.assertEqual(subject_and_work("nvmet-randrw70-4k-qd32"), ("nvmet", "randrw70-4k-qd32"))
        self.assertEqual(subject_and_work("nvmet-ppl-write-192k-qd8"), ("nvmet+ppl", "write-192k-qd8"))

    def test_jobs_of_fio_are_queues(self):
        self.assertEqual(work_of("randread-4k-qd32-j1"), "randread-4k-qd32")
        self.assertEqual(work_of("randread-4k-qd32-j4"), "randread-4k-qd32x4")
        self.assertEqual(work_of("write-1m-qd16"), "write-1m-qd16")

    def test_doubles_are_measured_once(self):
        work = Work("randwrite", "4k", 32)
        self.assertEqual(chosen([work, work, Work("read", "1m", 8)], quick=True), [work])


if __name__ == "__main__":
    unittest.main()
