"""Realistic results of a study that never ran, made by a seeded generator and folded by the
study's own state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from featherweight.limits import Constraint, max_drop, max_latency, max_size
from featherweight.recipe import Candidate, decode
from featherweight.records import Entry
from featherweight.space import Space
from featherweight.study.command import command
from featherweight.study.known import artifact_id
from featherweight.study.state import StudyState
from featherweight.study.study import Study

RECIPE = {
    "recipe": [
        {
            "prune": {
                "ratio": {"float": {"low": 0.0, "high": 0.8, "step": 0.1}},
                "criterion": {"choice": ["taylor", "magnitude", "random"]},
            }
        },
        {"distill": {"epochs": {"int": {"low": 1, "high": 4}}}},
        {"maybe": {"quantize": {}}},
    ]
}
REASONS = (
    "out of memory: the trial used more than 2 GB",
    "killed by signal SIGSEGV while measuring",
    "time limit of 20 s reached",
)


def config(task: str = "digits", limits: list[Constraint] | None = None) -> dict[str, Any]:
    """Settings as `study.configure` makes them."""
    limits = limits or [max_drop(0.01), max_latency("0.7x"), max_size("0.5x")]
    runtimes = ["onnxruntime", "openvino"]
    return {
        "task": {"file": f"examples/{task}.py", "name": "task"},
        "task_name": task,
        "fingerprint": "f" * 64,
        "recipe": RECIPE,
        "target": {
            "text": "onnxruntime",
            "choice": "onnxruntime",
            "runtimes": ["onnxruntime"],
            "reference": "onnxruntime",
            "originals": runtimes,
        },
        "constraints": [c.to_json() for c in limits],
        "minimize": ["latency", "size"],
        "strategy": "greedy",
        "budget": {"trials": 40, "minutes": 3.0, "trial_minutes": None, "trial_memory_gb": None},
        "seed": 0,
        "device": "cpu",
        "workers": 1,
        "train_threads": 2,
        "reuse": True,
        "measure_seconds": 2.0,
        "store": "/tmp/store",
    }


def info() -> dict[str, Any]:
    sizes = {"train": 1077, "valid": 360, "test": 360}
    return {
        "splits": {
            "how": "stratified; exact duplicates on one side",
            "seed": 0,
            "sizes": sizes,
            "classes": {"0": {"train": 107, "valid": 35, "test": 36}},
        },
        "machine": {
            "cpu": "Example CPU @ 2.0 GHz",
            "cores": 2,
            "flags": {"avx2": True, "vnni": False},
            "memory_bytes": 24 * 10**9,
            "python": "3.11",
        },
        "inputs": {"x": {"shape": ["batch", 1, 8, 8], "dtype": "float32"}},
    }


def entry(
    rng: np.random.Generator,
    trial: int | None,
    label: str,
    accuracy: float,
    speed: float,
    size: int,
    recipe: Any = None,
    **other: Any,
) -> Entry:
    half, wide, ms = 1.96 * (accuracy * (1 - accuracy) / 360) ** 0.5, float(rng.uniform(0.01, 0.06)), 0.42 / speed
    metric = {
        "name": "accuracy",
        "value": accuracy,
        "ci95": [accuracy - half, min(1.0, accuracy + half)],
        "n": 360,
        "split": "valid",
    }
    ends = [1.0, 1.0] if label == "baseline" else [speed * (1 - wide), speed * (1 + wide)]
    values: dict[str, Any] = {
        "label": label,
        "trial": trial,
        "recipe": recipe or {"recipe": []},
        "target": "onnxruntime",
        "metric": {**metric, "higher_is_better": True},
        "latency_ms": {"median": ms, "p90": 1.3 * ms, "n": 4200, "cpu_median": 0.97 * ms, "load": 0.18},
        "speedup": {"ratio": speed, "ci95": ends, "clock": "cpu", "n": 64},
        "size_bytes": size,
        "peak_memory_bytes": int(58e6 + 4 * size),
        "params": size // 4,
        "macs": int(9e6 / speed**0.8),
        "artifact": f"artifacts/{label}",
        "sha256": f"{rng.integers(2**60):064x}",
        "parity": {"max_abs_error": 1.2e-6, "agreement": 1.0},
        "seconds": float(rng.uniform(1, 9)),
    }
    return Entry.from_json({**values, **other})


def baselines(rng: np.random.Generator) -> list[Entry]:
    return [
        entry(rng, None, "baseline", 0.9889, 1.0, 620_000),
        entry(rng, None, "original on openvino", 0.9889, 1.25, 633_000, target="openvino"),
        entry(rng, None, "plain int8", 0.9861, 2.1, 168_000),
        entry(rng, None, "random cutting", 0.93, 1.6, 320_000),
    ]


def trial(rng: np.random.Generator, number: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(filling, recipe, outcome event) of one trial; some fail, some are stopped."""
    ratio, criterion, epochs = (
        round(float(rng.uniform(0.0, 0.8)), 1),
        str(rng.choice(["taylor", "magnitude", "random"])),
        int(rng.integers(1, 5)),
    )
    int8 = bool(rng.random() < 0.6)
    steps: list[Any] = [
        {"prune": {"ratio": ratio, "criterion": criterion, "round_to": 8}},
        {"distill": {"epochs": epochs, "temperature": 2.0}},
    ]
    recipe = {"recipe": steps + ([{"quantize": {"scheme": "int8-static", "granularity": "channel"}}] if int8 else [])}
    filling = {"prune.ratio": ratio, "prune.criterion": criterion, "distill.epochs": epochs, "quantize": int8}
    fate, seconds = rng.random(), float(rng.uniform(1.5, 8.0))
    if fate < 0.12:
        kind = "failed" if fate < 0.06 else "stopped"
        return (
            filling,
            recipe,
            {
                "kind": kind,
                "reason": str(rng.choice(REASONS)) if kind == "failed" else "interrupted",
                "seconds": seconds,
            },
        )
    label = f"prune(ratio={ratio}, criterion={criterion}) > distill(epochs={epochs})" + (
        " > quantize(scheme=int8-static)" if int8 else ""
    )
    lost = (
        0.02 * ratio**3 * (2.0 if criterion == "random" else 1.0) / epochs**0.3
        + 0.003 * int8
        + float(rng.normal(0, 0.002))
    )
    speed = (1 + 2.2 * ratio) * (2.0 if int8 else 1.0) * float(rng.uniform(0.9, 1.1))
    size = int(620_000 * (1 - ratio) ** 1.7 * (0.27 if int8 else 1.0)) + 4000
    found = entry(rng, number, label, round((0.9889 - max(lost, -0.004)) * 360) / 360, speed, size, recipe)
    return (
        filling,
        recipe,
        {
            "kind": "finished",
            "entry": found.to_json(),
            "steps": 4,
            "reused": int(rng.integers(0, 4)),
            "seconds": seconds,
        },
    )


