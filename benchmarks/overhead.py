"""Seconds that Featherweight itself adds to a trial: propose, log, fold, at 10, 1,000 and 5,000 trials.

    python benchmarks/overhead.py [--trials 5000] [--strategies random,grid,greedy,genetic,tpe]

The study's own loop runs with its real SQLite log; only the engine is replaced, by one that answers at once with figures
computed from the filling. Timings are of this machine; compare rows of one run.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from featherweight import registry
from featherweight.limits import Budget, max_drop
from featherweight.recipe import Recipe, encode
from featherweight.records import Entry
from featherweight.space import Choice, Float, Int, Maybe
from featherweight.study.search import Loop
from featherweight.transforms.distill import Distill
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize

SPACE = Recipe(
    Prune(ratio=Float(0.0, 0.8), criterion=Choice("magnitude", "taylor", "random"), round_to=Choice(1, 4, 8, 16)),
    Distill(epochs=Int(1, 12), lr=Float(1e-4, 1e-2, log=True), alpha=Float(0.3, 1.0)),
    Maybe(Quantize(scheme=Choice("int8-static", "int8-dynamic"), granularity=Choice("channel", "tensor"))),
)


def entry(label: str, trial: int | None, filling: dict[str, Any]) -> Entry:
    """Figures that depend on the filling smoothly, so that strategies have something to find."""
    ratio, epochs, small = filling.get("prune.ratio", 0.0), filling.get("distill.epochs", 1), filling.get("quantize", False)
    accuracy = 0.99 - 0.05 * ratio**3 / math.sqrt(epochs) - 0.003 * small
    size, time_ratio = 1e6 * (1 - ratio) ** 2 * (0.3 if small else 1.0), (1 - ratio) * (0.5 if small else 1.0)
    return Entry(
        label=label,
        trial=trial,
        recipe={"recipe": []},
        target="onnxruntime",
        seconds=1.0,
        filling=filling,
        artifact="none",
        sha256=f"{trial}",
        metric={
            "name": "accuracy",
            "value": accuracy,
            "ci95": [accuracy - 0.01, accuracy + 0.01],
            "n": 1000,
            "higher_is_better": True,
            "split": "valid",
        },
        latency_ms={"median": time_ratio, "p90": 1.2 * time_ratio, "n": 500, "cpu_median": time_ratio, "load": 0.1},
        speedup={"ratio": 1 / time_ratio, "ci95": [0.98 / time_ratio, 1.02 / time_ratio], "clock": "cpu", "n": 30},
        size_bytes=int(size),
        peak_memory_bytes=60_000_000,
        params=int(size / 4),
        macs=int(1e6 * time_ratio),
    )


class Instant:
    """An engine whose jobs are done when they are asked for."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    @property
    def free(self) -> int:
        return 1 - len(self.jobs)

    def submit(self, job: dict[str, Any], timeout_s: float) -> None:
        self.jobs.append(job)

    def wait(self, timeout_s: float) -> list[dict[str, Any]]:
        done, self.jobs = self.jobs, []
        return [
            {"kind": "finished", "id": j["id"], "entry": entry(j["label"], j["id"], j["filling"]).to_json(), "steps": 4, "reused": 2, "seconds": 1.0}
            for j in done
        ]

    def cancel(self) -> list[Any]:
        return []

    def close(self) -> None:
        self.jobs = []


def run(strategy: str, trials: int, folder: Path) -> tuple[list[float], int]:
    """Seconds of each trial, and how many fillings were repeated."""
    times: list[float] = []
    config = {
        "task": None,
        "task_name": "simulated",
        "fingerprint": "",
        "recipe": SPACE.to_json(),
        "constraints": [max_drop(0.01).to_json()],
        "target": {"text": "onnxruntime", "choice": encode("onnxruntime"), "runtimes": ["onnxruntime"], "reference": "onnxruntime", "originals": []},
        "minimize": ["latency", "size"],
        "strategy": strategy,
        "seed": 0,
        "device": "cpu",
        "workers": 1,
        "train_threads": 1,
        "reuse": True,
        "measure_seconds": 0.1,
        "store": str(folder / "store"),
        "budget": {"trials": trials, "minutes": None, "trial_minutes": None, "trial_memory_gb": None},
    }
    assert Budget(**config["budget"]).trials == trials  # type: ignore[arg-type]
    ended = [time.perf_counter()]

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "finished":
            times.append(time.perf_counter() - ended[0])
            ended[0] = time.perf_counter()

    loop = Loop(config, None, folder, listen)
    loop.engine.close()
    loop.engine = Instant()  # type: ignore[assignment]
    loop.record("study", {"config": config})
    loop.record("info", {"info": {"splits": {}}})
    loop.record("baseline", {"entry": entry("baseline", None, {}).to_json(), "steps": 1, "reused": 0})
    ended[0] = time.perf_counter()
    loop.search()
    loop.close()
    return times, len(loop.state.history) - loop.state.history.distinct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--strategies", default=",".join(registry.names("strategies")))
    args = parser.parse_args()
    marks = [m for m in (10, 1000, 5000, 10000) if m <= args.trials]
    print("median ms a trial over the last 10 % of the trials up to each mark")
    print("| strategy | " + " | ".join(f"{m:,}" for m in marks) + " | repeats |")
    print("|---" * (len(marks) + 2) + "|")
    for strategy in args.strategies.split(","):
        with tempfile.TemporaryDirectory() as folder:
            times, repeats = run(strategy, args.trials, Path(folder))
        cells = [f"{1e3 * statistics.median(times[m - max(5, m // 10) : m]):.2f}" for m in marks]
        print(f"| {strategy} | " + " | ".join(cells) + f" | {repeats} |", flush=True)


if __name__ == "__main__":
    main()
