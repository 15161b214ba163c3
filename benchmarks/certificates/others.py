"""How often certificates of metrics that users write are false: metrics that are no mean over
samples, of kinds that `whole.py` does not have. The true drop is at the floor.

    python benchmarks/certificates/others.py [--cases 200]

macro precision: the candidate takes a few of the common samples for the rare class; worst class,
and the expected calibration error: metrics whose value on a sample is biased; R^2 and RMSE: with
errors of Student's t, whose tails no sample shows."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from featherweight.errors import FeatherweightError
from featherweight.measure.certificate import certify
from featherweight.proof.chance import LEVEL

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]  # outputs of the original and the candidate, and the targets
MANY = 200  # times the samples of a case, from which the true drop is told


def confusion(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    k = outputs.shape[1]
    counts: np.ndarray = np.bincount(targets * k + outputs.argmax(1), minlength=k * k).reshape(k, k)
    return counts.astype(float)


def macro_precision(outputs: np.ndarray, targets: np.ndarray) -> float:
    c = confusion(outputs, targets)
    called, there = c.sum(0), (c.sum(1) + c.sum(0)) > 0
    return float(np.divide(c.diagonal(), called, out=np.zeros(len(c)), where=called > 0)[there].mean())


def worst_class(outputs: np.ndarray, targets: np.ndarray) -> float:
    c = confusion(outputs, targets)
    n = c.sum(1)
    return float((c.diagonal()[n > 0] / n[n > 0]).min())


def calibration_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    e = np.exp(outputs - outputs.max(1, keepdims=True))
    sure, right = (e / e.sum(1, keepdims=True)).max(1), outputs.argmax(1) == targets
    bins = np.minimum((sure * 15).astype(int), 14)
    return float(np.abs(np.bincount(bins, sure, 15) - np.bincount(bins, right, 15)).sum() / len(targets))


def r2(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(1 - ((outputs - targets) ** 2).sum() / ((targets - targets.mean()) ** 2).sum())


def rmse(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.sqrt(((outputs - targets) ** 2).mean()))


for lower in (calibration_error, rmse):
    lower.higher_is_better = False  # type: ignore[attr-defined]


def rare(samples: int, share: float) -> Callable[[np.random.Generator, int], Drawn]:
    """Five classes, one of so many samples in 1,000; a share of the others is taken for it."""

    def draw(rng: np.random.Generator, n: int) -> Drawn:
        targets = np.where(np.arange(n) % 1000 < samples, 4, rng.integers(0, 4, n))
        called = np.where((targets != 4) & (rng.random(n) < share), 4, targets)
        return np.eye(5)[targets] * 9.0, np.eye(5)[called] * 9.0, targets

    return draw


def classes(rng: np.random.Generator, n: int) -> Drawn:
    """Five classes that are right in 90 %; the candidate is worse in one of them."""
    targets = np.arange(n) % 5
    base = np.where(rng.random(n) < 0.1, (targets + 1) % 5, targets)
    mine = np.where((targets == 3) & (rng.random(n) < 0.06), (targets + 1) % 5, base)
    return np.eye(5)[base] * 9.0, np.eye(5)[mine] * 9.0, targets


def surer(rng: np.random.Generator, n: int) -> Drawn:
    """A calibrated original; the candidate is 1.3 times as sure."""
    logits = rng.normal(0, 1.5, (n, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=2)
    return logits, 1.3 * logits, targets


def errors(tails: float) -> Callable[[np.random.Generator, int], Drawn]:
    """Regression with errors of Student's t; the candidate has its own, 1.1 times as large."""

    def draw(rng: np.random.Generator, n: int) -> Drawn:
        targets = rng.normal(size=(n, 1)) * 2
        base, mine = (targets + scale * rng.standard_t(tails, (n, 1)) for scale in (0.5, 0.55))
        return base, mine, targets

    return draw


CASES: tuple[
    tuple[str, Callable[[np.ndarray, np.ndarray], float], Callable[[np.random.Generator, int], Drawn], int], ...
] = (
    ("macro precision, 5 of 1,000 rare, 0.16 % taken for them", macro_precision, rare(5, 0.0016), 1000),
    ("macro precision, 20 of 1,000 rare, 0.2 % taken for them", macro_precision, rare(20, 0.002), 1000),
    ("worst of five classes", worst_class, classes, 1000),
    ("expected calibration error, 1.3 times as sure", calibration_error, surer, 500),
    ("R^2, t with 5 degrees", r2, errors(5), 400),
    ("RMSE, t with 5 degrees", rmse, errors(5), 400),
    ("RMSE, t with 3 degrees", rmse, errors(3), 400),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    args = parser.parse_args()
    print("| metric | n | true drop | falsely certified |\n|---|---|---|---|")
    for name, metric, draw, n in CASES:
        sign = 1 if getattr(metric, "higher_is_better", True) else -1
        base, mine, targets = draw(np.random.default_rng(10**6), MANY * n)
        drop = sign * (metric(base, targets) - metric(mine, targets))
        false = valid = 0
        for seed in range(args.cases):
            try:
                said = certify(metric, *draw(np.random.default_rng(seed), n), drop, seed, LEVEL)
            except FeatherweightError:  # no value on a resample
                continue
            valid, false = valid + 1, false + (said["verdict"] == "certified")
        print(f"| {name} | {n} | {drop:.4f} | {100 * false / max(valid, 1):.1f} % of {valid} |", flush=True)


if __name__ == "__main__":
    main()
