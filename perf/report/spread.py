"""Medians with the least and the most, and ratios of them."""

from statistics import median


class Spread:
    """What several rounds have measured of one thing."""

    def __init__(self, values):
        self.values = list(values)
        if not self.values:
            raise ValueError("a spread needs a value at least")

    @property
    def median(self):
        return median(self.values)

    @property
    def least(self):
        return min(self.values)

    @property
    def most(self):
        return max(self.values)

    def is_apart_from(self, other):
        """Whether no value of one lies among those of the other."""
        return self.most < other.least or other.most < self.least


def ratio(ours, theirs, factor=1.0):
    """How many times `theirs` `ours` is, times `factor`; None without a theirs to divide by.

    Values of the same rounds are divided by one another, because a slow moment of the machine hits both. Where the
    numbers of rounds differ, the least ratio is that of our least and their most.
    """
    if min(theirs.values) <= 0:
        return None
    if len(ours.values) == len(theirs.values):
        return Spread(factor * o / t for o, t in zip(ours.values, theirs.values))
    middle = factor * ours.median / theirs.median
    return Spread([factor * ours.least / theirs.most, middle, factor * ours.most / theirs.least])
