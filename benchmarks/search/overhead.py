"""Seconds that a proposal takes after 10, 100, 1,000 and 10,000 trials:
each strategy of ours, and Optuna's own samplers.

    python benchmarks/search/overhead.py [--strategies random,tpe]
        [--marks 10,100,1000,10000] [--repeats 5]

The space has 10 mixed holes, two objectives (CMA-ES of Optuna: one) and some infeasible and failed
trials. Histories are filled with random trials, so a strategy meets trials that are not its own.
A cell is the median over `repeats` proposals, each after the trial before it has been told;
the first, which reads the whole history, is in a column of its own. A row ends after a cell of more
than 5 s. Writes results/overhead.csv and overhead.md; timings are of this machine, in CPU seconds
of this process, one thread.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna

from featherweight import registry
from featherweight.errors import FeatherweightError
from featherweight.optuna_sampler import to_optuna
from featherweight.recipe import Recipe, Transform
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Space

SLOW = 5.0  # seconds; a row ends after such a cell
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Fit(Transform):
    lr: float = 0.1
    momentum: float = 0.9
    batch: int = 32
    epochs: int = 3
    schedule: str = "cosine"
    optimizer: str = "sgd"


@dataclass(frozen=True)
class Shrink(Transform):
    ratio: float = 0.5
    criterion: str = "magnitude"
    bits: int = 8


SPACE = Recipe(
    Fit(
        Float(1e-5, 1.0, log=True),
        Float(0.0, 1.0),
        Choice(16, 32, 64, 128),
        Int(1, 100, log=True),
        Choice("cosine", "step"),
        Choice("sgd", "adam"),
    ),
    Maybe(Shrink(Float(0.0, 0.9), Choice("magnitude", "taylor", "random"), Int(2, 8))),
)


def outcome(trial: Trial) -> None:
    """Two objectives that conflict; one in 20 fails, about a third breaks a constraint."""
    f = trial.filling
    error = (
        0.1
        + (math.log10(f["fit.lr"]) + 2) ** 2 / 10
        + (f["fit.momentum"] - 0.9) ** 2
        + 0.3 / f["fit.epochs"]
        + 0.1 * f.get("shrink.ratio", 0.0) ** 2
    )
    latency = 1.0 - 0.8 * f.get("shrink.ratio", 0.0)
    trial.state, trial.values, trial.violation, trial.cost_s = "complete", (error, latency), max(0.0, error - 0.6), 1.0
    if trial.number % 20 == 19:
        trial.state, trial.values = "failed", None


def filled(space: Space, n: int, objectives: int) -> History:
    history, rng = History(), generator(0, "overhead")
    for i in range(n):
        trial = Trial(i, space.sample(rng))
        outcome(trial)
        trial.values = trial.values and trial.values[:objectives]
        history.add(trial)
    return history


def ours(kind: str, n: int, repeats: int) -> tuple[float, list[float]]:
    """CPU seconds of the first proposal, and of those after it."""
    space = Space(SPACE)
    history, strategy = filled(space, n, 2), registry.find("strategies", kind)()
    times = []
    for i in range(repeats + 1):
        began = time.process_time()
        proposals = strategy.propose(space, history, 1, generator(1, i))
        times.append(time.process_time() - began)
        trial = Trial(len(history), proposals[0].filling, note=dict(proposals[0].note))
        history.add(trial)
        outcome(trial)
        if sum(times) > 4 * SLOW and i:
            break
    return times[0], times[1:]


def theirs(make: Callable[[], Any], objectives: int, n: int, repeats: int) -> tuple[float, list[float]]:
    """The same for an Optuna sampler, on the same trials; all 10 parameters are suggested
    within the time."""
    space = Space(SPACE)
    study = to_optuna(space, filled(space, n, objectives))
    study.sampler = make()
    known = {name: d for t in study.get_trials(deepcopy=False) for name, d in t.distributions.items()}
    names = {k: v for k, v in known.items() if not k.startswith("shrink.")}
    below = {k: v for k, v in known.items() if k.startswith("shrink.")}
    times = []
    for i in range(repeats + 1):
        began = time.process_time()
        trial = study.ask(names)
        if trial.params["shrink"] == "true":
            for name, d in below.items():
                trial._suggest(name, d)
        times.append(time.process_time() - began)
        trial.set_constraint("violation", 0.0)
        study.tell(trial, [1.0 + i, 0.5][:objectives])
        if sum(times) > 4 * SLOW and i:
            break
    return times[0], times[1:]


PEERS: dict[str, tuple[Callable[[], Any], int]] = {
    "random": (lambda: optuna.samplers.RandomSampler(seed=0), 2),
    "tpe": (lambda: optuna.samplers.TPESampler(seed=0), 2),
    "tpe-group": (lambda: optuna.samplers.TPESampler(seed=0, multivariate=True, group=True), 2),
    "nsga2": (lambda: optuna.samplers.NSGAIISampler(seed=0), 2),
    "gp": (lambda: optuna.samplers.GPSampler(seed=0, warn_independent_sampling=False), 2),
    "cmaes": (lambda: optuna.samplers.CmaEsSampler(seed=0, warn_independent_sampling=False), 1),
}


def rate(n: int) -> float:
    """Random proposals asked, told and finished a second, wall time."""
    space, history, strategy = Space(SPACE), History(), registry.find("strategies", "random")()
    began = time.perf_counter()
    for i in range(n):
        trial = Trial(i, strategy.propose(space, history, 1, generator(2, i))[0].filling)
        history.add(trial)
        outcome(trial)
    return n / (time.perf_counter() - began)


def rows(kinds: list[str], marks: list[int], repeats: int) -> list[dict[str, Any]]:
    out = []
    jobs: list[tuple[str, str, Callable[[int], tuple[float, list[float]]]]] = [
        ("featherweight", k, lambda n, k=k: ours(k, n, repeats)) for k in kinds
    ]
    jobs += [("optuna", k, lambda n, v=v: theirs(*v, n, repeats)) for k, v in PEERS.items()]
    for library, kind, job in jobs:
        for n in marks:
            try:
                first, later = job(n)
            except FeatherweightError as e:
                print(f"{library} {kind}: {str(e).splitlines()[0]}", flush=True)
                break
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            out.append(
                {
                    "library": library,
                    "strategy": kind,
                    "trials": n,
                    "median_s": statistics.median(later),
                    "worst_s": max(later),
                    "first_s": first,
                    "proposals": len(later),
                    "peak_mb": memory,
                }
            )
            print(
                f"{library:14}{kind:14}{n:7,} {1e3 * statistics.median(later):10.2f} ms  (first {first:.2f} s)",
                flush=True,
            )
            if statistics.median(later) > SLOW or first > 6 * SLOW:
                break
    return out


def table(found: list[dict[str, Any]], marks: list[int], per_second: float) -> str:
    lines = [
        "# Overhead of a proposal",
        "",
        "Median CPU milliseconds a proposal after so many trials; in brackets the slowest. One thread.",
        "",
    ]
    lines += [
        "| library | strategy | " + " | ".join(f"{m:,}" for m in marks) + " | first at the last mark, s |",
        "|---" * (len(marks) + 3) + "|",
    ]
    for library, kind in dict.fromkeys((r["library"], r["strategy"]) for r in found):
        by = {r["trials"]: r for r in found if (r["library"], r["strategy"]) == (library, kind)}
        cells = [f"{1e3 * by[m]['median_s']:.2f} ({1e3 * by[m]['worst_s']:.1f})" if m in by else "-" for m in marks]
        lines.append(f"| {library} | {kind} | " + " | ".join(cells) + f" | {by[max(by)]['first_s']:.2f} |")
    lines += ["", f"Random search through a History: {per_second:,.0f} trials a second asked and told (wall time)."]
    lines += [f"Peak memory of the process over all rows: {max(r['peak_mb'] for r in found):,.0f} MB.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default=",".join(registry.names("strategies")))
    parser.add_argument("--marks", default="10,100,1000,10000")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    marks = [int(m) for m in args.marks.split(",")]
    found = rows(args.strategies.split(","), marks, args.repeats)
    text = table(found, marks, rate(5000))
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "overhead.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    (RESULTS / "overhead.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
