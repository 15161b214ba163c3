"""A real search on Fashion-MNIST: architecture and training together, against the fixed sensible
net with the same budget.

    python benchmarks/search/fashion.py [--minutes 30] [--strategy adaptive]
        [--stopper "asha(min_budget=0.1)"] [--out runs/search/fashion]
    python benchmarks/search/fashion.py --minutes 3 --train 3000          (a look)

Two studies, one after the other, each with all of the minutes: `search` (fw.search's own recipe:
net and training have holes) and `fixed` (the sensible net; the same training holes), so that what
is compared is the search of the architecture alone. Both front tables hold the sensible net with
its fixed training as the baseline. Accuracy is on the validation split for every trial, on the test
split (with the certificate) for the winners; latency is of the ONNX file, one thread. Writes
results/fashion.md, results/fashion.json and results/fashion.png. Needs the data: sudo apt-get
install dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import featherweight as fw
from featherweight.recipe import Recipe
from featherweight.seeding import generator
from featherweight.task.data import Subset
from featherweight.task.splitting import given

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "fashion_cnn.py"


def fashion_task(train: int | None = None) -> fw.Task:
    """Fashion-MNIST without a model. train: only so many samples of the training split."""
    spec = importlib.util.spec_from_file_location("_fashion_example", EXAMPLE)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{EXAMPLE} is not there")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    def data() -> Any:
        splits = example.data()
        if train is None or train >= len(splits.train):
            return splits
        return given(
            Subset(splits.train, generator(0, "fewer").permutation(len(splits.train))[:train]),
            splits.valid,
            splits.test,
        )

    return fw.Task(name="fashion-search", model=None, data=data, sources=(str(EXAMPLE), __file__))


def recipes(task: fw.Task, stopped: bool = False) -> dict[str, Recipe]:
    """The searched recipe, and the same with the sensible net in the place of the searched one."""
    from featherweight.recipes import fixed, search

    searched = search(task, stopped=stopped)
    build = fixed(task, searched).steps[0]
    return {"search": searched, "fixed": Recipe(build, *searched.steps[1:])}


def row(study: str, entry: Any) -> dict[str, Any]:
    return {
        "study": study,
        "label": entry.label,
        "params": entry.params,
        "macs": entry.macs,
        "latency_ms": entry.latency_ms.median,
        "size_bytes": entry.size_bytes,
        "valid": entry.metric.value,
        "certificate": entry.certificate or {},
        "recipe": entry.recipe,
    }


def plot(trials: list[dict[str, Any]], baselines: list[dict[str, Any]], path: Path) -> None:
    """Accuracy on validation against parameters and against latency; every trial a dot, the
    baseline a star, fronts as steps."""
    from matplotlib.figure import Figure

    from featherweight.pareto import front

    figure = Figure(figsize=(11, 4.5))
    for axes, quantity, name in zip(
        figure.subplots(1, 2), ("params", "latency_ms"), ("parameters", "latency, ms (one thread)"), strict=True
    ):
        for study, colour in (("search", "tab:blue"), ("fixed", "tab:orange")):
            dots = [t for t in trials if t["study"] == study]
            if not dots:
                continue  # no trial was complete in time
            points = [(float(t[quantity]), -float(t["valid"])) for t in dots]
            axes.scatter(
                [x for x, _ in points],
                [-y for _, y in points],
                s=14,
                alpha=0.6,
                color=colour,
                label=f"{study} ({len(dots)})",
            )
            best = sorted(points[i] for i in front(points))
            axes.step([x for x, _ in best], [-y for _, y in best], where="post", color=colour, linewidth=1)
        axes.plot(
            [b[quantity] for b in baselines],
            [b["valid"] for b in baselines],
            "k*",
            markersize=10,
            label="sensible net, fixed training",
        )
        values = [row[quantity] for row in (*trials, *baselines)]
        if max(values) > 5 * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(name)
        axes.set_ylabel("accuracy on validation")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=130, bbox_inches="tight")


def table(winners: list[dict[str, Any]]) -> str:
    lines = [
        "| study | | parameters | MACs | latency, ms | size, bytes | valid | certificate on test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for w in winners:
        c = w["certificate"]
        said = (
            f"{c['verdict']}: drop {100 * c['drop']:.2f} [{100 * c['ci95'][0]:.2f}, {100 * c['ci95'][1]:.2f}] points"
            if "drop" in c
            else "-"
        )
        cells = (
            w["study"],
            w["label"],
            f"{w['params']:,}",
            f"{w['macs']:,}",
            f"{w['latency_ms']:.3f}",
            f"{w['size_bytes']:,}",
            f"{100 * w['valid']:.2f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} | {said} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of each of the two studies")
    parser.add_argument("--strategy", default="adaptive")
    parser.add_argument("--stopper", default="asha(min_budget=0.1)", help="`none` for none")
    parser.add_argument(
        "--max-macs", default="1x", help="limit of both: as many multiply-accumulates as the sensible net has"
    )
    parser.add_argument("--train", type=int, help="only so many training samples")
    parser.add_argument(
        "--studies",
        default="search,fixed",
        help="which of them; studies that are there are only read once their time is up",
    )
    parser.add_argument(
        "--store",
        type=Path,
        help="a store for both, so that the baseline is trained once, before them [default: one each]",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/search/fashion"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    task = fashion_task(args.train)
    winners: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    baselines: list[dict[str, Any]] = []
    for name, recipe in recipes(task, args.stopper != "none").items():
        if name not in args.studies.split(","):
            continue
        if args.store is None:
            # each trains its own baseline: equal budgets
            os.environ["FEATHERWEIGHT_CACHE"] = str((args.out / name / "store").resolve())
        else:
            os.environ["FEATHERWEIGHT_CACHE"] = str(args.store.resolve())
        study = fw.search(
            task,
            recipe,
            strategy=args.strategy,
            stopper=None if args.stopper == "none" else args.stopper,
            constraints=[fw.max_macs(args.max_macs)],
            minimize=["error", "latency"],
            budget=fw.Budget(minutes=args.minutes),
            seed=args.seed,
            workers=args.workers,
            out=args.out / name,
        )
        baselines.append(row(name, study.state.baselines["baseline"]))
        winners += [row(name, e) for e in study.state.front()]
        trials += [row(name, r.entry) for r in study.state.rows if r.entry is not None]
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "fashion.json").write_text(
        json.dumps({"front": winners, "trials": trials, "minutes": args.minutes, "seed": args.seed}, indent=1)
    )
    plot(trials, baselines, args.results / "fashion.png")
    text = table(winners)
    (args.results / "fashion.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
