"""Small problems with known optima, and a loop that runs a strategy on them."""

import math
from dataclasses import dataclass

from featherweight.pareto import hypervolume
from featherweight.recipe import Recipe, Transform
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Space


@dataclass(frozen=True)
class Cut(Transform):
    ratio: float = 0.5
    criterion: str = "a"


@dataclass(frozen=True)
class Tune(Transform):
    epochs: int = 3
    lr: float = 1e-3


@dataclass(frozen=True)
class Shrink(Transform):
    bits: int = 8
    scheme: str = "s"


SPACE = Space(
    Recipe(
        Cut(Float(0, 0.8), Choice("taylor", "magnitude", "random")),
        Tune(Int(1, 12, log=True), Float(1e-4, 1e-1, log=True)),
        Maybe(Shrink(Choice(2, 4, 8), Choice("static", "dynamic"))),
    )
)


def separable(f):
    """One objective, a sum over the holes; the least value is 0.01."""
    v = 4 * (f["cut.ratio"] - 0.31) ** 2 + {"taylor": 0.0, "magnitude": 0.1, "random": 0.3}[f["cut.criterion"]]
    v += 0.05 * abs(f["tune.epochs"] - 9) / 9 + 0.1 * (math.log10(f["tune.lr"]) + 3) ** 2
    v += (
        0.2 if not f["shrink"] else 0.05 * abs(f["shrink.bits"] - 4) + (0.1 if f["shrink.scheme"] == "dynamic" else 0.0)
    )
    return (v + 0.01,), 0.0


def compression(f):
    """Two objectives (latency, size) and a floor on the accuracy that forbids to
    shrink everything."""
    drop = (
        {"taylor": 0.06, "magnitude": 0.08, "random": 0.16}[f["cut.criterion"]]
        * f["cut.ratio"] ** 2
        / (1 + 0.5 * math.log(f["tune.epochs"]))
    )
    drop += 0.005 * (math.log10(f["tune.lr"]) + 2.7) ** 2
    latency, size = 1 - 0.8 * f["cut.ratio"], 1 - 0.9 * f["cut.ratio"]
    if f["shrink"]:
        drop += {2: 0.1, 4: 0.01, 8: 0.003}[f["shrink.bits"]]
        latency, size = latency * {"static": 0.4, "dynamic": 1.2}[f["shrink.scheme"]], size * f["shrink.bits"] / 32
    return (latency, size), max(0.0, (drop - 0.02) / 0.02)


def run(strategy, problem, trials, seed, space=SPACE):
    history = History()
    for i in range(trials):
        proposals = strategy.propose(space, history, 1, generator(seed, i))
        if not proposals:
            break
        values, violation = problem(proposals[0].filling)
        history.add(Trial(i, proposals[0].filling, "complete", values, violation, note=proposals[0].note))
    return history


def quality(history):
    """More is better: minus the least value, or the hypervolume of the feasible
    trials in log space."""
    feasible = [t.values for t in history if t.violation == 0]
    if len(history[0].values) == 1:
        return -min(v[0] for v in feasible)
    return hypervolume([[math.log(x) for x in v] for v in feasible], [0.0, 0.0])
