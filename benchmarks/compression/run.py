"""Ours against the peers on one task: speed, size, accuracy and wall time, all in one run, on the
same data, threads and epochs.

    pip install --no-deps -r benchmarks/compression/requirements.txt
    python benchmarks/compression/run.py fashion-residual [--trials 12] [--minutes 20] [--out DIR]

Every file, ours and theirs, is measured by the same probe, in three fresh processes, interleaved
with the fp32 original on ONNX Runtime (one thread, batch 1), and judged on the same test split.
Ours runs first: every peer that trains then has as many epochs as the recipe of our best
(`--epochs`: another number). Peers are certified as ours is: the files of one tool are a family,
looked at in the order of their chance on validation, each at the level that the looks before leave.
A peer that fails is a row that says why. `--only ours` or `--only peers` runs a part; parts that
are there already are kept.
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
    """Latency against the reference, size, and the outputs on valid and test."""
    from featherweight.measure.run import measure
    from featherweight.study.speeds import Spread, anew
    from featherweight.targets.base import Target

    got = {
        split: measure(
            artifact,
            Target.parse(target),
            reference=(reference, Target()),
            example=runner.task.example(),
            inputs=runner.inputs(split) if split else None,
            seconds=4.0,
            timeout_s=900,
            workdir=work / (split or "again"),
        )
        for split in ("valid", "test", "")
    }
    files = [p for p in artifact.iterdir() if p.name != "manifest.json"]
    return {
        "target": target,
        "size_bytes": sum(p.stat().st_size for p in files),
        "latency_ms": got["test"].latency_ms.to_json(),
        "speedup": anew([one.speedup for one in got.values()], Spread()).to_json(),
        "outputs": {split: str(got[split].outputs) for split in ("valid", "test")},
    }


def judged(runner: Any, rows: list[dict[str, Any]]) -> None:
    """Accuracy of each row, and the certificates of each family: rows[0] is the original."""
    import numpy as np

    from featherweight.measure.accuracy import evaluate, metric
    from featherweight.measure.certificate import certify
    from featherweight.measure.paired import compare
    from featherweight.proof.chance import chance
    from featherweight.proof.levels import next_level

    m, seed = metric(runner.task.metric), 0
    y = {split: runner.targets(split) for split in ("valid", "test")}
    base = {split: np.load(rows[0]["outputs"][split]) for split in y}
    families: dict[str, list[dict[str, Any]]] = {}
    for r in (r for r in rows if "failed" not in r):
        mine = {split: np.load(r["outputs"][split]) for split in y}
        r["accuracy"] = evaluate(m, mine["test"], y["test"], seed=seed).value
        r["chance"] = chance(compare(m, base["valid"], mine["valid"], y["valid"], seed)[0], len(y["test"]), MAX_DROP)
        families.setdefault(r["label"].split(" ")[0], []).append(r)
    for family in families.values():
        passed: list[bool] = []
        for r in sorted(family, key=lambda r: -r["chance"]):
            if r.get("certificate"):  # ours comes with the one that its study gave
                continue
            mine = np.load(r["outputs"]["test"])
            r["certificate"] = certify(m, base["test"], mine, y["test"], MAX_DROP, seed, next_level(passed))
            passed.append(r["certificate"]["verdict"] == "certified")


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


def run_ours(name: str, trials: int, minutes: float, seed: int, out: Path, recipe_name: str) -> list[dict[str, Any]]:
    import featherweight as fw
    from featherweight.recipe import Recipe
    from featherweight.recipes import default
    from featherweight.task.load import load_task

    recipe = Recipe.from_yaml(Path(recipe_name).read_text()) if recipe_name else None
    threads = os.cpu_count() or 1
    study = fw.optimize(
        str(TASKS[name]),
        recipe or default(load_task(TASKS[name]), minutes, threads // max(1, threads // 2), trials),
        target="auto",
        constraints=[fw.max_drop(MAX_DROP)],
        minimize=["latency", "size"],
        budget=fw.Budget(trials=trials, minutes=minutes),
        seed=seed,
        out=out / "study",
    )
    found = study.best or study.nearest
    if found is None:
        raise SystemExit("the study has no candidate")
    entry = found.entry
    print(study.front.to_string())
    full = Recipe.from_json(entry.recipe)
    return [
        {
            "label": "Featherweight",
            "folder": entry.artifact,
            "target": entry.target,
            "seconds": study.state.spent_s,  # of all calls that made this study
            "recipe": str(full),
            "epochs": sum(getattr(s, "epochs", 0) for s in full.steps),
            "trials": len(study.trials()),
            "certificate": entry.certificate,
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
    parser.add_argument("--epochs", type=int, help="of fine-tuning, for every peer that trains")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of our study")
    parser.add_argument("--recipe", default="", help="a YAML recipe for ours (default: the default recipe)")
    parser.add_argument("--only", choices=("ours", "peers", "measure"))
    parser.add_argument("--out", default="runs/compression")
    args = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out = (Path(args.out) / args.task).resolve()
    out.mkdir(parents=True, exist_ok=True)
    made = out / "made.json"
    rows: dict[str, Any] = json.loads(made.read_text()) if made.exists() else {}
    runner, _, reference = baseline(args.task, out)  # trained before anybody's clock runs
    if args.only in (None, "ours") and "ours" not in rows:
        rows["ours"] = run_ours(args.task, args.trials, args.minutes, args.seed, out, args.recipe)
        made.write_text(json.dumps(rows, indent=1))
    if args.only in (None, "peers") and "peers" not in rows:
        if args.epochs is None and "ours" not in rows:
            raise SystemExit("peers have as many epochs as ours: run ours first, or give --epochs")
        rows["peers"] = run_peers(args.task, args.epochs or rows["ours"][0]["epochs"], out)
        made.write_text(json.dumps(rows, indent=1))
    all_rows = [
        {"label": "original", "folder": str(reference), "target": "onnxruntime", "seconds": 0.0},
        *rows.get("peers", []),
        *rows.get("ours", []),
    ]
    with tempfile.TemporaryDirectory() as tmp:
        for i, r in enumerate(all_rows):
            if "failed" in r:
                continue
            try:
                r |= measured(runner, Path(r["folder"]), r["target"], reference, Path(tmp) / str(i))
                r["size_ratio"] = all_rows[0]["size_bytes"] / r["size_bytes"]
            except Exception as e:  # a file that cannot be run is a result
                r["failed"] = f"{type(e).__name__}: {str(e)[:300]}"
        judged(runner, all_rows)
    (out / "results.json").write_text(json.dumps(all_rows, indent=1))
    text = table(all_rows)
    (out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