def events(
    trials: int = 40, seed: int = 7, settings: dict[str, Any] | None = None, certified: bool = True
) -> list[dict[str, Any]]:
    """The event log of a study, each event with its time (seconds)."""
    rng = np.random.default_rng(seed)
    out: list[dict[str, Any]] = [
        {"kind": "study", "config": settings or config()},
        {"kind": "info", "info": info()},
        {"kind": "open"},
    ]
    out += [{"kind": "phase", "name": "baseline"}]
    out += [{"kind": "baseline", "entry": e.to_json(), "steps": 2, "reused": 0} for e in baselines(rng)]
    out += [{"kind": "phase", "name": "search"}]
    for number in range(trials):
        filling, recipe, outcome = trial(rng, number)
        out.append(
            {
                "kind": "proposed",
                "trial": number,
                "filling": filling,
                "note": {},
                "recipe": recipe,
                "target": "onnxruntime",
            }
        )
        out += [{"kind": "started", "trial": number}, {**outcome, "trial": number}]
    best = StudyState().fold(_timed(out)).best()
    if best is not None and certified:
        certificate = {
            "drop": 0.0028,
            "ci95": [-0.0041, 0.0097],
            "n": 360,
            "split": "test",
            "verdict": "certified",
            "needs": None,
            "looks": 1,
        }
        out += [{"kind": "phase", "name": "certify"}]
        out += [
            {
                "kind": "certified",
                "artifact": artifact_id(best),
                "certificate": certificate,
                "label": best.label,
                "entry": best.to_json(),
            }
        ]
    return _timed(out)


def _timed(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"trial": None, **e, "time": 1000.0 + 2.0 * i} for i, e in enumerate(log)]


def made(log: list[dict[str, Any]]) -> Study:
    """The study that this log tells of; there is nothing in its folder."""
    return Study(Path("runs/digits"), StudyState().fold(log))


def study(trials: int = 40, **options: Any) -> Study:
    return made(events(trials, **options))


def infeasible(trials: int = 20) -> Study:
    """A study whose limits nothing meets."""
    return study(trials, settings=config(limits=[max_drop(0.01), max_size("2KB")]))


