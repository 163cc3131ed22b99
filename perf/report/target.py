"""A target over loopback: Stripewise's, SPDK's, or one that is somewhere already; driven by `stripewise perf`."""

import json
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from . import fio
from . import work as works
from .array import ARRAY, MEMBERS, MIB, NQN, PLAIN, ROW_KIB, configuration
from .process import Server, free_port, output, pinned, shown
from .sample import of_stripewise
from .variants import VARIANTS, Variant


class Target:
    """A target: its namespaces are written once, then it stands still but for what is measured of it."""

    kind = "target"

    def __init__(self, run, name, level, serve, tables, variant=None):
        """`serve` makes the command from the path of a configuration and the path of an RPC socket. `tables` are the
        works by namespace."""
        self.run, self.name, self.level, self.serve, self.tables = run, name, level, serve, tables
        self.variant = variant or Variant()
        # Sections of perf/fio.
        self.jobs = ()

    @contextmanager
    def steps(self):
        """While the `with` lasts: works, and what measures each and gives subject, work, sample and command."""
        port = free_port()
        file = self.name.replace(" ", "-")
        config, self.socket = (self.run.scratch / f"{file}.{kind}" for kind in ("json", "sock"))
        calls, plain, more = self.variant.calls(), PLAIN in self.tables, self.variant.raid
        config.write_text(json.dumps(configuration(self.level, port, calls, plain, more)))
        command = self.serve(config, self.socket)
        with Server(pinned(self.run.target_core, command), self.run.out / f"{file}.log") as server:
            server.wait_for_port(port)
            for namespace in self.tables:
                self._warm(port, namespace)
            server.pause()
            peak = {}
            yield [
                (work.name, partial(self._step, server, port, command, namespace, work, peak))
                for namespace, table in self.tables.items()
                for work in works.chosen(table, self.run.quick)
            ] + [(work, partial(self._job, server, measure)) for work, measure in self._fio(port)]

    def _fio(self, port):
        subject = "+".join(["fio", self.variant.name]) if self.variant.name else "fio"
        return fio.steps(self.run, port, self.jobs, self.variant.digests, subject)

    def _job(self, server, measure):
        # fio's ramp is a second.
        with server.awake(), self.variant.during(self.socket, self.run.seconds + 2):
            return measure()

    def _step(self, server, port, command, namespace, work, peak):
        subject = self.name if namespace == ARRAY else f"{self.name}+malloc"
        with server.awake(), self.variant.during(self.socket, self.run.seconds + 1):
            sample, line = self._measure(server, port, namespace, work, peak)
        peak[work] = sample["iops"]
        return subject, work.name, sample, f"{shown(command)} ; {line}"

    def _measure(self, server, port, namespace, work, peak):
        options = [*work.options(self.run.seconds), "--queues", work.queues]
        whole = replace(work, share=1.0)
        if work.share < 1.0:
            options += ["--rate", max(1, int(work.share * peak.get(whole, 1000)))]
        command = self._perf(port, namespace, options)
        before = server.cpu_seconds()
        printed = json.loads(output(command, self.run.seconds))
        cpu = server.cpu_seconds() - before
        sample = of_stripewise(printed)
        # The ramp has cost the target something, too.
        share = printed["results"][0]["runtime"] / (printed["results"][0]["runtime"] + _ramp(options))
        sample["host_cpu_us"] = sample.pop("cpu_us")
        sample["cpu_us"] = cpu * share * 1e6 / max(1, printed["results"][0]["ios"])
        return sample, shown(command)

    def _warm(self, port, namespace):
        # All of it once, in whole rows: memory that was never touched would have to be given by the kernel first.
        rows = (MEMBERS - 1) * MIB * 1024 // ROW_KIB
        options = ["--rw", "write", "--bs", f"{ROW_KIB}k", "--iodepth", "8", "--runtime", "60", "--io-limit", rows]
        output(self._perf(port, namespace, options), 60)

    def _perf(self, port, namespace, options):
        where = ["--traddr", "127.0.0.1", "--trsvcid", port, "--subnqn", NQN, "--nsid", namespace, "--quiet"]
        where += ["--hdgst", "--ddgst"] if self.variant.digests else []
        return pinned(self.run.load_core, [self.run.binary, "perf", *where, *options])


def _ramp(options):
    return float(options[options.index("--ramp") + 1])


def ours(run):
    """Stripewise's own targets: the plain one, and its variants."""

    def serve(config, socket):
        return [run.binary, "serve", "-c", config, "-r", socket, "-m", f"[{run.target_core}]", "--idle", "busy"]

    plain = Target(run, "target", "raid5", serve, {ARRAY: works.TARGET, PLAIN: works.TARGET_MALLOC})
    others = [Target(run, f"target+{v.name}", "raid5", serve, {ARRAY: v.works}, v) for v in VARIANTS]
    if fio.absent():
        run.results.absent["fio"] = fio.absent()
    else:
        plain.jobs = fio.SECTIONS
        for target in others:
            target.jobs = target.variant.jobs
    return [plain, *others]
