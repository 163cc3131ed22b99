"""Whether a later run is better or worse than an earlier one, or the same within its noise."""

from dataclasses import dataclass

# Rounds that a side needs before it can be judged, and the least difference of medians that counts.
ROUNDS = 3
DIFFERENCE = 0.02


@dataclass(frozen=True)
class Verdict:
    """What became of one work of one subject."""

    subject: str
    work: str
    old: object
    new: object
    ratio: float
    # better, worse, within noise, too few rounds
    word: str


def judge(old, new):
    """The word for two spreads: a difference counts if no value of one lies among those of the other, and if the medians
    are further apart than DIFFERENCE."""
    if min(len(old.values), len(new.values)) < ROUNDS:
        return "too few rounds"
    change = new.median / old.median - 1 if old.median > 0 else 0.0
    if not old.is_apart_from(new) or abs(change) < DIFFERENCE:
        return "within noise"
    return "better" if change > 0 else "worse"


def verdicts(old, new):
    """A verdict for each work that both results have."""
    for subject, work in old.samples:
        before, after = old.spread(subject, work), new.spread(subject, work)
        if before and after:
            ratio = after.median / before.median if before.median > 0 else float("nan")
            yield Verdict(subject, work, before, after, ratio, judge(before, after))
