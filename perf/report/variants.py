"""What our target is measured with, beside a plain and whole array: a member that is missing or rebuilt, policies, digests."""

import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from . import work as works
from .array import MIB
from .process import Failed
from .rpc import call

# The member that is taken out.
OUT = "m1"


@dataclass
class Variant:
    """A target with something else about it."""

    name: str = ""
    # Parameters of bdev_raid_create beyond the plain ones.
    raid: dict = field(default_factory=dict)
    works: tuple = ()
    # Sections of perf/fio.
    jobs: tuple = ()
    digests: bool = False
    # Whether the member is out from the start.
    missing: bool = False
    rebuilding: bool = False

    def calls(self):
        """What is called once all is there."""
        return [("bdev_raid_remove_base_bdev", {"name": OUT})] if self.missing else []

    def during(self, socket, seconds):
        """While the `with` lasts, which is so many seconds, the array is what this says."""
        return _rebuild(socket, seconds) if self.rebuilding else nullcontext()


def _array(socket):
    (array,) = (raid for raid in call(socket, "bdev_raid_get_bdevs", category="all") if raid["name"] == "array")
    return array


@contextmanager
def _rebuild(socket, seconds):
    # As fast as lets it last as long as it is needed.
    call(socket, "bdev_raid_set_options", process_max_bandwidth_mb_sec=max(1, int(MIB / (seconds + 3))))
    call(socket, "bdev_raid_remove_base_bdev", name=OUT)
    call(socket, "bdev_raid_add_base_bdev", base_bdev=OUT, raid_bdev="array")
    yield
    if "process" not in _array(socket):
        raise Failed("the rebuild has ended before the measurement")
    call(socket, "bdev_raid_set_options", process_max_bandwidth_mb_sec=0)
    _wait_until_whole(socket)


def _wait_until_whole(socket, patience=60.0):
    last = time.monotonic() + patience
    while "process" in (array := _array(socket)) or array["num_base_bdevs_operational"] < array["num_base_bdevs"]:
        if time.monotonic() > last:
            raise Failed(f"the rebuild has not ended in {patience:.0f} s")
        time.sleep(0.02)


SMALL = ("randread-4k-qd32-j1", "randwrite-4k-qd32-j1")
POLICY = {"works": tuple(works.POLICY), "jobs": SMALL[1:]}
VARIANTS = [
    Variant("digests", works=(*works.SMALL_32, *works.WHOLE_ROWS), jobs=(*SMALL, "read-192k-qd16", "write-192k-qd16"), digests=True),
    Variant("missing", works=(*works.SMALL_32, *works.WHOLE_ROWS), jobs=SMALL, missing=True),
    Variant("rebuild", works=works.SMALL_32, jobs=SMALL, rebuilding=True),
    Variant("bitmap", {"superblock": True, "consistency_policy": "bitmap"}, **POLICY),
    Variant("ppl", {"superblock": True, "consistency_policy": "ppl"}, **POLICY),
]
