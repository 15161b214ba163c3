"""The same search with and without reuse of stored steps: wall time and their ratio.

    python benchmarks/reuse.py [--task examples/digits.py] [--trials 12]

Both searches start from an empty store and propose the same candidates (greedy on objectives that
do not depend on timing).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import featherweight as fw


def run(task: str, trials: int, reuse: bool) -> tuple[float, list[dict[str, object]], dict[str, int]]:
    """(seconds, fillings, cache counts) of one search in an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEATHERWEIGHT_CACHE"] = str(Path(folder) / "store")
        start = time.monotonic()
        study = fw.optimize(
            task,
            strategy="greedy",
            minimize=["size", "params"],
            constraints=[fw.max_drop(0.01)],
            budget=fw.Budget(trials=trials),
            out=Path(folder) / "run",
            reuse=reuse,
            measure_seconds=0.5,
        )
        return time.monotonic() - start, [t["filling"] for t in study.trials()], study.front_json()["cache"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="examples/digits.py")
    parser.add_argument("--trials", type=int, default=12)
    args = parser.parse_args()
    with_s, with_fillings, cache = run(args.task, args.trials, True)
    without_s, without_fillings, _ = run(args.task, args.trials, False)
    print(f"with reuse: {with_s:.1f} s, {cache['reused']} of {cache['steps']} steps from the store")
    print(f"without: {without_s:.1f} s; ratio {without_s / with_s:.2f}")
    print(f"same candidates: {with_fillings == without_fillings}")


if __name__ == "__main__":
    main()
