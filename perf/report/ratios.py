"""The ratios that are to be reached: who against whom at which work, and how much."""

from dataclasses import dataclass

from .spread import Spread, ratio


@dataclass(frozen=True)
class Goal:
    """A ratio to reach."""

    title: str
    against: str
    ours: tuple
    theirs: tuple
    reach: float
    key: str = None
    factor: float = 1.0
    # Whether the ratio is to be this at most.
    most: bool = False
    # Goals of a family are shown as the one that is reached worst.
    family: str = None


def _each(title, against, ours, theirs, works, reach, **more):
    """The same goal for several works."""
    return [Goal(f"{title}, {work}", against, (ours, work), (theirs, work), reach, **more) for work in works]


def _parity(heat, reach):
    cases = [f"{heat}-{size}-{members}+1" for size in ("4k", "16k", "64k", "1m") for members in (3, 4, 7, 15)]
    return _each("parity", "ISA-L xor_gen", "parity", "ISA-L", cases, reach, family=f"parity, {heat}")


RANDOM_WRITES = ("randwrite-4k-qd32", "randwrite-4k-qd128")
FULL_STRIPES = ("write-192k-qd1", "write-192k-qd16")

GOALS = [
    *_each("engine", "md raid5, one core", "engine", "md", RANDOM_WRITES, 5),
    # A read-modify-write is two reads and two writes of a member.
    *[
        Goal(f"engine, randwrite-4k-qd{depth}", "the limit: bare members / 4", ("engine", f"randwrite-4k-qd{depth}"),
             ("engine+raw", f"randrw50-4k-qd{depth}"), 0.9, factor=4.0)
        for depth in (32, 128)
    ],
    *_each("engine", "SPDK raid5f", "engine", "SPDK engine", FULL_STRIPES, 1.2),
    *_each("engine", "md raid5", "engine", "md", FULL_STRIPES, 6),
    Goal("engine, write-4k-qd32", "own full-stripe bandwidth", ("engine", "write-4k-qd32"),
         ("engine", "write-192k-qd16"), 0.5, key="mibps"),
    *_each("engine", "SPDK raid5f", "engine", "SPDK engine", ("randread-4k-qd32",), 1.2),
    *_each("engine, a member missing", "SPDK raid5f", "engine+missing", "SPDK engine+missing", ("randread-4k-qd32",), 1.2),
    *_each("target, malloc", "SPDK nvmf_tgt", "target+malloc", "SPDK target+malloc", ("randread-4k-qd1",), 1.1),
    *_each("target, malloc", "SPDK nvmf_tgt", "target+malloc", "SPDK target+malloc",
           ("randread-4k-qd32", "randread-4k-qd128", "randread-4k-qd32x4", "randread-4k-qd128x4"), 1.3),
    *_each("target, malloc", "SPDK nvmf_tgt", "target+malloc", "SPDK target+malloc", ("read-128k-qd8", "write-128k-qd8"), 1.1),
    *_each("target, RAID5", "SPDK nvmf_tgt, unprotected", "target", "SPDK target+malloc", ("randwrite-4k-qd128",), 0.7),
    *_each("target, RAID5", "md behind nvmet-tcp", "target", "nvmet", ("randwrite-4k-qd128",), 6),
    *_parity("hot", 1.0),
    *_parity("cold", 1.2),
    *_each("engine, two cores", "one core", "engine+2cores", "engine", (*RANDOM_WRITES, "write-192k-qd16"), 1.8),
    *_each("engine, idle", "SPDK raid5f", "engine", "SPDK engine", ("rebuild",), 1.2),
    *_each("engine, PPL", "no log", "engine+ppl", "engine+resync", ("randwrite-4k-qd32",), 0.85),
    *_each("engine, bitmap", "no bitmap", "engine+bitmap", "engine+resync", ("randwrite-4k-qd32",), 0.97),
    Goal("target, p99.9 at half of peak rate", "p50 of the same", ("target", "randwrite-4k-qd32-half"),
         ("target", "randwrite-4k-qd32-half"), 10, key=("p99_9", "p50"), most=True),
]  # fmt: skip


@dataclass(frozen=True)
class Reached:
    """How far a goal was reached."""

    goal: Goal
    # None where one of the two was not measured.
    spread: Spread

    @property
    def word(self):
        if self.spread is None:
            return "not measured"
        median = self.spread.median
        is_reached = median <= self.goal.reach if self.goal.most else median >= self.goal.reach
        return "reached" if is_reached else "not reached"


def reached(results):
    """All goals, and what these results say of them."""
    for goal in GOALS:
        ours_key, theirs_key = goal.key if isinstance(goal.key, tuple) else (goal.key, goal.key)
        ours, theirs = results.spread(*goal.ours, ours_key), results.spread(*goal.theirs, theirs_key)
        yield Reached(goal, ratio(ours, theirs, goal.factor) if ours and theirs else None)


def worst_of_families(rows):
    """The rows, of each family only the one with the least ratio, and how many of it were reached: row and text."""
    families = {}
    for row in rows:
        families.setdefault(row.goal.family or row.goal, []).append(row)
    for family in families.values():
        measured = [row for row in family if row.spread]
        worst = min(measured, key=lambda row: row.spread.median) if measured else family[0]
        count = sum(row.word == "reached" for row in family)
        yield worst, f"{worst.word}; {count} of {len(family)}" if len(family) > 1 and measured else worst.word


def lines(results):
    """The table of goals as text."""
    for row, word in worst_of_families(reached(results)):
        goal, spread = row.goal, row.spread
        between = f"{spread.median:.2f} ({spread.least:.2f} to {spread.most:.2f})" if spread else ""
        sign = "<=" if goal.most else ">="
        yield f"{goal.title:44} {goal.against:28} {sign} {goal.reach:<5} {between:24} {word}"
