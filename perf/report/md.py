"""Linux md in a guest, by itself and behind the kernel's NVMe/TCP target: the scripts in perf/peers."""

from .machine import ROOT
from .process import Failed, output, shown
from .sample import of_fio

PEERS = ROOT / "perf" / "peers"
# Names of results begin with the peer and the policy; with these, the array is as plain as ours.
PLAIN = ("none", "resync")
PATTERNS = ("read", "write", "rw", "randread", "randwrite", "randrw")


class Peer:
    """`perf/peers/NAME DIR --seconds N --core N --other N` writes NAME-POLICY-WORK.json, each a result of fio."""

    def __init__(self, run, name):
        self.run, self.name = run, name
        self.rounds = 0

    def round(self):
        """Subject, work, sample and command of each measurement of a round."""
        self.rounds += 1
        out = self.run.out / self.name / str(self.rounds)
        out.mkdir(parents=True, exist_ok=True)
        # The cores of our own: what serves on one, what asks on the other.
        cores = ["--core", self.run.target_core, "--other", self.run.load_core]
        command = [PEERS / self.name, out, "--seconds", self.run.seconds, *cores]
        output(command, 1200)
        files = sorted(out.glob(f"{self.name}-*.json"))
        if not files:
            raise Failed(f"{shown(command)} has left no results in {out}")
        for path in files:
            subject, work = subject_and_work(path.stem)
            yield subject, work, of_fio(path.read_text()), shown(command)


def subject_and_work(stem):
    """md-ppl-randwrite-4k-qd32 is randwrite-4k-qd32 of md+ppl; a policy may be left out."""
    name, policy, work = stem.split("-", 2)
    if policy.rstrip("0123456789") in PATTERNS:
        return name, f"{policy}-{work}"
    return (name if policy in PLAIN else f"{name}+{policy}"), work


def peers(run):
    """Those that are there."""
    found = [Peer(run, name) for name in ("md", "nvmet") if (PEERS / name).exists()]
    if not found:
        run.results.absent["md"] = "there is no perf/peers/md"
    return found
