"""How often a study calls equal files faster (or slower) than they are.

    python benchmarks/certificates/faster.py --measurements 120 --studies 2000

One file is measured against itself again and again, as a study measures its candidates, and the
measurements are kept: their noise is this machine's. A study then draws `--candidates` of them, all
of one true speed, 1.00x. Each rule reports one interval; the claim is false if it does not hold 1.

Rules: "luckiest": the greatest ratio, with its own interval (before); "own": any one of them, with
its own interval: the share that this misses; "one": the same, with the spread of processes that the
study assumes (`study.speeds`); "pooled": all measurements of the graph as one, as a study's tables
have it; "raced": measurements that no choice has seen, as the best is reported.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featherweight.engine.runner import Runner
from featherweight.measure.run import measure
from featherweight.recipe import Recipe
from featherweight.records import Speedup
from featherweight.store.artifacts import ArtifactStore, default_root
from featherweight.study.race import PROCESSES
from featherweight.study.speeds import POOL, Spread, anew
from featherweight.targets.base import Target
from featherweight.task.load import load_task


def measured(task: str, times: int, seconds: float) -> list[Speedup]:
    """The file against itself, each time in a new process."""
    runner = Runner(load_task(task), ArtifactStore(default_root()), seed=0)
    artifact, target = runner.artifact(Recipe(), Target()), Target()
    example, found = runner.task.example(), []
    quick: deque[float] = deque(maxlen=20)  # as a study's worker knows it
    with tempfile.TemporaryDirectory() as tmp:
        copy = shutil.copytree(artifact, Path(tmp) / "copy")  # one file is known to be as fast as itself
        for _ in range(times):
            got = measure(
                copy,
                target,
                reference=(artifact, target),
                example=example,
                inputs=None,
                seconds=seconds,
                timeout_s=300,
                workdir=Path(tmp) / "work",
                quick_ms=min(quick, default=None),
            )
            if got.speedup is None or got.reference_ms is None:
                raise SystemExit("the machine was too busy for a measurement of the ratio")
            found.append(got.speedup)
            quick.append(got.reference_ms.cpu_median)
    return found


def pooled(drawn: list[Speedup], fresh: list[Speedup]) -> Speedup:
    return anew(drawn[:POOL], Spread())


# of the measurements that a choice has seen, and those after it
RULES: dict[str, Callable[[list[Speedup], list[Speedup]], Speedup]] = {
    "luckiest": lambda drawn, fresh: max(drawn, key=lambda s: s.ratio),
    "own": lambda drawn, fresh: drawn[0],
    "one": lambda drawn, fresh: pooled(drawn[:1], fresh),
    "pooled": pooled,
    "raced": lambda drawn, fresh: anew(fresh, Spread()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default=str(Path(__file__).parents[2] / "examples" / "digits.py"))
    parser.add_argument("--measurements", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each, as `--measure-seconds` of a study")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--candidates", type=int, nargs="+", default=[2, 3, 5, 20, 50])
    parser.add_argument("--json", type=Path, help="measurements, to be read if the file is there, else written")
    args = parser.parse_args()
    if args.json and args.json.exists():
        speeds = [Speedup.from_json(s) for s in json.loads(args.json.read_text())]
    else:
        speeds = measured(args.task, args.measurements, args.seconds)
        if args.json:
            args.json.write_text(json.dumps([s.to_json() for s in speeds]))
    ratios = np.array([s.ratio for s in speeds])
    print(f"{len(speeds)} measurements: {ratios.min():.3f} to {ratios.max():.3f}, sd {ratios.std(ddof=1):.4f}")
    print("| candidates | " + " | ".join(f"{name}: false, ratio" for name in RULES) + " |")
    rng = np.random.default_rng(0)
    for k in args.candidates:
        cells = []
        draws = [rng.choice(len(speeds), k + PROCESSES, replace=False) for _ in range(args.studies)]
        for rule in RULES.values():
            said = [rule([speeds[i] for i in d[:k]], [speeds[i] for i in d[k:]]) for d in draws]
            false = np.mean([not s.ci95[0] <= 1 <= s.ci95[1] for s in said])
            cells.append(f"{false:.1%}, {np.exp(np.mean(np.log([s.ratio for s in said]))):.4f}x")
        print(f"| {k} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
