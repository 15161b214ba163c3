#!/usr/bin/env python3
"""Tokens merged, and ReLU for GELU, in a vision transformer: what is saved, what is left.

    python benchmarks/transformers/vit.py --seeds 0 1 2

A ViT (width 96, 6 layers, 50 tokens of 4 x 4 pixels) is trained on 12,000 images of Fashion-MNIST;
then it is distilled for two epochs as it is, and behind each step. Files are timed in turns on one
thread, batch 1, fp32 and static int8. Needs transformers and Debian's dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import featherweight as fw
from featherweight.models.package import Package
from featherweight.targets.base import Target
from featherweight.task.task import Task
from featherweight.train.loop import predict
from featherweight.transforms.base import Context

DATA = Path("/usr/share/datasets/fashion-mnist")
STEPS = {
    "as it is": (),
    "0.25 merged": (fw.MergeTokens(ratio=0.25, depth=0.25),),
    "0.5 merged": (fw.MergeTokens(ratio=0.5, depth=0.25),),
    "ReLU": (fw.ReplaceActivations(),),
    "0.5 merged, ReLU": (fw.MergeTokens(ratio=0.5, depth=0.25), fw.ReplaceActivations()),
}


def images(kind: str, rows: slice) -> fw.ArraySplit:
    with gzip.open(DATA / f"{kind}-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[rows]
    with gzip.open(DATA / f"{kind}-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[rows]
    return fw.ArraySplit({"image": (x.astype(np.float32) - 73) / 90}, y.astype(np.int64))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        self.net = ViTForImageClassification(
            ViTConfig(
                hidden_size=96,
                num_hidden_layers=6,
                num_attention_heads=4,
                intermediate_size=384,
                image_size=28,
                patch_size=4,
                num_channels=1,
                num_labels=10,
            )
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(image).logits
        return logits


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--seeds", type=int, nargs="+", default=[0])
    splits = fw.Splits(
        images("train", slice(0, 12000)), images("train", slice(12000, 14000)), images("t10k", slice(0, 5000))
    )
    for seed in asked.parse_args().seeds:
        torch.manual_seed(seed)
        task = Task(name=f"vit-{seed}", model=Vit, data=lambda: splits)

        def context(
            package: Package | None, outputs: np.ndarray | None, seed: int = seed, task: Task = task
        ) -> Context:
            return Context(task, splits, seed, lambda _: package, lambda _: outputs, lambda _: None)

        base = fw.Train(epochs=6, lr=1e-3, warmup=0.1).apply(Package(task.build()), context(None, None))
        taught = context(base, predict(base.module, splits.train))
        packages = {}
        for name, steps in STEPS.items():
            package = base
            for step in steps:
                package = step.apply(package, taught)
            raw = accuracy(package, splits)
            packages[name] = fw.Distill(epochs=2, lr=5e-4).apply(package, taught)
            told = {"seed": seed, "steps": name, "before recovery": raw, "accuracy": accuracy(packages[name], splits)}
            print(json.dumps(told), flush=True)
        speeds(packages, task, seed)


def accuracy(package: Package, splits: fw.Splits) -> float:
    return round(float((predict(package.module, splits.test).argmax(1) == splits.test.all_targets()).mean()), 4)


def speeds(packages: dict[str, Package], task: Task, seed: int, rounds: int = 150) -> None:
    """Medians of milliseconds, in turns, how many times as fast as the first, and the accuracy of
    the files on 2,000 images."""
    splits = task.splits()
    example = {k: torch.from_numpy(v) for k, v in task.example().items()}
    arrays = {k: v.numpy() for k, v in example.items()}
    calibration = {k: torch.from_numpy(v) for k, v in splits.train.batch(np.arange(64))[0].items()}
    x, y = splits.test.batch(np.arange(2000))
    for runtime in ("onnxruntime", "openvino"):
        for scheme in (None, "int8-static"):
            sessions, right = {}, {}
            for name, package in packages.items():
                none = Context(task, splits, 0, lambda _: None, lambda _: None, lambda _: None)
                made = fw.Quantize(scheme=scheme).apply(package, none) if scheme else package
                with tempfile.TemporaryDirectory() as folder:
                    target = Target(runtime)
                    target.load_runtime().export(made, example, calibration, target, Path(folder))
                    session = target.load_runtime().load(Path(folder), target, 1)
                sessions[name] = session
                out = [session.run({k: v[i : i + 1] for k, v in x.items()}) for i in range(len(y))]
                right[name] = float((np.concatenate(out).argmax(1) == y).mean())
            times: dict[str, list[float]] = {name: [] for name in sessions}
            for _ in range(rounds):
                for name, session in sessions.items():
                    start = time.perf_counter()
                    session.run(arrays)
                    times[name].append(time.perf_counter() - start)
            first = np.array(times["as it is"])
            for name, t in times.items():
                told = {
                    "seed": seed,
                    "runtime": runtime,
                    "scheme": scheme or "fp32",
                    "steps": name,
                    "ms": round(1e3 * float(np.median(t)), 3),
                    "times as fast": round(float(np.median(first / np.array(t))), 2),
                    "accuracy": round(right[name], 4),
                }
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
