"""DARTS on the space of NAS-Bench-201 with Fashion-MNIST, against random search in equal time.

    python benchmarks/search/darts.py [--minutes 10] [--seeds 3] [--methods darts,gumbel,random]
        [--train 6000] [--width 8] [--cells 1]

Each method may use the training split only, cut in two as DARTS does, and the same minutes. darts,
gumbel: a supernet is trained and its best cell read off (`featherweight.train.relax`).
random: random cells are trained for `--proxy` epochs on one half, one after another until the time
is up, and the one with the best accuracy on the other half is taken. Then each cell is trained
alike, on the whole split, and judged on the test split. Also shown: the cell's regret on CIFAR-10
in NAS-Bench-201's table, where other data judge it. Results are in results/darts.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stats  # noqa: E402 (siblings lie beside this file)
import tables  # noqa: E402
from fashion import fashion_task  # noqa: E402

from featherweight.errors import InputError  # noqa: E402
from featherweight.nets.base import Net  # noqa: E402
from featherweight.nets.cell import EDGES, Cell
from featherweight.seeding import derive, generator  # noqa: E402
from featherweight.space import Filling, Space  # noqa: E402
from featherweight.task.data import Subset  # noqa: E402
from featherweight.train.loop import Settings, fit, predict  # noqa: E402
from featherweight.train.relax import run_relax  # noqa: E402


def accuracy(net: Net, task: Any, train: Any, judge: Any, epochs: int, seed: int) -> float:
    """Of the net, trained on `train`, on `judge`."""
    import numpy as np

    module = net.build(derive(seed, "initial") % 2**31)
    fit(
        module,
        train,
        lambda outputs, targets, index: task.loss_fn(outputs, targets),
        Settings(epochs, 3e-3, 64, warmup=0.1),
        seed=seed,
    )
    right = predict(module, judge).argmax(1) == np.concatenate([y for _, y in judge.batches(1024)])
    return float(right.mean())


def random_cell(task: Any, net: Cell, minutes: float, proxy: int, seed: int) -> tuple[Filling, str]:
    """The best of the random cells that the time allows (at least one), and how many they were."""
    train = task.splits().train
    order = generator(seed, "darts", "halves").permutation(len(train))
    fitted, judge = Subset(train, order[: len(order) // 2]), Subset(train, order[len(order) // 2 :])
    space, rng = Space(net), generator(seed, "darts", "random")
    start, found = time.monotonic(), []
    longest = 0.0
    while not found or time.monotonic() - start + longest <= 60 * minutes:
        filling, began = space.sample(rng), time.monotonic()
        cell = space.fill(filling)
        try:
            cell.check()
        except InputError:
            continue  # a cell that is a constant; DARTS cannot give one either
        found.append((accuracy(cell, task, fitted, judge, proxy, seed), len(found), filling))
        longest = max(longest, time.monotonic() - began)
    return max(found)[2], f"{len(found)} cells"


def relaxed_cell(task: Any, net: Cell, minutes: float, method: str, epochs: int, seed: int) -> tuple[Filling, str]:
    result = run_relax(task, net, {"method": method, "epochs": epochs, "minutes": minutes, "top": 1}, seed)
    return result[
        "filling"
    ], f"{sum(e['event'] == 'epoch' for e in result['log'])} epochs, stopped by {result['stopped'] or 'nothing'}"


def cifar_regret(filling: Filling) -> float:
    """Regret of the cell on CIFAR-10 in NAS-Bench-201, in points of validation accuracy."""
    return tables.load("nas201/cifar10").regret(filling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="darts,gumbel,random")
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=25, help="of the supernet, if the time allows them")
    parser.add_argument("--proxy", type=int, default=2, help="epochs of each random cell")
    parser.add_argument("--final", type=int, default=15, help="epochs of the cells that were found")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()
    task = fashion_task(args.train)
    net = Cell.space(in_channels=1, classes=10, width=args.width, cells=args.cells)
    lines = [
        "| method | seed | minutes | what it did | cell | accuracy on test, % | regret on CIFAR-10, points |",
        "|---|---|---|---|---|---|---|",
    ]
    scores: dict[str, list[float]] = {}
    for method in args.methods.split(","):
        for seed in range(args.seeds):
            start = time.monotonic()
            if method == "random":
                filling, did = random_cell(task, net, args.minutes, args.proxy, seed)
            else:
                filling, did = relaxed_cell(task, net, args.minutes, method, args.epochs, seed)
            took = (time.monotonic() - start) / 60
            splits = task.splits()
            score = 100 * accuracy(Space(net).fill(filling), task, splits.train, splits.test, args.final, seed)
            scores.setdefault(method, []).append(score)
            cell = " ".join(filling[f"op_{t}_{s}"] for t, s in EDGES)
            lines.append(
                f"| {method} | {seed} | {took:.1f} | {did} | {cell} | {score:.2f} | {cifar_regret(filling):.2f} |"
            )
            print(lines[-1], flush=True)
    lines += ["", "| method | accuracy on test, % |", "|---|---|"]
    for method, values in scores.items():
        mean = stats.of(values)
        lines.append(
            f"| {method} | {mean.mean:.2f}" + ("" if math.isnan(mean.error) else f" +- {mean.error:.2f}") + " |"
        )
    text = "\n".join(lines)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "darts.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
