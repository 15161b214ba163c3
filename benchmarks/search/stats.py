"""Figures from results: means with standard errors, ranks over tables, Friedman's test, Nemenyi's
critical difference, Wilcoxon with Holm.

Notation: k methods, N tables. Source: Demsar, "Statistical comparisons of classifiers over multiple
data sets", JMLR 7, 2006. The blocks of the tests are tables (means over seeds), because seeds on
one table are not independent evidence about other tables.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Means = dict[tuple[str, str], "Mean"]  # (problem, method) -> mean
MARKS = (50, 100, 200, 500)
TIE = 1e-9  # means closer than this share a rank


@dataclass(frozen=True)
class Mean:
    """mean: over `n` seeds; error: standard error of it (NaN for one seed)."""

    mean: float
    error: float
    n: int


def of(values: Sequence[float]) -> Mean:
    n = len(values)
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else math.nan
    return Mean(mean, spread / math.sqrt(n), n)


def at(row: Row, evaluation: int) -> float | None:
    """The score after so many evaluations; the last one of a search that had no more to try; None
    if it was not run so far."""
    if row["asked"] < evaluation and row["evaluations"] == row["asked"]:
        return None
    place = bisect_right([s[0] for s in row["steps"]], evaluation)
    return float(row["steps"][place - 1][1])


def longest(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """(problem, method) -> one row a seed, the one of most evaluations (the latest of equals)."""
    best: dict[tuple[str, str, int], Row] = {}
    for r in rows:
        name = (r["problem"], r["method"], r["seed"])
        if name not in best or r["asked"] >= best[name]["asked"]:
            best[name] = r
    out: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for (problem, method, _), row in sorted(best.items()):
        out[problem, method].append(row)
    return dict(out)


def means(runs: Mapping[tuple[str, str], list[Row]], evaluation: int) -> Means:
    """The mean score of each method on each problem; methods of which no seed got
    there are left out."""
    out: Means = {}
    for name, rows in runs.items():
        values = [v for v in (at(r, evaluation) for r in rows) if v is not None]
        if values:
            out[name] = of(values)
    return out


def complete(scores: Means) -> tuple[list[str], list[str]]:
    """(problems, methods) such that every method has a mean on every problem."""
    problems = sorted({p for p, _ in scores})
    methods = sorted({m for _, m in scores})
    return problems, [m for m in methods if all((p, m) in scores for p in problems)]


def ranks(scores: Means, problems: Sequence[str], methods: Sequence[str]) -> dict[str, float]:
    """The mean rank of each method over the problems: 1 is the least mean score; ties share."""
    from scipy.stats import rankdata

    total = dict.fromkeys(methods, 0.0)
    for p in problems:
        for m, r in zip(methods, rankdata([round(scores[p, m].mean / TIE) for m in methods]), strict=True):
            total[m] += float(r) / len(problems)
    return total


def friedman(scores: Means, problems: Sequence[str], methods: Sequence[str]) -> float | None:
    """The p value of "all methods are alike"; None with fewer than 3 methods or 2 problems, or if
    all are equal everywhere."""
    from scipy.stats import friedmanchisquare

    if len(methods) < 3 or len(problems) < 2:
        return None
    p = float(friedmanchisquare(*([scores[p, m].mean for p in problems] for m in methods)).pvalue)
    return None if math.isnan(p) else p


def critical_difference(methods: int, problems: int, alpha: float = 0.05) -> float:
    """Mean ranks that differ by less are not told apart (Nemenyi; Demsar 2006, eq.
    of section 3.2.2: q_alpha sqrt(k (k + 1) / 6 N))."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * problems))


def wilcoxon_holm(scores: Means, problems: Sequence[str], methods: Sequence[str], control: str) -> dict[str, float]:
    """Each method against `control`: two-sided signed-rank p values over the problems,
    adjusted by Holm (1979)."""
    from scipy.stats import wilcoxon

    raw: dict[str, float] = {}
    for m in methods:
        differences = [scores[p, m].mean - scores[p, control].mean for p in problems]
        if m != control:
            raw[m] = float(wilcoxon(differences).pvalue) if any(abs(d) > TIE for d in differences) else 1.0
    out, largest = {}, 0.0
    for i, (m, p) in enumerate(sorted(raw.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(raw) - i)))
        out[m] = largest
    return out


def reaches(rows: Sequence[Row], goal: float) -> int | None:
    """The first evaluation after which the mean score is at most `goal`; None if it never is within
    what all seeds have run."""
    last = min(r["asked"] for r in rows)
    for evaluation in sorted({int(s[0]) for r in rows for s in r["steps"] if s[0] <= last}):
        scores = [at(r, evaluation) for r in rows]
        if of([s for s in scores if s is not None]).mean <= goal + TIE:
            return evaluation
    return None
