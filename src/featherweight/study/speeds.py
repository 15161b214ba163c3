"""What is known of how fast graphs are, from all measurements of a study together.

A process times a pair of models to a percent or two, and the next process finds another ratio:
where memory lies and what else runs differ from one to the next, and not within one (Mytkowicz et
al., Producing Wrong Data Without Doing Anything Obviously Wrong, ASPLOS 2009). So a measurement's
own interval is too narrow. How much processes differ is learnt wherever one graph is measured
again, and every interval covers it; before anything was, a spread is assumed that counts like PRIOR
repetitions (a scaled inverse chi-squared prior, as the moderated t of Smyth 2004).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass, field

from ..proof.student import t975
from ..records import Entry, Speedup

POOL = 20  # measurements of one graph's speed that are put together
PRIOR = 3  # degrees of freedom of what is assumed
PRIOR_SD = 0.011  # of the log of a ratio: a file against its copy (benchmarks/certificates/faster.py)


@dataclass(frozen=True)
class Spread:
    """How far log speedups of one graph lie apart from process to process: the sum of their squared
    distances from the graph's mean, and its degrees of freedom."""

    squares: float = PRIOR * PRIOR_SD**2
    freedom: int = PRIOR

    def seen(self, known: list[float], new: float) -> Spread:
        """With one measurement more of a graph that was measured as `known` before."""
        if not known:
            return self
        k = len(known)
        return Spread(self.squares + (new - statistics.fmean(known)) ** 2 * k / (k + 1), self.freedom + 1)

    def half(self, count: int) -> float:
        """Half the 95 % interval of the mean of so many measurements (Student's t)."""
        return t975(self.freedom) * math.sqrt(self.squares / self.freedom / count)


def together(speeds: list[Speedup], spread: Spread) -> Speedup:
    """Several measurements of one speed as one: the mean of their logs, with the interval that the
    spread gives, or their own if that is wider. spread: what is known, these included."""
    logs = [math.log(s.ratio) for s in speeds]
    mean, k = statistics.fmean(logs), len(logs)
    own = math.sqrt(sum((math.log(s.ci95[1] / s.ci95[0]) / 2) ** 2 for s in speeds)) / k
    half = max(own, spread.half(k))
    ends = math.exp(mean - half), math.exp(mean + half)
    if k == 1:
        return dataclasses.replace(speeds[0], ci95=ends)
    return Speedup(math.exp(mean), ends, speeds[-1].clock, sum(s.n for s in speeds))


def anew(speeds: list[Speedup], spread: Spread) -> Speedup:
    """Measurements of one graph that no choice has seen, together; spread: without them."""
    for i, speed in enumerate(speeds):
        spread = spread.seen([math.log(s.ratio) for s in speeds[:i]], math.log(speed.ratio))
    return together(speeds, spread)


@dataclass
class Speeds:
    """The measurements of a study, by graph and target, and their spread."""

    spread: Spread = field(default_factory=Spread)
    _seen: dict[tuple[str, str], list[tuple[Entry, Speedup]]] = field(default_factory=dict)
    _settled: dict[tuple[str, str], Speedup] = field(default_factory=dict)

    def add(self, entry: Entry) -> list[tuple[Entry, Speedup]]:
        """Take in what was measured of the entry. Entries of one graph on one target take the same
        time: each measurement of one counts for all, so that none of them leads by luck. Gives the
        entries whose speed is another now, with it."""
        if entry.speedup.ci95 == (1.0, 1.0):  # the baseline's own file
            return []
        seen = self._seen.setdefault(_key(entry), [])
        if _key(entry) in self._settled:
            return [(entry, self._settled[_key(entry)])]
        if len(seen) == POOL:  # enough is known of it
            return [(entry, seen[0][0].speedup)]
        self.spread = self.spread.seen([math.log(s.ratio) for _, s in seen], math.log(entry.speedup.ratio))
        seen.append((entry, entry.speedup))
        one = together([speed for _, speed in seen], self.spread)
        return [(other, one) for other, _ in seen]

    def settle(self, entry: Entry, speedup: Speedup) -> None:
        """From now on this is the speed of the entry's graph: it was measured after a choice, which
        it was no part of, as all that was measured before was."""
        self._settled[_key(entry)] = speedup


def _key(entry: Entry) -> tuple[str, str]:
    return entry.graph or entry.sha256, entry.target
