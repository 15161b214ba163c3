"""How often a certificate of graded values is false: values whose true drop is at the floor.

    python benchmarks/certificates/graded.py [--cases 1000]

n samples of drops: a little noise, and a share of samples that fail, at a cost drawn from a
distribution; the costs of wrong answers, which the product sees by giving each sample the answer of
another one, are drawn from the same. "mean" and "worst hundredth": what a failure that was not seen
is taken to cost (`measure.paired`: the latter)."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from featherweight.measure.paired import _worst_hundredth, p_value
from featherweight.records import Paired

LEVELS = (0.05, 0.005)
Draw = Callable[[np.random.Generator, int], np.ndarray]
COSTS: dict[str, tuple[Draw, float, float]] = {  # how costs are drawn, their mean, the noise
    "all alike (0.3)": (lambda rng, n: np.full(n, 0.3), 0.3, 0.01),
    "uniform in [0, 1]": (lambda rng, n: rng.random(n), 0.5, 0.03),
    "beta(1, 2)": (lambda rng, n: rng.beta(1, 2, n), 1 / 3, 0.1),
    "exponential": (lambda rng, n: rng.exponential(0.3, n), 0.3, 0.01),
    "lognormal": (lambda rng, n: rng.lognormal(0, 1, n), float(np.exp(0.5)), 0.01),
}
WAYS = {"mean": np.mean, "worst hundredth": _worst_hundredth}


def false(n: int, failing: float, costs: tuple[Draw, float, float], cases: int, seed: int) -> str:
    """Percent of the cases that are certified at each of LEVELS, for each of WAYS."""
    draw, mean, noise = costs
    rng, floor, passed = np.random.default_rng(seed), failing * mean, np.zeros((len(WAYS), len(LEVELS)))
    for _ in range(cases):
        d = rng.normal(0, noise, n) + draw(rng, n) * (rng.random(n) < failing)
        seen = draw(rng, n)
        for i, way in enumerate(WAYS.values()):
            paired = Paired(float(d.mean()), n, float(d.std(ddof=1)), cost=float(way(seen)))
            passed[i] += p_value(paired, floor) <= np.array(LEVELS)
    return " | ".join(f"{100 * a / cases:.1f} %, {100 * b / cases:.2f} %" for a, b in passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    args = parser.parse_args()
    print(f"| costs | n | failing | {' | '.join(WAYS)} |\n|{'---|' * (3 + len(WAYS))}")
    for name, costs in COSTS.items():
        for n in (30, 200, 1000):
            for failing in (3, 10, 30):
                if failing < n:
                    print(f"| {name} | {n} | {failing} | {false(n, failing / n, costs, args.cases, n + failing)} |")


if __name__ == "__main__":
    main()
