"""Realistic results of a study, made by a seeded generator: for the tests of reports and of the command line."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from featherweight.limits import Constraint, judge, objectives
from featherweight.pareto import front as pareto_front
from featherweight.records import Entry

CONSTRAINTS = [Constraint("drop", 0.01), Constraint("latency", 0.7, True), Constraint("size", 0.5, True)]


def recipe(ratio: float, criterion: str, epochs: int, int8: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"prune": {"ratio": ratio, "criterion": criterion, "round_to": 4}}, {"distill": {"epochs": epochs, "temperature": 2.0}}]
    return {"recipe": steps + ([{"quantize": {"scheme": "int8-static", "granularity": "channel"}}] if int8 else [])}


def entry(
    rng: np.random.Generator,
    trial: int | None,
    label: str,
    *,
    accuracy: float,
    speed: float,
    size: int,
    target: str = "onnxruntime",
    made: Any = None,
) -> Entry:
    n, half = 360, 1.96 * (accuracy * (1 - accuracy) / 360) ** 0.5
    wide = float(rng.uniform(0.01, 0.06))
    base_ms = 0.42
    return Entry(
        label=label,
        trial=trial,
        recipe=made,
        target=target,
        metric={
            "name": "accuracy",
            "value": accuracy,
            "ci95": [accuracy - half, min(1.0, accuracy + half)],
            "n": n,
            "split": "valid",
            "higher_is_better": True,
        },
        latency_ms={"median": base_ms / speed, "p90": 1.3 * base_ms / speed, "n": 4200, "cpu_median": 0.97 * base_ms / speed, "load": 0.18},
        speedup={"ratio": speed, "ci95": [1.0, 1.0] if label == "original" else [speed * (1 - wide), speed * (1 + wide)], "clock": "cpu", "n": 64},
        size_bytes=size,
        peak_memory_bytes=int(58e6 + 4 * size),
        params=size // 4,
        macs=int(9e6 / speed**0.8),
        artifact=f"artifacts/{label}",
        sha256=f"{rng.integers(2**60):064x}",
        parity={"max_abs_error": 1.2e-6},
        seconds=float(rng.uniform(1, 9)),
    )


def results(trials: int = 40, seed: int = 7, task: str = "digits", feasible: bool = True) -> dict[str, Any]:
    """{"front", "trials", "info", "config"} of a study that never ran. `feasible=False`: no candidate meets the limits."""
    rng = np.random.default_rng(seed)
    original = entry(rng, None, "original", accuracy=0.9889, speed=1.0, size=620_000)
    others = [
        entry(rng, None, "original on openvino", accuracy=0.9889, speed=1.25, size=633_000, target="openvino"),
        entry(rng, None, "plain int8", accuracy=0.9861, speed=2.1, size=168_000),
        entry(rng, None, "random cutting", accuracy=0.93, speed=1.6, size=320_000),
    ]
    limits = CONSTRAINTS if feasible else [*CONSTRAINTS, Constraint("size", 2_000.0)]
    told, steps = [], 0
    for number in range(trials):
        told.append(_trial(rng, number))
        steps += told[-1]["steps"]
    measured = [Entry.from_json(t["entry"]) for t in told if t["entry"]]
    for e in [original, *others, *measured]:
        judge(e, original, limits)
    by_number = {e.trial: e.to_json() for e in measured}
    for t in told:
        t["entry"] = by_number.get(t["number"])
    good = [e for e in [*others, *measured] if e.feasible]
    top = [good[i] for i in pareto_front([objectives(e, original, ["latency", "size"]) for e in good])]
    best = min(top, key=lambda e: e.size_bytes / e.speedup["ratio"], default=None)
    if best is not None:
        best.certificate = {"drop": 0.0028, "ci95": [-0.0041, 0.0097], "n": 360, "split": "test", "verdict": "certified", "needs": None}
    nearest = min(measured, key=lambda e: sum(v["excess"] for v in e.violations), default=None) if best is None else None
    count = {s: sum(t["state"] == s for t in told) for s in ("complete", "failed", "stopped")}
    front = {
        "format": 1,
        "task": task,
        "target": {"runtime": "onnxruntime", "dtype": "fp32", "threads": 1, "batch": 1, "device": "cpu"},
        "seed": 0,
        "constraints": [c.to_json() for c in limits],
        "budget": {"trials": trials, "minutes": 3.0, "spent_s": 171.4},
        "trials": count,
        "cache": {"steps": steps, "reused": sum(t["reused"] for t in told)},
        "baseline": original.to_json(),
        "baselines": [e.to_json() for e in others],
        "front": [e.to_json() for e in top],
        "best": best and best.to_json(),
        "nearest": nearest and nearest.to_json(),
    }
    return {"front": copy.deepcopy(front), "trials": told, "info": info(), "config": config(task, front)}


def _trial(rng: np.random.Generator, number: int) -> dict[str, Any]:
    ratio, criterion, epochs = float(rng.uniform(0.0, 0.8)), str(rng.choice(["taylor", "magnitude", "random"])), int(rng.integers(1, 5))
    int8 = bool(rng.random() < 0.6)
    made = recipe(round(ratio, 3), criterion, epochs, int8)
    label = f"prune({criterion} {ratio:.2f}) > distill({epochs})" + (" > int8" if int8 else "")
    fate = rng.random()
    t = {
        "number": number,
        "state": "complete",
        "filling": {"prune.ratio": ratio, "prune.criterion": criterion, "distill.epochs": epochs, "quantize": int8},
        "recipe": made,
        "target": "onnxruntime",
        "entry": None,
        "reason": None,
        "seconds": float(rng.uniform(1.5, 8.0)),
        "steps": 4,
        "reused": int(rng.integers(0, 4)),
        "strategy_note": {},
    }
    if fate < 0.06:
        return {**t, "state": "failed", "reason": str(rng.choice(["out of memory: the trial used more than 2 GB", "killed by signal SIGSEGV while measuring", "time limit of 20 s reached"]))}
    if fate < 0.12:
        return {**t, "state": "stopped", "reason": "the floor is surely broken"}
    lost = 0.02 * ratio**3 * (2.0 if criterion == "random" else 1.0) / epochs**0.3 + 0.003 * int8 + float(rng.normal(0, 0.002))
    e = entry(rng, number, label, accuracy=round((0.9889 - max(lost, -0.004)) * 360) / 360, speed=(1 + 2.2 * ratio) * (2.0 if int8 else 1.0) * float(rng.uniform(0.9, 1.1)),
              size=int(620_000 * (1 - ratio) ** 1.7 * (0.27 if int8 else 1.0)) + 4000, made=made)
    return {**t, "entry": e.to_json()}


def info() -> dict[str, Any]:
    return {
        "splits": {
            "train": 1077,
            "valid": 360,
            "test": 360,
            "duplicates merged": 0,
            "seed": 0,
            "how": "stratified; exact duplicates on one side",
            "per class": {"train": {"0": 107, "1": 109}, "valid": {"0": 35, "1": 37}},
        },
        "machine": {
            "cpu": "Example CPU @ 2.0 GHz",
            "cores": 2,
            "flags": ["avx2", "avx512f", "avx512_vnni"],
            "memory_gb": 24,
            "python": "3.11",
            "onnxruntime": "1.31.1",
        },
        "how": {"seconds of timing a candidate": 2.0, "phases": {"baseline": 14.2, "search": 140.0, "certify": 9.1}},
        "inputs": {"x": {"shape": [1, 1, 8, 8], "dtype": "float32"}},
    }


def config(task: str, front: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": {"file": f"examples/{task}.py", "name": "task"},
        "recipe": None,
        "target": "onnxruntime",
        "constraints": front["constraints"],
        "minimize": ["latency", "size"],
        "strategy": "greedy",
        "budget": {"trials": 40, "minutes": 3.0, "trial_minutes": None, "trial_memory_gb": None},
        "seed": 0,
        "workers": 2,
        "threads": 1,
        "out": "runs/digits",
    }
