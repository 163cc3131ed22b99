"""A work in fio's words, and the works that are measured."""

from dataclasses import dataclass

SIZES = {"4k": 4 << 10, "16k": 16 << 10, "64k": 64 << 10, "128k": 128 << 10, "192k": 192 << 10, "1m": 1 << 20}


@dataclass(frozen=True)
class Work:
    """Requests of one size and pattern."""

    rw: str
    size: str
    depth: int
    queues: int = 1
    # Share of reads in percent, where the pattern is mixed.
    reads: int = 70
    # Where random requests go.
    random: str = "uniform"
    # Requests a second at most, as a share of what was reached without that limit.
    share: float = 1.0

    @property
    def name(self):
        """As in the names of files and in results: randwrite-4k-qd32, randrw70-4k-qd32x4-zipf:1.1-half."""
        mix = str(self.reads) if self.rw in ("rw", "randrw") else ""
        queues = f"x{self.queues}" if self.queues > 1 else ""
        random = f"-{self.random}" if self.random != "uniform" else ""
        half = {1.0: "", 0.5: "-half"}[self.share]
        return f"{self.rw}{mix}-{self.size}-qd{self.depth}{queues}{random}{half}"

    def options(self, seconds):
        """As `stripewise perf` and `stripewise bench` take them."""
        return [
            "--rw", self.rw, "--bs", self.size, "--iodepth", str(self.depth), "--rwmixread", str(self.reads),
            "--random", self.random, "--runtime", str(seconds), "--ramp", str(min(0.5, seconds / 4)),
            "--output", "json",
        ]  # fmt: skip


def small(depths=(1, 32, 128)):
    """4 KiB random reads and writes."""
    return [Work(rw, "4k", depth) for rw in ("randread", "randwrite") for depth in depths]


def streams(depth=16, sizes=("4k", "16k", "64k", "192k", "1m")):
    """Sequential reads and writes of several sizes."""
    return [Work(rw, size, depth) for rw in ("read", "write") for size in sizes]


ENGINE = [
    *small(),
    Work("randrw", "4k", 32),
    Work("randwrite", "4k", 32, random="zipf:1.1"),
    Work("write", "4k", 32),
    Work("write", "192k", 1),
    *streams(),
]
# The engine with something else about it: its bare members, a policy, a missing member, two cores.
RAW = [Work("randrw", "4k", depth, reads=50) for depth in (32, 128)]
POLICY = [Work("randwrite", "4k", 32), Work("randwrite", "4k", 128)]
SMALL_32 = (Work("randread", "4k", 32), Work("randwrite", "4k", 32))
MISSING = list(SMALL_32)
CORES = [Work("randwrite", "4k", 32), Work("randwrite", "4k", 128), Work("write", "192k", 16)]

TARGET = [
    *small(),
    Work("randrw", "4k", 32),
    *streams(8, ("16k", "64k", "128k", "192k", "1m")),
    Work("randwrite", "4k", 32, share=0.5),
]
WHOLE_ROWS = (Work("read", "192k", 8), Work("write", "192k", 8))
# A device without RAID behind the same target.
TARGET_MALLOC = [
    *small(),
    *[Work("randread", "4k", depth, queues=4) for depth in (32, 128)],
    Work("read", "128k", 8),
    Work("write", "128k", 8),
]
TARGET_RAID5F = [*small((1, 32, 128))[:3], Work("write", "192k", 8), Work("read", "128k", 8)]
SPDK_ENGINE = [
    *small()[:3],
    Work("write", "192k", 1),
    Work("write", "192k", 16),
    *streams(16, ("192k",))[:1],
]

QUICK = {"randwrite-4k-qd1", "randwrite-4k-qd32", "randread-4k-qd32", "write-192k-qd16", "write-4k-qd32",
         "randrw50-4k-qd32", "write-192k-qd8", "write-128k-qd8", "randwrite-4k-qd32-half"}  # fmt: skip


def chosen(works, quick):
    """Without doubles; the few that tell most, if it has to be quick."""
    works = dict.fromkeys(works)
    return [work for work in works if not quick or work.name in QUICK]
