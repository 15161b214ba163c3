"""How often a certificate of a metric that is no mean over samples is false, where a class is rare:
the true drop is at the floor.

    python benchmarks/certificates/whole.py [--cases 400]

Five classes, of which one has few of the n test samples (as many in each case, as a stratified
split gives them, or as chance has it). The original is right everywhere; the candidate fails on a
share of the rare class, and of the others. "three of all": what a failure that was not seen is
taken to cost, from three random samples that fail; "and of one class": also from three of one
target (`measure.paired`: the latter)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest.mock import patch

import numpy as np

from featherweight.measure import paired
from featherweight.measure.certificate import certify
from featherweight.measure.metrics import BY_NAME
from featherweight.proof.chance import LEVEL

Score = Callable[[np.ndarray, np.ndarray], float]
MANY = 500  # times the samples of a case, from which the true drop is told
# samples of the other classes and of the rare one, shares that fail of the rare and of the others
CASES = (
    (997, 3, 0.4, 0.0),
    (594, 6, 0.25, 0.0),
    (980, 20, 0.2, 0.0),
    (950, 50, 0.1, 0.0),
    (800, 200, 0.05, 0.02),
)


def balanced(outputs: np.ndarray, targets: np.ndarray) -> float:
    """The mean of the classes' accuracies."""
    called = outputs.argmax(1)
    return float(np.mean([(called[targets == c] == c).mean() for c in np.unique(targets)]))


def drawn(
    rng: np.random.Generator, common: int, rare: int, failing: float, others: float, stratified: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of the original and of the candidate, and the targets."""
    n = common + rare
    few = np.arange(n) >= common if stratified else rng.random(n) < rare / n
    targets = np.where(few, 4, rng.integers(0, 4, n))
    fails = rng.random(n) < np.where(few, failing, others)
    called = np.where(fails, (targets + 1) % 5, targets)
    return np.eye(5)[targets] * 9.0, np.eye(5)[called] * 9.0, targets


def false(what: str | Score, score: Score, case: tuple[int, int, float, float], stratified: bool, cases: int) -> str:
    """The true drop, and percent of the cases that are certified, in both ways."""
    common, rare, *failing = case
    large = drawn(np.random.default_rng(0), MANY * common, MANY * rare, *failing, stratified=True)
    drop, passed = score(large[0], large[2]) - score(large[1], large[2]), [0, 0]
    for seed in range(cases):
        base, mine, targets = drawn(np.random.default_rng(seed + 1), common, rare, *failing, stratified=stratified)
        with patch.object(paired, "_alike", lambda targets: []):
            passed[0] += certify(what, base, mine, targets, drop, seed, LEVEL)["verdict"] == "certified"
        passed[1] += certify(what, base, mine, targets, drop, seed, LEVEL)["verdict"] == "certified"
    return f"{drop:.4f} | {' | '.join(f'{100 * k / cases:.1f} %' for k in passed)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=400)
    args = parser.parse_args()
    print("| metric | samples | failing | drawn | true drop | three of all | and of one class |\n|" + "---|" * 7)
    metrics: tuple[tuple[str, str | Score, Score], ...] = (
        ("macro_f1", "macro_f1", BY_NAME["macro_f1"].whole),
        ("balanced accuracy", balanced, balanced),
    )
    for name, what, score in metrics:
        for case in CASES:
            for stratified in (True, False):
                row = f"| {name} | {case[0]} + {case[1]} | {case[2]:.0%}, {case[3]:.0%} | "
                row += "stratified | " if stratified else "by chance | "
                print(f"{row}{false(what, score, case, stratified, args.cases)} |", flush=True)


if __name__ == "__main__":
    main()