def page(found: Study, out: str = "runs/digits") -> tuple[Any, ...]:
    """The arguments of `report.html.render`."""
    return (
        found.front_json(),
        found.trials(),
        found.info(),
        {**found.config, "out": out, "command": command(found.state.begun, out)},
    )


def search_config(**settings: Any) -> dict[str, Any]:
    """Of a search without limits, from a task without a model: conditional holes, one in the
    logarithm, a proxy, the adaptive strategy."""
    quantize = {
        "scheme": {"choice": ["int8-static", "int8-dynamic", "weight-only"]},
        "samples": {"choice": [32, 64, 128, 256]},
    }
    steps = [
        {
            "prune": {
                "ratio": {"float": {"low": 0.0, "high": 0.8}},
                "criterion": {"choice": ["taylor", "magnitude", "random"]},
            }
        },
        {
            "train": {
                "epochs": {"int": {"low": 1, "high": 12}},
                "lr": {"float": {"low": 1e-4, "high": 1e-1, "log": True}},
            }
        },
        {"maybe": {"quantize": quantize}},
    ]
    more = {
        "mode": "search",
        "baseline": {"recipe": []},
        "proxy": {"kind": "naswot", "keep": 0.25},
        "stopper": {"kind": "asha", "eta": 2},
    }
    more |= {"constraints": [], "minimize": ["error", "latency"], "strategy": "adaptive", "recipe": {"recipe": steps}}
    return config() | more | {"guesses": [[{"train.lr": 0.01}, 2.0]], "earlier": [], "supernet": None} | settings


def searched(trials: int = 40, seed: int = 3, **settings: Any) -> Study:
    """A search whose error depends on lr and ratio, latency on ratio and quantize; some trials
    fail, some stop early. Each trial tells its features (`naswot` goes with the metric, `noise`
    with nothing) and reports."""
    rng = np.random.default_rng(seed)
    chosen = search_config(**settings)
    space = Space(Candidate(decode(chosen["recipe"]), "onnxruntime"))
    log: list[dict[str, Any]] = [
        {"kind": "study", "config": chosen},
        {"kind": "info", "info": info()},
        {"kind": "open"},
    ]
    log += [{"kind": "baseline", "entry": e.to_json(), "steps": 2, "reused": 0} for e in baselines(rng)]
    names = ["bayesian", "genetic", "greedy", "random", "tpe"]
    credits = np.ones(len(names))
    for number in range(trials):
        filling = space.sample(rng)
        at = int(rng.choice(len(names), p=credits / credits.sum()))
        credits[at] *= float(rng.uniform(0.8, 1.3))
        shown = {n: float(c) for n, c in zip(names, credits, strict=True)}
        why = {"credit": shown, "p": {n: c / credits.sum() for n, c in shown.items()}}
        note = {"arm": names[at], "why": why, "note": {}}
        proposed = {
            "kind": "proposed",
            "trial": number,
            "filling": filling,
            "note": note,
            "recipe": {"recipe": []},
            "target": "onnxruntime",
        }
        log.append(proposed)
        off = abs(np.log10(filling["train.lr"]) + 2.5)
        accuracy = 0.98 - 0.05 * off**2 - 0.05 * filling["prune.ratio"] ** 2 + float(rng.normal(0, 0.003))
        speed = (1 + filling["prune.ratio"]) * (2.0 if filling["quantize"] else 1.0) * float(rng.uniform(0.95, 1.05))
        scored = accuracy + float(rng.normal(0, 0.03))
        proposed["features"] = {
            "naswot": scored,
            "noise": float(rng.normal()),
            "params": 1e5 * (1 - filling["prune.ratio"]),
        }
        epochs = [1, 2, 4, 8][: int(rng.integers(1, 5))]
        log += [
            {"kind": "reported", "trial": number, "epoch": e, "of": 8, "score": 1 - accuracy + 0.5 / e} for e in epochs
        ]
        if rng.random() < 0.08:
            log.append({"kind": "failed", "trial": number, "reason": REASONS[0], "seconds": 2.0})
        elif len(epochs) < 2:
            log.append({"kind": "stopped", "trial": number, "reason": "asha stopped it", "seconds": 1.0})
        else:
            found = entry(rng, number, f"net {number}", accuracy, speed, int(4e5 * (1 - filling["prune.ratio"])))
            log.append(
                {
                    "kind": "finished",
                    "trial": number,
                    "entry": found.to_json(),
                    "steps": 3,
                    "reused": 1,
                    "seconds": float(rng.uniform(1, 9)),
                }
            )
    return made(_timed(log))
