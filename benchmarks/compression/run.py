"""Ours against the peers on one task: speed, size, accuracy and wall time, all in one run, on the
same data, threads and epochs.

    pip install --no-deps -r benchmarks/compression/requirements.txt
    python benchmarks/compression/run.py fashion-residual [--epochs 3] [--trials 12]
        [--minutes 20] [--out results]

Every file, ours and theirs, is measured by the same probe, in a fresh process, interleaved with the
fp32 original on ONNX Runtime (one thread, batch 1), and judged on the same test split. A peer that
fails is a row that says why. `--only ours` or `--only peers` runs a part; parts that are there
already are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
TASKS = {
    "fashion-residual": HERE.parents[1] / "examples" / "fashion_cnn.py",
    "fashion-mobile": HERE / "tasks" / "fashion_mobile.py",
    "encoder-bbc": HERE.parents[1] / "examples" / "encoder_bbc.py",
    "encoder-spam": HERE / "tasks" / "encoder_spam.py",
}
MAX_DROP = 0.01


def baseline(name: str, out: Path) -> tuple[Any, Any, Path]:
    """(runner, package, artifact folder) of the trained fp32 original;
    trained once, kept in the artifact store."""
    from featherweight.engine.runner import Runner
    from featherweight.recipe import Recipe
    from featherweight.store.artifacts import ArtifactStore, default_root
    from featherweight.targets.base import Target
    from featherweight.task.load import load_task

    runner = Runner(load_task(TASKS[name]), ArtifactStore(default_root()), seed=0)
    package, _ = runner.model(Recipe())
    return runner, package, runner.artifact(Recipe(), Target())


def measured(runner: Any, artifact: Path, target: str, reference: Path, work: Path) -> dict[str, Any]:
    """Latency against the reference, size, and the outputs on test."""
    from featherweight.measure.run import measure
    from featherweight.targets.base import Target

    got = measure(
        artifact,
        Target.parse(target),
        reference=(reference, Target()),
        example=runner.task.example(),
        inputs=runner.inputs("test"),
        seconds=6.0,
        timeout_s=900,
        workdir=work,
    )
    files = [p for p in artifact.iterdir() if p.name != "manifest.json"]
    return {"target": target, "size_bytes": sum(p.stat().st_size for p in files), **got.to_json()}


def judged(runner: Any, outputs: Path, base_outputs: Path) -> dict[str, Any]:
    import numpy as np

    from featherweight.measure.accuracy import evaluate, metric
    from featherweight.measure.certificate import certify

    mine, base, y = np.load(outputs), np.load(base_outputs), runner.targets("test")
    m = metric(runner.task.metric)
    return {"accuracy": evaluate(m, mine, y, seed=0).value, "certificate": certify(m, base, mine, y, MAX_DROP, seed=0)}


def run_peers(name: str, epochs: int, out: Path) -> list[dict[str, Any]]:
    import torch
    from peers import CNN, ENCODER, Case
    from torch import nn

    from featherweight.train.loop import Settings

    runner, package, _ = baseline(name, out)
    task = runner.task
    trained = next(s for s in task.baseline.steps)
    settings = Settings(
        epochs,
        trained.lr / 2,
        trained.batch_size,
        trained.optimizer,
        "cosine",
        trained.weight_decay,
        trained.momentum,
        0.1,
    )
    example = {k: torch.from_numpy(v.copy()) for k, v in task.example().items()}
    case = Case(task, task.splits(), package.module, settings, example)
    table = CNN if any(isinstance(m, nn.Conv2d) for m in package.module.modules()) else ENCODER
    rows = []
    for label, peer in table.items():
        folder = out / "peers" / label.replace(" ", "-").replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        try:
            target = peer(case, folder)
            rows.append({"label": label, "folder": str(folder), "target": target, "seconds": time.monotonic() - start})
        except Exception as e:  # a peer's failure is a result
            traceback.print_exc()
            rows.append({"label": label, "failed": f"{type(e).__name__}: {str(e)[:200]}"})
        print(f"{label}: {rows[-1].get('failed', 'done')} ({time.monotonic() - start:.0f} s)", flush=True)
    return rows


def run_ours(name: str, trials: int, minutes: float, floor: float, out: Path, recipe_name: str) -> list[dict[str, Any]]:
    import featherweight as fw
    from featherweight.recipe import Recipe

    recipe = Recipe.from_yaml(Path(recipe_name).read_text()) if recipe_name else None
    study = fw.optimize(
        str(TASKS[name]),
        recipe,
        target="auto",
        constraints=[fw.max_drop(floor)],
        minimize=["latency", "size"],
        budget=fw.Budget(trials=trials, minutes=minutes),
        out=out / f"study-{floor}",
    )
    found = study.best or study.nearest
    if found is None:
        raise SystemExit("the study has no candidate")
    entry = found.entry
    print(study.front.to_string())
    return [
        {
            "label": "Featherweight",
            "folder": entry.artifact,
            "target": entry.target,
            "seconds": study.state.spent_s,  # of all calls that made this study
            "recipe": str(Recipe.from_json(entry.recipe)),
            "trials": len(study.trials()),
        }
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | speedup [95 %] | size | accuracy | drop [95 %], points | certificate | wall time, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "failed" in r:
            lines.append(f"| {r['label']} | failed: {r['failed']} | | | | | |")
            continue
        s, c = r["speedup"], r["certificate"]
        interval = f"[{s['ci95'][0]:.2f}, {s['ci95'][1]:.2f}]"
        drop = f"{100 * c['drop']:.2f} [{100 * c['ci95'][0]:.2f}, {100 * c['ci95'][1]:.2f}]"
        lines.append(
            f"| {r['label']} ({r['target']}) | {s['ratio']:.2f}x {interval} | {r['size_ratio']:.1f}x smaller | "
            f"{100 * r['accuracy']:.2f} | {drop} | {c['verdict']} | {r['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning, for every peer that trains")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument(
        "--floor",
        type=float,
        default=MAX_DROP,
        help="largest drop on valid; below a point leaves room for the certificate's interval",
    )
    parser.add_argument("--recipe", default="", help="a YAML recipe for ours (default: the task's, or the kind's)")
    parser.add_argument("--only", choices=("ours", "peers", "measure"))
    parser.add_argument("--out", default="runs/compression")
    args = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out = (Path(args.out) / args.task).resolve()
    out.mkdir(parents=True, exist_ok=True)
    made = out / "made.json"
    rows: dict[str, Any] = json.loads(made.read_text()) if made.exists() else {}
    if args.only in (None, "peers") and "peers" not in rows:
        rows["peers"] = run_peers(args.task, args.epochs, out)
        made.write_text(json.dumps(rows, indent=1))
    if args.only in (None, "ours"):
        rows["ours"] = run_ours(args.task, args.trials, args.minutes, args.floor, out, args.recipe)
        made.write_text(json.dumps(rows, indent=1))
    runner, _, reference = baseline(args.task, out)
    all_rows = [
        {"label": "original", "folder": str(reference), "target": "onnxruntime", "seconds": 0.0},
        *rows.get("peers", []),
        *rows.get("ours", []),
    ]
    base_outputs: Path | None = None
    kept = []
    with tempfile.TemporaryDirectory() as tmp:
        for i, r in enumerate(all_rows):
            if "failed" not in r:
                work = Path(tmp) / str(i)
                try:
                    r |= measured(runner, Path(r["folder"]), r["target"], reference, work)
                    base_outputs = base_outputs or Path(r["outputs"])
                    r |= judged(runner, Path(r["outputs"]), base_outputs)
                    r["size_ratio"] = all_rows[0]["size_bytes"] / r["size_bytes"]
                except Exception as e:  # a file that cannot be run is a result
                    r["failed"] = f"{type(e).__name__}: {str(e)[:300]}"
            kept.append(r)
    (out / "results.json").write_text(json.dumps(kept, indent=1))
    text = table(kept)
    (out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
