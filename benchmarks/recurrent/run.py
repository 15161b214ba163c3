"""An LSTM that forecasts, and a keyword-like 1-D CNN, each made smaller and faster in several ways.

    python benchmarks/recurrent/run.py forecast --seeds 0 1 2
    python benchmarks/recurrent/run.py keyword --seeds 0 1 2

Prints one JSON line for each model: quality on the test rows (R^2, or accuracy), size of the file,
and speed against the original in floating point on ONNX Runtime, batch 1, one thread, interleaved.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import featherweight as fw
from featherweight.engine.runner import Runner
from featherweight.measure.probe import time_pair
from featherweight.store.artifacts import ArtifactStore
from featherweight.targets.base import Target
from featherweight.task.accept import task_of

TARGET, WINDOW, SECONDS = Target.parse("onnxruntime"), 48, 4.0


class Forecast(nn.Module):
    """[n, 48, 4] -> [n, 1]: an LSTM of 64 units, one linear layer on its last moment."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(4, 64, batch_first=True), nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0][:, -1])


def keyword_net() -> nn.Module:
    """[n, 40, 61] -> [n, 10]: four 1-D convolutions of 64 channels over time."""
    parts: list[nn.Module] = []
    for i, stride in ((40, 1), (64, 2), (64, 1), (64, 2)):
        parts += [nn.Conv1d(i, 64, 3, stride, padding=1, bias=False), nn.BatchNorm1d(64), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10))


def series(seed: int) -> dict[str, Any]:
    """Windows of an AR(2) process with a daily and a weekly season and noise, beside the hour and a
    signal that leads it by 3 moments; the next value is the target. Split by time."""
    rng = np.random.default_rng(seed)
    n = 6000
    t, noise, leading = np.arange(n), rng.normal(size=n), rng.normal(size=n).cumsum()
    leading = (leading - leading.mean()) / leading.std()
    value = np.zeros(n)
    for i in range(3, n):
        value[i] = 0.6 * value[i - 1] - 0.2 * value[i - 2] + 0.5 * leading[i - 3] + 0.3 * noise[i]
    value += np.sin(2 * np.pi * t / 24) * (1 + 0.5 * np.sin(2 * np.pi * t / 168))
    value = (value - value.mean()) / value.std()
    hour = 2 * np.pi * t / 24
    rows = np.stack([value, np.sin(hour), np.cos(hour), leading], 1).astype(np.float32)
    starts = np.arange(n - WINDOW)
    x, y = rows[starts[:, None] + np.arange(WINDOW)], rows[starts + WINDOW, :1]
    cut, end = int(0.6 * len(x)), int(0.8 * len(x))
    return {"train": (x[:cut], y[:cut]), "valid": (x[cut:end], y[cut:end]), "test": (x[end:], y[end:])}


def keywords(seed: int) -> dict[str, Any]:
    """Ten kinds of three strokes each in a plane of 40 bands and 61 moments, moved in time, bent
    and in noise."""
    shapes = np.random.default_rng(7).uniform(size=(10, 3, 3))  # band, slope, moment of each stroke
    rng, (bands, moments) = np.random.default_rng(seed), np.mgrid[:40, :61]

    def rows(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(10, size=n)
        x = rng.normal(scale=0.9, size=(n, 40, 61))
        for i, kind in enumerate(y):
            shift, bend = rng.uniform(-6, 6), rng.normal(scale=1.5)
            for band, slope, moment in shapes[kind]:
                at = 8 + 45 * moment + shift
                line = 5 + 30 * band + bend + (slope - 0.5) * (moments - at)
                x[i] += 1.5 * np.exp(-((bands - line) ** 2) / 4 - (moments - at) ** 2 / 30)
        return x.astype(np.float32), y

    return {"train": rows(2400), "valid": rows(600), "test": rows(1000)}


def trained(net: nn.Module, data: dict[str, Any], loss: Any, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    x, y = (torch.from_numpy(a) for a in data["train"])
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * (len(x) // 64))
    for _ in range(epochs):
        for at in torch.randperm(len(x))[: len(x) // 64 * 64].view(-1, 64):
            optimizer.zero_grad()
            loss(net(x[at]), y[at]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def by_hand(plain: Path, folder: Path) -> Path:
    """The one line that it takes without this package."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir()
    quantize_dynamic(plain / "model.onnx", folder / "model.onnx", weight_type=QuantType.QInt8)
    return folder


def ways(case: str, epochs: int) -> dict[str, fw.Recipe]:
    distil = fw.Distill(epochs=epochs, lr=3e-3)
    cut = fw.Prune(ratio=0.5, criterion="taylor", allocation="uniform")
    if case == "keyword":
        static = fw.Quantize(scheme="int8-static")
        return {"static int8": fw.Recipe(static), "half": fw.Recipe(cut, distil)} | {
            "half, static int8": fw.Recipe(cut, distil, static)
        }
    dynamic = fw.Quantize(scheme="int8-dynamic")
    thin = fw.Build(fw.RecurrentNet(in_channels=4, classes=1, time_first=True, hidden=24))
    small, quarter = fw.Quantize(scheme="weight-only"), fw.Prune(ratio=0.75, criterion="taylor")
    return {
        "dynamic int8": fw.Recipe(dynamic),
        "int8 weights": fw.Recipe(small),
        "half": fw.Recipe(cut, distil),
        "half, dynamic int8": fw.Recipe(cut, distil, dynamic),
        "half, int8 weights": fw.Recipe(cut, distil, small),
        "quarter, int8 weights": fw.Recipe(quarter, distil, small),
        "24 units from scratch, int8 weights": fw.Recipe(thin, fw.Distill(epochs=3 * epochs, lr=3e-3), small),
    }


def quality(session: Any, data: dict[str, Any], case: str, name: str) -> float:
    x, y = data["test"]
    got = np.concatenate([session.run({name: x[i : i + 1]}) for i in range(len(x))])
    if case == "keyword":
        return float((got.argmax(1) == y).mean())
    return float(1 - ((got - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def run(case: str, seed: int, epochs: int) -> None:
    forecast = case == "forecast"
    data = series(seed) if forecast else keywords(seed)
    loss = nn.functional.mse_loss if forecast else nn.functional.cross_entropy
    torch.manual_seed(seed)
    net = trained(Forecast() if forecast else keyword_net(), data, loss, 3 * epochs, seed)
    with tempfile.TemporaryDirectory() as tmp:
        task = task_of(net, data, loss=loss)
        runner = Runner(task, ArtifactStore(Path(tmp) / "store"), seed)
        plain = runner.artifact(fw.Recipe(), TARGET)
        folders = {"original": plain, "by hand: quantize_dynamic": by_hand(plain, Path(tmp) / "hand")}
        folders |= {name: runner.artifact(recipe, TARGET) for name, recipe in ways(case, epochs).items()}
        name = next(iter(task.example()))
        feed = {name: data["test"][0][:1]}
        base = TARGET.load_runtime().load(plain, TARGET, 1)
        for label, folder in folders.items():
            session = TARGET.load_runtime().load(folder, TARGET, 1)
            found = time_pair(lambda: base.run(feed), lambda s=session: s.run(feed), "cpu", SECONDS)
            row = {"case": case, "seed": seed, "model": label, "quality": quality(session, data, case, name)}
            row |= {"bytes": (folder / "model.onnx").stat().st_size, "speedup": found["speedup"]["ratio"]}
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["forecast", "keyword"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6, help="of distillation; the original is trained three times it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        run(args.case, seed, args.epochs)


if __name__ == "__main__":
    main()
