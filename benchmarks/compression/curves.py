"""Accuracy against ratio for every pruning criterion, and against size for every quantization
scheme, on one task, with plots.

    python benchmarks/compression/curves.py [--task examples/digits.py] [--epochs 2] [--seeds 3]
        [--out runs/curves]

Pruning: channels, the same ratio in every layer, one cut; accuracy on test before recovery and
after `--epochs` of distillation. Dashed: Torch-Pruning's own importances on the same model, cut and
recovered in the same way. Weights: single weights set to zero, before recovery, one ranking over
all layers where the criterion allows it. Quantization: the exported file on ONNX Runtime;
crosses: its own quantizer. Means over seeds; the band is one standard deviation.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
RATIOS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
REFERENCE = {
    "magnitude": "GroupMagnitudeImportance",
    "taylor": "GroupTaylorImportance",
    "fpgm": "FPGMImportance",
    "lamp": "LAMPImportance",
}
SCHEMES: dict[str, dict[str, Any]] = {
    **{f"static {c}, per channel": {"calibrate": c} for c in ("minmax", "percentile", "mse", "entropy")},
    "static minmax, per tensor": {"granularity": "tensor"},
    "static minmax, s8": {"activations": "s8"},
    "static, CLE + bias correction": {"equalize": "cle", "correct_bias": True},
    "static, GPTQ": {"rounding": "gptq"},
    "dynamic": {"scheme": "int8-dynamic"},
    "weight-only 16": {"scheme": "weight-only", "bits": 16},
    "weight-only 8": {"scheme": "weight-only"},
    **{
        f"weight-only 4, {g}, {r}, {a}": {
            "scheme": "weight-only",
            "bits": 4,
            "granularity": g,
            "rounding": r,
            "range": a,
            "group": 32,
        }
        for g in ("channel", "group")
        for r, a in (("nearest", "minmax"), ("nearest", "mse"), ("gptq", "minmax"))
    },
}


class Bench:
    """The trained baseline of a task, and what is done to it."""

    def __init__(self, task: str, epochs: int, seed: int) -> None:
        from featherweight.engine.runner import Runner
        from featherweight.recipe import Recipe
        from featherweight.seeding import derive
        from featherweight.store.artifacts import ArtifactStore, default_root
        from featherweight.task.load import load_task
        from featherweight.transforms.base import Context
        from featherweight.transforms.distill import Distill

        self.runner = Runner(load_task(task), ArtifactStore(default_root()), seed=seed)
        self.task, self.splits = self.runner.task, self.runner.task.splits()
        self.package, _ = self.runner.model(Recipe())
        self.context = Context(
            self.task,
            self.splits,
            derive(seed, "curves"),
            self.runner.teacher,
            self.runner.teacher_outputs,
            report=lambda _: None,
        )
        trained = self.task.baseline.steps[0]
        self.recovery = Distill(epochs=epochs, lr=trained.lr, batch_size=trained.batch_size, warmup=0.1)
        self.y = self.runner.targets("test")

    def accuracy(self, outputs: np.ndarray) -> float:
        from featherweight.measure.accuracy import evaluate, metric

        return float(evaluate(metric(self.task.metric), outputs, self.y, seed=0).value)

    def of(self, package: Any) -> float:
        from featherweight.train.loop import predict

        return self.accuracy(predict(package.module, self.splits.test))

    def recovered(self, package: Any) -> float:
        return self.of(self.recovery.apply(package, self.context))

    def ours(self, **fields: Any) -> Any:
        from featherweight.transforms.prune import Prune

        return Prune(**fields).apply(self.package, self.context)

    def theirs(self, importance: str, ratio: float) -> Any:
        """Torch-Pruning with one of its importances, on the batches that ours sees."""
        import torch
        import torch_pruning as tp
        from torch import nn

        module = copy.deepcopy(self.package.module)
        rows = self.context.calibration(2)
        if "Taylor" in importance:
            x, y = self.splits.train.batch(np.arange(min(512, len(self.splits.train))))
            inputs = [torch.from_numpy(np.ascontiguousarray(v)) for v in x.values()]
            self.task.loss_fn(module(*inputs), torch.from_numpy(np.ascontiguousarray(y))).backward()
        last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
        judge = getattr(tp.importance, importance)()
        tp.pruner.MetaPruner(
            module, tuple(rows.values()), importance=judge, pruning_ratio=ratio, ignored_layers=[last]
        ).step()
        return self.package.edited(module=module.eval())


def pruning(bench: Bench) -> Iterator[dict[str, Any]]:
    from featherweight import registry

    for kind in registry.names("models.criteria"):
        for ratio in RATIOS:
            cut = bench.ours(ratio=ratio, criterion=kind, allocation="uniform", round_to=1)
            yield {
                "what": "channels",
                "method": kind,
                "ours": 1,
                "x": ratio,
                "before": bench.of(cut),
                "after": bench.recovered(cut),
            }
    for kind, importance in REFERENCE.items():
        for ratio in RATIOS:
            cut = bench.theirs(importance, ratio)
            yield {
                "what": "channels",
                "method": kind,
                "ours": 0,
                "x": ratio,
                "before": bench.of(cut),
                "after": bench.recovered(cut),
            }


def weights(bench: Bench) -> Iterator[dict[str, Any]]:
    rows: list[tuple[str, dict[str, Any]]] = [
        *((k, {"criterion": k}) for k in ("magnitude", "l1", "taylor", "wanda", "obs", "lamp", "random")),
        ("obs + update (SparseGPT)", {"criterion": "obs", "update": True}),
    ]
    for name, fields in rows:
        for sparsity in SPARSITIES:
            cut = bench.ours(ratio=sparsity, granularity="weight", allocation="global", **fields)
            yield {"what": "weights", "method": name, "ours": 1, "x": sparsity, "before": bench.of(cut)}
        cut = bench.ours(granularity="2:4", **fields)
        yield {
            "what": "2:4",
            "method": name,
            "ours": 1,
            "x": 0.5,
            "before": bench.of(cut),
            "after": bench.recovered(cut),
        }


def quantization(bench: Bench) -> Iterator[dict[str, Any]]:
    import torch
    from peers import Case, ort_static

    from featherweight.graphs.parity import run_rows
    from featherweight.recipe import Recipe
    from featherweight.targets.base import Target
    from featherweight.train.loop import Settings
    from featherweight.transforms.quantize import Quantize

    target = Target()
    runtime = target.load_runtime()
    rows = all_inputs(bench)
    example = {k: torch.from_numpy(v.copy()) for k, v in bench.task.example().items()}

    def run(folder: Path) -> float:
        return bench.accuracy(run_rows(runtime.load(folder, target, 1), rows, 1))

    for name, fields in {"fp32": None, **SCHEMES}.items():
        recipe = Recipe() if fields is None else Recipe(Quantize(**{"samples": 256, **fields}))
        folder = bench.runner.artifact(recipe, target)
        size = json.loads((folder / "manifest.json").read_text())["size_bytes"]
        yield {"what": "quantization", "method": name, "ours": 1, "x": size, "before": run(folder)}
    with tempfile.TemporaryDirectory() as tmp:
        case = Case(bench.task, bench.splits, bench.package.module, Settings(1, 1e-3, 64), example)
        ort_static(case, Path(tmp))
        size = (Path(tmp) / "model.onnx").stat().st_size
        yield {
            "what": "quantization",
            "method": "ONNX Runtime's static int8",
            "ours": 0,
            "x": size,
            "before": run(Path(tmp)),
        }


def all_inputs(bench: Bench) -> dict[str, np.ndarray]:
    parts = [
        bench.splits.test.batch(np.arange(s, min(s + 512, len(bench.splits.test))))[0]
        for s in range(0, len(bench.splits.test), 512)
    ]
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def curve(axis: Any, rows: list[dict[str, Any]], value: str) -> None:
    """Mean and one standard deviation over seeds, one line a method."""
    import matplotlib.pyplot as plt

    colours = {m: plt.get_cmap("tab10")(i % 10) for i, m in enumerate(dict.fromkeys(r["method"] for r in rows))}
    for method, ours in dict.fromkeys((r["method"], r["ours"]) for r in rows):
        mine = [r for r in rows if (r["method"], r["ours"]) == (method, ours) and r.get(value) is not None]
        xs = sorted({r["x"] for r in mine})
        means = np.array([np.mean([r[value] for r in mine if r["x"] == x]) for x in xs])
        stds = np.array([np.std([r[value] for r in mine if r["x"] == x]) for x in xs])
        label = method if ours else f"{method} (Torch-Pruning)"
        axis.plot(
            xs,
            means,
            "-" if ours else "--",
            color=colours[method],
            label=label,
            marker="." if ours else "x",
            linewidth=1.4,
        )
        axis.fill_between(xs, means - stds, means + stds, color=colours[method], alpha=0.08, linewidth=0)
    axis.grid(alpha=0.3)


def plots(rows: list[dict[str, Any]], baseline: float, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(19, 6), sharey=True)
    channels = [r for r in rows if r["what"] == "channels"]
    for axis, value, title in (
        (axes[0], "before", "channels, before recovery"),
        (axes[1], "after", "channels, after recovery"),
    ):
        curve(axis, channels, value)
        axis.set(title=title, xlabel="share of the channels removed, the same in every layer")
    curve(axes[2], [r for r in rows if r["what"] == "weights"], "before")
    axes[2].set(title="single weights, before recovery", xlabel="share of the weights set to zero")
    for axis in axes:
        axis.axhline(baseline, color="k", linewidth=0.8)
        axis.legend(fontsize=8, loc="lower left")
    axes[0].set_ylabel("test accuracy")
    figure.tight_layout()
    figure.savefig(out / "pruning.png", dpi=110)
    table = [r for r in rows if r["what"] == "quantization"]
    names = list(dict.fromkeys(r["method"] for r in table))
    figure, axis = plt.subplots(figsize=(11, 0.34 * len(names) + 1.2))
    for i, name in enumerate(names):
        mine = [r for r in table if r["method"] == name]
        axis.errorbar(
            np.mean([r["before"] for r in mine]),
            i,
            xerr=np.std([r["before"] for r in mine]),
            fmt="o" if mine[0]["ours"] else "x",
            color="C0",
        )
    sizes = {n: np.mean([r["x"] for r in table if r["method"] == n]) / 1000 for n in names}
    axis.set_yticks(range(len(names)), [f"{n}  ({sizes[n]:.0f} kB)" for n in names], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(baseline, color="k", linewidth=0.8)
    axis.set(
        xlabel="test accuracy of the exported file on ONNX Runtime",
        title="quantization schemes; x: the runtime's own quantizer",
    )
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out / "quantization.png", dpi=110)


def summary(rows: list[dict[str, Any]]) -> str:
    """Ours against the reference where both exist: the mean difference in points over ratios and
    seeds, with its standard error."""
    lines = ["| criterion | ours - Torch-Pruning before recovery, points | after |", "|---|---|---|"]
    for kind in REFERENCE:
        cells = []
        for value in ("before", "after"):
            pairs: dict[Any, dict[int, float]] = {}
            for r in rows:
                if r["what"] == "channels" and r["method"] == kind:
                    pairs.setdefault((r["x"], r["seed"]), {})[r["ours"]] = r[value]
            gaps = np.array([100 * (p[1] - p[0]) for p in pairs.values() if len(p) == 2])
            cells.append(f"{gaps.mean():+.2f} ± {gaps.std(ddof=1) / np.sqrt(len(gaps)):.2f}")
        lines.append(f"| {kind} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="examples/digits.py")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/curves")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    baselines = []
    parts: tuple[Callable[[Bench], Iterator[dict[str, Any]]], ...] = (pruning, weights, quantization)
    for seed in range(args.seeds):
        bench = Bench(args.task, args.epochs, seed)
        baselines.append(bench.of(bench.package))
        for part in parts:
            for row in part(bench):
                rows.append({"seed": seed, **row})
            print(f"seed {seed}: {part.__name__} done", flush=True)
    with (out / "curves.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, ["seed", "what", "method", "ours", "x", "before", "after"])
        writer.writeheader()
        writer.writerows(rows)
    plots(rows, float(np.mean(baselines)), out)
    text = summary(rows)
    (out / "reference.md").write_text(text + "\n")
    print(f"baseline {100 * np.mean(baselines):.2f}\n{text}")


if __name__ == "__main__":
    main()
