"""Stands that are there at once."""

import sys
from contextlib import ExitStack

from .process import Failed


class Together:
    """Stands of one kind: a work is measured of all of them before the next one, so that a slow minute of the machine hits
    all that are compared."""

    def __init__(self, run, stands):
        self.run, self.stands = run, list(stands)
        self.name = stands[0].kind
        self.rounds = 0

    def round(self):
        """Subject, work, sample and command of each measurement of a round."""
        self.rounds += 1
        # Nobody always comes first.
        order = self.stands[:: 1 if self.rounds % 2 else -1]
        with ExitStack() as stack:
            steps = []
            for stand in order:
                try:
                    own = stack.enter_context(stand.steps())
                except Failed as error:
                    self._leave_out(stand, error)
                else:
                    steps += [(work, stand, measure) for work, measure in own]
            for work in dict.fromkeys(work for work, _, _ in steps):
                for stand, measure in [(s, m) for w, s, m in steps if w == work]:
                    if stand not in self.stands:
                        continue
                    try:
                        yield measure()
                    except Failed as error:
                        self._leave_out(stand, error)

    def _leave_out(self, stand, error):
        self.stands.remove(stand)
        self.run.results.absent[stand.name] = str(error)
        print(f"perf/run: {stand.name} is left out: {error}", file=sys.stderr)


def together(run, stands):
    """The same stands, those of one kind as one; the others, which do their rounds by themselves, as they are."""
    kinds = dict.fromkeys(stand.kind for stand in stands if hasattr(stand, "kind"))
    groups = [Together(run, [s for s in stands if getattr(s, "kind", None) == kind]) for kind in kinds]
    return [*groups, *(stand for stand in stands if not hasattr(stand, "kind"))]
