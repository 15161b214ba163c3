"""What earlier studies found, as far as the new one's space has it.

Notation: s a study, c a filling, r_s(c) in [0, 1] its rank within the study (0: the best)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..records import History, Trial
from ..space import Filling, Space
from ..space.space import key


@dataclass(frozen=True)
class Earlier:
    """An earlier study in a space that has fillings in common with the new one.

    same_task: its values mean the same as the new study's (same task, baseline and objectives), so
    its trials count as observations; else only its ranks are used.
    """

    name: str
    history: History
    same_task: bool = False

    def ranked(self, space: Space) -> list[tuple[float, Trial]]:
        """(r_s(c), trial) for its finished trials that the space has, best first, each filling
        once; of several objectives the geometric mean counts, and feasible ones come first.
        InputError if there are none."""
        done = [t for t in self.history if t.usable]
        first = {
            key(t.filling): t
            for t in sorted(done, key=lambda t: (t.score_key, t.number), reverse=True)
            if _fits(space, t.filling)
        }
        best = sorted(first.values(), key=lambda t: (t.score_key, t.number))
        if not best:
            raise InputError(
                f"the earlier study {self.name!r} has no finished trial in this space",
                got=f"{len(self.history)} trials, {len(done)} of them finished",
                allowed="holes: " + ", ".join(h.path for h in space.holes),
            )
        return [(i / max(len(best) - 1, 1), t) for i, t in enumerate(best)]


def imported(space: Space, earlier: Sequence[Earlier]) -> list[Trial]:
    """The finished trials of studies of the same task, each filling once, numbered anew, with the
    note {"origin": name of the study}.

    InputError: studies with different numbers of objectives."""
    out: dict[str, Trial] = {}
    for study in earlier:
        for trial in sorted((t for _, t in study.ranked(space)), key=lambda t: t.number):
            out.setdefault(
                key(trial.filling),
                Trial(
                    len(out),
                    trial.filling,
                    "complete",
                    trial.values,
                    trial.violation,
                    trial.cost_s,
                    {"origin": study.name},
                    trial.features,
                ),
            )
    counts = {len(t.values or ()) for t in out.values()}
    if len(counts) > 1:
        raise InputError(
            "earlier studies of one task have different objectives",
            got=f"{sorted(counts)} of them",
            fix="give those alike",
        )
    return list(out.values())


def _fits(space: Space, filling: Filling) -> bool:
    """Does the space have this filling?"""
    try:
        return key(space.walk(lambda path, domain: domain.check(filling.get(path), path))) == key(filling)
    except InputError:
        return False
