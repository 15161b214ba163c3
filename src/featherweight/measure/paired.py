"""A candidate against the baseline on the same samples: the drop, its interval, and the evidence
that it is below a limit.

Notation: v [n] the baseline's value a sample, w [n] the candidate's, b and c the samples that only
the baseline and only the candidate got right, d a drop (positive: the candidate is worse).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from ..proof import unseen
from ..proof.chance import GIVEN_AWAY, SUMMED
from ..proof.student import t975
from ..proof.tango import bisect, normal, score, tango
from ..records import Paired
from ..seeding import derive
from .accuracy import bootstrap, counted, mean_of_units
from .metric import Metric

Interval = tuple[float, float]
_RATES = 41  # of differing, that are looked at
# tries at another sample's answer; draws of samples that fail, and of single ones
_TRIES, _DRAWS, _SINGLE = 30, 20, 200
# samples that fail at once, draws of them among those of one target, and kinds of targets, at most
_FAILING, _ALIKE_DRAWS, _KINDS = 3, 3, 200


def compare(
    m: Metric,
    baseline_outputs: np.ndarray | None,
    outputs: np.ndarray,
    targets: np.ndarray,
    seed: int,
    units: np.ndarray | None = None,
) -> tuple[Paired, np.ndarray | None]:
    """The candidate against the baseline, and, for a metric that is no mean over samples, the drops
    of 1,000 resamples drawn under `seed` (else None). baseline_outputs None: against one that is
    right on every sample, of values that are not right or wrong against 0 (`Paired.best`).

    units: [n], a number for each row (None: all differ); rows with one number are copies of one
    sample or of one group, and count once, with their mean; those below 0 do not count.
    InputError if the metric cannot be computed, or of a single sample that is not right or wrong,
    or if no sample counts."""
    keep, units = counted(units, len(targets))
    if len(keep) == 0:
        raise InputError(
            "no sample of this split can be evidence",
            got=f"{len(targets)} samples, each of which the model was trained or chosen on",
            fix="give a split that is in no other one",
        )
    if len(keep) < len(targets):
        baseline_outputs = None if baseline_outputs is None else baseline_outputs[keep]
        outputs, targets = outputs[keep], targets[keep]
    w = m.scores(outputs, targets)
    failed = (
        None if isinstance(w, float) or m.zero_one else m.scores(_answers_of_others(outputs, targets, seed), targets)
    )
    if m.zero_one is None and failed is not None:  # those of samples that fail decide, too, what values there are
        m = dataclasses.replace(m, zero_one=m.is_zero_one(np.concatenate([w, failed])))
    best = None if baseline_outputs is not None else float(not isinstance(w, float) and m.is_zero_one(w))
    v: np.ndarray | float
    if baseline_outputs is not None:
        v = m.scores(baseline_outputs, targets)
    else:
        v = 0.0 if isinstance(w, float) else np.full(len(targets), best)
    n = len(targets) if units is None else int(units.max()) + 1
    if isinstance(v, float) or isinstance(w, float):
        models = [outputs] if baseline_outputs is None else [baseline_outputs, outputs]
        values = bootstrap(m, models, targets, seed, units)
        drops = m.sign * (values[:, 0] - values[:, 1] if baseline_outputs is not None else -values[:, 0])
        try:
            cost = _cost_of_some(m, outputs, targets, float(w), seed)
        except InputError:  # the candidate gives all samples one answer
            if baseline_outputs is None:
                raise
            cost = _cost_of_some(m, baseline_outputs, targets, float(v), seed)
        drop, sd = m.sign * (float(v) - float(w)), float(drops.std(ddof=1)) * math.sqrt(n)
        return Paired(drop, n, sd, cost=cost, best=best), drops
    d = mean_of_units(m.sign * (v - w), units)
    if bool(np.isin(d, (-1.0, 0.0, 1.0)).all()) and m.is_zero_one(v) and m.is_zero_one(w):
        lost, won = int((d > 0).sum()), int((d < 0).sum())
        drop = (lost - won) / n
        return Paired(drop, n, math.sqrt(max(0.0, (lost + won) / n - drop**2)), lost, won, best=best), None
    if n < 2:
        raise InputError(f"{m.name} of one sample has no interval", got="1 sample", allowed="at least 2")
    if failed is None:
        failed = m.scores(_answers_of_others(outputs, targets, seed), targets)
    more = mean_of_units(m.sign * (w - failed), units)
    if m.within is None and float(more.mean()) < -3 * float(more.std(ddof=1)) / math.sqrt(n):
        raise _backwards(m)
    if not (more > 0).any() and baseline_outputs is not None:  # the candidate gives all samples one answer
        failed = m.scores(_answers_of_others(baseline_outputs, targets, seed), targets)
        more = mean_of_units(m.sign * (w - failed), units)
    cost = _worst_hundredth(more[more > 0]) if (more > 0).any() else _worst(m, w)
    return Paired(float(d.mean()), n, float(d.std(ddof=1)), cost=cost, best=best), None


def _answers_of_others(outputs: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
    """For each sample the output of a random one whose target is another."""
    rng, n = np.random.default_rng(derive(seed, "answers of others")), len(targets)
    flat = targets.reshape(n, -1)
    other = np.arange(n)
    for _ in range(_TRIES):
        same = np.flatnonzero((flat[other] == flat).all(1))
        if len(same) == 0:
            break
        other[same] = rng.integers(n, size=len(same))
    return outputs[other]


def _worst_hundredth(costs: np.ndarray) -> float:
    """The mean of the largest hundredth: those that matter may fail. With the mean of all, values
    with a long tail were certified falsely in up to 13 % of the cases where 5 % are allowed, and in
    6 % where 0.5 % are (`benchmarks/certificates/graded.py`)."""
    return float(np.sort(costs)[-math.ceil(len(costs) / 100) :].mean())


def _worst(m: Metric, w: np.ndarray) -> float:
    """The drop from these values to the worst one that there can be, for samples that all have one
    target, whose answers say nothing of a failure. InputError if nobody knows it."""
    ends = [] if m.within is None else [e for e in m.within if math.isfinite(m.sign * e)]
    if len(ends) < 2:
        raise InputError(
            f"what a failure costs in {m.name} cannot be told",
            got=f"{len(w)} samples for which the answers of other samples are as good as their own",
            fix="give a split with different targets; or, if the model says the same of every sample, train it longer",
        )
    return float(np.mean(m.sign * (w - min(ends, key=lambda e: m.sign * e))))


def _cost_of_some(m: Metric, outputs: np.ndarray, targets: np.ndarray, value: float, seed: int) -> float:
    """The drop of a whole metric for each share of samples that fails, from some that do: the worst
    of some draws of three and the worst hundredth of single ones, for those that matter may fail;
    of draws among the samples of one target, too, and of others that get its answers, for in a
    class of few samples each counts for many. InputError if it has no value then."""
    rng, n = np.random.default_rng(derive(seed, "cost")), len(targets)
    wrong = _answers_of_others(outputs, targets, seed)
    scored = _with_other_answers(m, outputs, targets)

    def rise(rows: np.ndarray, answers: np.ndarray) -> float:
        return m.sign * (value - scored(rows, answers)) * n / len(rows)

    def drawn(rows: np.ndarray) -> np.ndarray:
        return rng.choice(rows, min(_FAILING, len(rows)), replace=False)

    def known(rows: np.ndarray, answers: np.ndarray) -> float:
        try:
            return rise(rows, answers)
        except InputError:  # without these samples it has no value, which costs nothing that is known
            return 0.0

    every = np.arange(n)
    worst = max(rise(rows, wrong[rows]) for rows in (drawn(every) for _ in range(_DRAWS)))
    kinds = _alike(targets, outputs.ndim > 2)
    worst = max([worst, *(known(f, wrong[f]) for rows in kinds for f in (drawn(rows) for _ in range(_ALIKE_DRAWS)))])
    if worst <= 0 and m.within is None:
        raise _backwards(m)
    single = [known(row, wrong[row]) for row in rng.choice(n, (min(_SINGLE, n), 1), replace=False)]
    worst = max(worst, _worst_hundredth(np.array(single)))
    for rows in kinds:  # others that are taken for these
        others = np.setdiff1d(every, rows, assume_unique=True)
        for failing in (drawn(others) for _ in range(_ALIKE_DRAWS)):
            worst = max(worst, known(failing, outputs[rng.choice(rows, len(failing))]))
    return worst if worst > 0 else _worst(m, np.array([value]))


def _with_other_answers(
    m: Metric, outputs: np.ndarray, targets: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], float]:
    """(rows, answers) -> the whole metric where these rows have other answers. Of a metric of sums
    only these are added up anew. InputError where it has no value."""
    if m.sums is None or m.of is None:
        some = outputs.copy()

        def replaced(rows: np.ndarray, answers: np.ndarray) -> float:
            some[rows] = answers
            try:
                return float(m.scores(some, targets))
            finally:
                some[rows] = outputs[rows]

        return replaced
    sums_of, of, each = m.sums, m.of, np.asarray(m.sums(outputs, targets), dtype=np.float64)
    total = each.sum(0)

    def summed(rows: np.ndarray, answers: np.ndarray) -> float:
        # with all answers of the few there are as many classes as with all samples
        other = np.asarray(sums_of(answers, targets[rows]), dtype=np.float64).sum(0)
        if other.shape != total.shape:
            raise InputError(f"{m.name} counts other things of few samples than of all")
        found = float(of(total + other - each[rows].sum(0)))
        if not math.isfinite(found):
            raise InputError(f"{m.name} is not a finite number", got=found)
        return found

    return summed


def _alike(targets: np.ndarray, places: bool = False) -> list[np.ndarray]:
    """The rows that have one target, for each kind of target that there is; of targets of several
    columns, that have one value in a column; of targets at places, that have a class anywhere. None
    of values of too many kinds: those do not make classes."""
    out: list[np.ndarray] = []
    if places:
        kinds = np.unique(targets)
        for kind in kinds[kinds >= 0].tolist() if len(kinds) <= _KINDS else ():
            rows = np.flatnonzero((targets == kind).reshape(len(targets), -1).any(1))
            out += [rows] if 0 < len(rows) < len(targets) else []
        return out
    for column in targets.reshape(len(targets), -1).T:
        kinds, which, counts = np.unique(column, return_inverse=True, return_counts=True)
        if 1 < len(kinds) <= min(_KINDS, len(column) // 2):
            order = np.argsort(which, kind="stable")
            out += np.split(order, np.cumsum(counts)[:-1])
    return sorted(out, key=len)[:_KINDS]


def _backwards(m: Metric) -> InputError:
    lower = "lower" if m.sign > 0 else "higher"
    return InputError(
        f"wrong answers make {m.name} better, so nothing can be shown by it",
        got=f"the outputs of other samples in place of each one's own; {m.name} counts as better when it is "
        f"{'higher' if m.sign > 0 else 'lower'}",
        fix=f"if it is better when it is {lower}: set the function's attribute higher_is_better = {m.sign < 0}",
    )


def interval(paired: Paired, drops: np.ndarray | None = None) -> Interval:
    """The 95 % interval of the drop: Tango's for right-or-wrong values, the resamples' quantiles
    where there are `drops`, Student's t else. Of these two it is about what the samples show; what
    they may not have shown (`proof.unseen`) is in `upper` alone."""
    if paired.lost is not None and paired.won is not None:
        return tango(paired.lost, paired.won, paired.n)
    if drops is not None:
        low, high = np.quantile(drops, (0.025, 0.975))
        return float(low), float(high)
    half = t975(paired.n - 1) * paired.sd / math.sqrt(paired.n)
    return paired.drop - half, paired.drop + half


def p_value(paired: Paired, max_drop: float, drops: np.ndarray | None = None) -> float:
    """How probable so small a drop would be, at most, if the true one were `max_drop` or more.

    Right-or-wrong values: the probability of Tango's score being as low or lower, summed over all
    tables, at the rate of differing that makes it largest (Berger & Boos, "P values maximized over
    a confidence set for the nuisance parameter", JASA 89, 1994); with many differing samples, the
    normal distribution of the score. Others: Student's t, or the resamples (percentile and basic
    bootstrap, Davison & Hinkley 1997, section 5.2, the worse of both), and failures that were not
    seen (`proof.unseen`)."""
    if paired.lost is not None and paired.won is not None:
        b, c, n = int(paired.lost), int(paired.won), paired.n
        if b + c + n * max_drop <= SUMMED:
            return _summed(b, c, n, max_drop)
        return normal(score(b, c, n, max_drop))
    cost = paired.cost or 0.0
    if drops is not None:
        # resamples repeat the bias of a metric that has one (the worst class, a calibration error):
        # as they are it counts twice, turned about the drop it is taken away; the worse of both
        ways = (drops, 2 * paired.drop - drops)
        each = [sum(unseen.p_value(float(d), 0.0, paired.n, cost, max_drop) for d in way) for way in ways]
        return (1 + max(each)) / (1 + len(drops))
    from scipy.special import stdtr

    error = paired.sd / math.sqrt(paired.n)
    return unseen.p_value(paired.drop, error, paired.n, cost, max_drop, lambda x: float(stdtr(paired.n - 1, x)))


def upper(paired: Paired, level: float, drops: np.ndarray | None = None) -> float:
    """The least limit that the evidence puts the drop below, at this level: `p_value` of it is at
    most `level`."""
    far = 1.0 if paired.lost is not None else paired.drop + 40 * max(paired.sd, 1e-12) + (paired.cost or 0.0)
    return bisect(lambda d: p_value(paired, d, drops) > level, paired.drop, far)


def _summed(b: int, c: int, n: int, d: float) -> float:
    """The probability of a score as low as that of (b, c) or lower, at the rate of winning samples
    (only the candidate right) that makes it largest among the plausible ones."""
    from scipy.stats import beta, binom

    if d >= 1.0:  # every sample would be lost
        return 1.0 if b == n else 0.0
    most = float(beta.ppf(1 - GIVEN_AWAY, c + 1, n - c)) if c < n else 1.0  # Clopper & Pearson
    rates = np.linspace(0.0, min(most, (1 - d) / 2), _RATES)  # [R] winning; losing at rate + d
    seen = score(b, c, n, d) + 1e-9
    top = int(binom.ppf(1 - 1e-7, n, min(1.0, 2 * rates[-1] + d)))
    differing = np.arange(top + 1)  # [N]
    losing = np.array([_most_losing(k, n, d, seen) for k in range(top + 1)])  # [N]
    worst = 0.0
    for rate in rates:
        both = 2 * rate + d
        some = binom.pmf(differing, n, both)
        given = binom.cdf(losing, differing, (rate + d) / both) if both > 0 else (losing >= 0).astype(float)
        worst = max(worst, float((some * np.where(losing >= 0, given, 0.0)).sum()))
    return min(1.0, worst + GIVEN_AWAY)


def _most_losing(differing: int, n: int, d: float, seen: float) -> int:
    """Of so many differing samples, the most that the candidate may lose with a score of at
    most `seen`; -1 if none. The score rises with the samples lost."""
    low, high = -1, differing
    while low < high:
        middle = (low + high + 1) // 2
        fits = score(middle, differing - middle, n, d) <= seen
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
