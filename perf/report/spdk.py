"""SPDK, where a user has built one: SPDK_DIR names its tree. raid5f in bdevperf, and behind nvmf_tgt."""

import json
import os
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from . import work as works
from .array import ARRAY, MEMBERS, PLAIN, bdev_calls, configuration
from .process import Failed, Server, output, pinned, shown
from .rpc import call
from .sample import of_bdevperf
from .target import Target

# MiB that a process of SPDK sets aside: four members, a spare, and what it needs itself.
MEMORY, MEMORY_OF_REBUILD = 2048, 6144
REBUILD_MIB = 1024


def _memory(run, mib):
    """Options that fit the machine: huge pages if enough of them are free. If not, the report says so, too."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields.get("HugePages_Free", "0")) * int(fields.get("Hugepagesize", "0 kB").split()[0]) // 1024
    if free >= mib:
        return ["-s", mib]
    why = f"it ran on ordinary pages, and slower: {free} MiB of huge pages were free, not {mib}"
    run.results.absent[f"SPDK on {mib} MiB of huge pages"] = why
    return ["--no-huge", "-s", mib]


class SpdkEngine:
    """bdevperf on raid5f, which writes whole rows only, and rebuilds in nvmf_tgt."""

    kind, name = "engine", "SPDK engine"

    def __init__(self, run, tree):
        self.run, self.tree = run, tree

    @contextmanager
    def steps(self):
        """Works, and what measures each and gives subject, work, sample and command."""
        gone = [("bdev_raid_remove_base_bdev", {"name": "m1"})]
        yield [
            (work.name, partial(self._measure, subject, work, extra))
            for subject, table, extra in (
                ("SPDK engine", works.SPDK_ENGINE, []),
                ("SPDK engine+missing", works.MISSING[:1], gone),
            )
            for work in works.chosen(table, self.run.quick)
        ] + [("rebuild", self._rebuild)]

    def _measure(self, subject, work, extra):
        config = self.run.scratch / "bdevperf.json"
        config.write_text(json.dumps(configuration("raid5f", extra=extra)))
        command = [
            self.tree / "build/examples/bdevperf", "--json", config, "-r", self.run.scratch / "bdevperf.sock",
            "-m", f"[{self.run.target_core}]", "-w", work.rw, "-o", works.SIZES[work.size], "-q", work.depth,
            "-t", max(1, round(self.run.seconds)), *_memory(self.run, MEMORY),
        ]  # fmt: skip
        return subject, work.name, of_bdevperf(output(command, self.run.seconds)), shown(command)

    def _rebuild(self):
        socket = self.run.scratch / "rebuild.sock"
        command = [self.tree / "build/bin/nvmf_tgt", "-r", socket, *_memory(self.run, MEMORY_OF_REBUILD)]
        with Server(pinned(self.run.target_core, [*command, "-m", f"[{self.run.target_core}]"]),
                    self.run.out / "SPDK-rebuild.log") as server:  # fmt: skip
            server.wait_for("RPC socket", socket.exists)
            mib = 256 if self.run.quick else REBUILD_MIB
            for method, params in bdev_calls("raid5f", mib, plain=False):
                call(socket, method, **params)
            call(socket, "bdev_raid_remove_base_bdev", name="m0")
            spare = {"name": "spare", "num_blocks": mib << 8, "block_size": 4096}
            call(socket, "bdev_malloc_create", **spare)
            start = time.monotonic()
            call(socket, "bdev_raid_add_base_bdev", base_bdev="spare", raid_bdev="array")
            while not _is_whole(socket):
                # Not too often: the core that answers is the one that rebuilds.
                time.sleep(0.01)
                if time.monotonic() - start > 600:
                    raise Failed("SPDK's rebuild has not ended in 600 s")
            took = time.monotonic() - start
        return "SPDK engine", "rebuild", {"mibps": mib / took}, shown(command)


def _is_whole(socket):
    """Whether the rebuild is over."""
    (array,) = (raid for raid in call(socket, "bdev_raid_get_bdevs", category="all") if raid["name"] == "array")
    return "process" not in array and array["num_base_bdevs_operational"] == MEMBERS


def stands(run):
    """SPDK's stands; none, and a word why, without SPDK."""
    tree = os.environ.get("SPDK_DIR")
    if not tree:
        run.results.absent["SPDK"] = "SPDK_DIR does not name a tree with a built SPDK"
        return []
    tree = Path(tree).resolve()
    for program in ("build/bin/nvmf_tgt", "build/examples/bdevperf"):
        if not os.access(tree / program, os.X_OK):
            run.results.absent["SPDK"] = f"SPDK_DIR: there is no {tree / program}"
            return []

    def serve(config, socket):
        core = f"[{run.target_core}]"
        return [tree / "build/bin/nvmf_tgt", "-c", config, "-r", socket, "-m", core, *_memory(run, MEMORY)]

    tables = {ARRAY: works.TARGET_RAID5F, PLAIN: works.TARGET_MALLOC}
    return [SpdkEngine(run, tree), Target(run, "SPDK target", "raid5f", serve, tables)]
