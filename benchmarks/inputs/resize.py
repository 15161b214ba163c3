#!/usr/bin/env python3
"""Half the side: what it saves, and what is left of the accuracy after a short recovery.

    python benchmarks/inputs/resize.py

Images of 64x64, of shapes of any size at any place, filled with stripes of 4 or of 7 pixels: four
shapes times two stripes are eight classes. A ConvNet is trained on them; then it is distilled for
three epochs as it is, and behind Resize. Files of both are timed in turns on one thread.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import featherweight as fw
from featherweight.models.package import Package
from featherweight.targets.base import Target
from featherweight.task.task import Task
from featherweight.train.loop import predict
from featherweight.transforms.base import Context

SIDE, SEEDS, SCALES = 64, (0, 1, 2), (1.0, 0.75, 0.5)
RUNTIMES = ("onnxruntime", "openvino")


def images(n: int, seed: int) -> fw.ArraySplit:
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 8, n), np.empty((n, 1, SIDE, SIDE), np.float32)
    v, u = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    for i, label in enumerate(y):
        r = rng.uniform(12, 24)
        a, b = v - rng.uniform(r, SIDE - r), u - rng.uniform(r, SIDE - r)
        shape, stripes = divmod(int(label), 2)
        inside = (
            a * a + b * b < r * r,
            np.maximum(abs(a), abs(b)) < 0.85 * r,
            (a < 0.7 * r) & (a > 2 * abs(b) - r),
            (np.minimum(abs(a), abs(b)) < 0.35 * r) & (np.maximum(abs(a), abs(b)) < r),
        )[shape]
        angle, period = rng.uniform(0, np.pi), (4, 7)[stripes]
        wave = np.sin(2 * np.pi * (np.cos(angle) * a + np.sin(angle) * b) / period + rng.uniform(0, 6))
        x[i, 0] = rng.normal(0, 0.5, (SIDE, SIDE)) + inside * (rng.uniform(0.2, 0.5) + 0.6 * wave)
    return fw.ArraySplit({"image": x}, y)


def net() -> torch.nn.Module:
    return fw.ConvNet(in_channels=1, classes=8, stem=16, depths=(1, 1, 1), widths=(16, 32, 64), stride=2).build()


def main() -> None:
    found = []
    for seed in SEEDS:
        parts = (images(n, 10 * seed + i) for i, n in enumerate((2000, 1000, 1000)))
        splits = fw.Splits(*parts)
        task = Task(name=f"stripes-{seed}", model=net, data=lambda splits=splits: splits)

        def context(
            package: Package | None, outputs: np.ndarray | None, seed: int = seed, task: Task = task
        ) -> Context:
            return Context(task, task.splits(), seed, lambda _: package, lambda _: outputs, lambda _: None)

        base = fw.Train(epochs=8, lr=3e-3).apply(Package(task.build()), context(None, None))
        taught = context(base, predict(base.module, splits.train))
        packages = {1.0: base}
        for scale in SCALES:
            start = fw.Resize(scale=scale).apply(base, taught)
            packages[scale] = fw.Distill(epochs=3, lr=2e-3).apply(start, taught)
        targets = splits.test.all_targets()
        for scale, package in packages.items():
            right = float((predict(package.module, splits.test).argmax(1) == targets).mean())
            found.append({"seed": seed, "scale": scale, "accuracy": right})
            print(json.dumps(found[-1]), flush=True)
        if seed == SEEDS[0]:
            speeds(packages, task)


def speeds(packages: dict[float, Package], task: Task, rounds: int = 200) -> None:
    """Medians of milliseconds at batch 1, in turns, and their ratios to the whole side."""
    example = {k: torch.from_numpy(v) for k, v in task.example().items()}
    arrays = {k: v.numpy() for k, v in example.items()}
    calibration = {k: torch.from_numpy(v) for k, v in task.splits().train.batch(np.arange(64))[0].items()}
    for runtime in RUNTIMES:
        for scheme in (None, "int8-static"):
            sessions = {}
            for scale, package in packages.items():
                made = package
                if scheme:
                    made = fw.Quantize(scheme=scheme).apply(
                        package, Context(task, task.splits(), 0, lambda _: None, lambda _: None, lambda _: None)
                    )
                folder = Path(tempfile.mkdtemp())
                target = Target(runtime)
                target.load_runtime().export(made, example, calibration, target, folder)
                sessions[scale] = target.load_runtime().load(folder, target, 1)
            times: dict[float, list[float]] = {scale: [] for scale in sessions}
            for _ in range(rounds):
                for scale, session in sessions.items():
                    start = time.perf_counter()
                    session.run(arrays)
                    times[scale].append(time.perf_counter() - start)
            ms = {scale: 1e3 * float(np.median(t)) for scale, t in times.items()}
            ratio = {scale: float(np.median(np.array(t) / np.array(times[1.0]))) for scale, t in times.items()}
            print(runtime, scheme or "fp32", {s: f"{ms[s]:.3f} ms, {ratio[s]:.2f}x" for s in ms}, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
