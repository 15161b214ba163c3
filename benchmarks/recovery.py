"""What weight averaging, best weights by validation and new batch-norm statistics bring after a
cut, and whether longer recovery goes on from the short one or begins anew.

    python benchmarks/recovery.py examples/digits.py --ratio 0.7 --epochs 6 --seeds 0 1 2 3 4 5 6

The task's model is cut once; every seed distils it for `--epochs` ("short"), goes on for three
times as many from there with a new schedule ("continued"), and trains four times as many from the
cut ("anew"). After each epoch of the second half the weights, and their exponential average, are
scored.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import featherweight as fw
from featherweight.engine.runner import Runner
from featherweight.recipe import Recipe
from featherweight.store.artifacts import ArtifactStore, default_root
from featherweight.task.load import load_task
from featherweight.train.batch_norms import reestimate
from featherweight.train.loop import Settings, fit, predict
from featherweight.train.losses import soft_loss

DECAY = 0.99  # of the average, a step


class Trial:
    """task: classification; teacher: its logits on the training split."""

    def __init__(self, runner: Runner, settings: Settings) -> None:
        self.task, self.splits, self.settings = runner.task, runner.task.splits(), settings
        self.teacher = torch.from_numpy(runner.teacher_outputs(None))
        self.targets = {name: getattr(self.splits, name).all_targets() for name in ("valid", "test")}

    def scored(self, module: nn.Module, **what: Any) -> dict[str, Any]:
        """Loss on valid, accuracy on test."""
        out = {name: torch.from_numpy(predict(module, getattr(self.splits, name))) for name in self.targets}
        loss = float(cross_entropy(out["valid"], torch.from_numpy(self.targets["valid"])))
        right = float((out["test"].argmax(1).numpy() == self.targets["test"]).mean())
        return {**what, "loss": loss, "test": right}

    def trained(self, module: nn.Module, epochs: int, seed: int) -> tuple[nn.Module, list[dict[str, Any]]]:
        module = copy.deepcopy(module)
        average, rows, steps = copy.deepcopy(module), [], [0]

        def objective(out: torch.Tensor, y: torch.Tensor, index: Any) -> torch.Tensor:
            steps[0] += 1
            decay = min(DECAY, (1 + steps[0]) / (10 + steps[0]))
            with torch.no_grad():
                for mine, now in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
                    if mine.is_floating_point():
                        mine.mul_(decay).add_(now, alpha=1 - decay)
                    else:
                        mine.copy_(now)
            return 0.3 * self.task.loss_fn(out, y) + 0.7 * soft_loss(out, self.teacher[index], "kl", 2.0)

        def report(told: dict[str, Any]) -> None:
            if 2 * told["epoch"] >= told["of"]:
                rows.append(self.scored(module, kind="last", epoch=told["epoch"]))
                rows.append(self.scored(average, kind="average", epoch=told["epoch"]))
                module.train()

        fit(
            module,
            self.splits.train,
            objective,
            Settings(epochs, self.settings.lr, self.settings.batch_size, "adamw", "cosine", warmup=0.1),
            seed=seed,
            report=report,
        )
        again = copy.deepcopy(module)
        reestimate(again, self.splits.train, 256)
        rows.append(self.scored(again, kind="statistics", epoch=epochs))
        return module, rows


def told(rows: list[dict[str, Any]], epochs: int) -> dict[str, float]:
    """Test accuracy by each way of choosing the weights."""
    out = {r["kind"]: r["test"] for r in rows if r["epoch"] == epochs}
    steps = [r for r in rows if r["kind"] != "statistics"]
    return out | {"best by valid": min(steps, key=lambda r: r["loss"])["test"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--ratio", type=float, default=0.7)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    runner = Runner(load_task(args.task), ArtifactStore(default_root()), seed=0)
    trial = Trial(runner, Settings(args.epochs, args.lr, args.batch_size))
    cut, _ = runner.model(Recipe(fw.Prune(ratio=args.ratio, criterion="magnitude", allocation="sensitivity")))
    adapted = copy.deepcopy(cut.module)
    reestimate(adapted, trial.splits.train, 256)
    for name, module in (("cut", cut.module), ("cut, statistics anew", adapted)):
        print(f"{name}: {trial.scored(module)['test']:.2%}")
    found: dict[str, list[dict[str, float]]] = {"short": [], "continued": [], "anew": []}
    for seed in args.seeds:
        short, rows = trial.trained(cut.module, args.epochs, seed)
        found["short"].append(told(rows, args.epochs))
        found["continued"].append(told(trial.trained(short, 3 * args.epochs, seed + 100)[1], 3 * args.epochs))
        found["anew"].append(told(trial.trained(cut.module, 4 * args.epochs, seed + 200)[1], 4 * args.epochs))
        print(f"seed {seed}: {', '.join(f'{k} {v[-1]}' for k, v in found.items())}", flush=True)
    print("| | " + " | ".join(found["short"][0]) + " |")
    for name, each in found.items():
        cells = [[100 * one[kind] for one in each] for kind in each[0]]
        means = [f"{statistics.fmean(c):.2f} ± {statistics.stdev(c) if len(c) > 1 else 0:.2f}" for c in cells]
        print(f"| {name} | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
