"""Seconds that Featherweight itself adds to a trial: propose, log, fold, at 10,
1,000 and 5,000 trials.

    python benchmarks/overhead.py [--trials 5000] [--strategies random,grid,greedy,genetic,tpe]

The study's own loop runs with its real SQLite log; only the engine is replaced, by one that
answers at once with figures computed from the filling. Timings are of this machine; compare
rows of one run.
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
from featherweight.engine.messages import Message, TrialJob
from featherweight.limits import Budget, max_drop
from featherweight.recipe import Candidate, Recipe
from featherweight.records import Entry
from featherweight.space import Choice, Float, Int, Maybe, Space
from featherweight.store.events import EventStore
from featherweight.study.clock import Clock
from featherweight.study.config import Config, Targets
from featherweight.study.jobs import Jobs
from featherweight.study.log import Log
from featherweight.study.process import Stop
from featherweight.study.search import Search
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
    ratio, epochs, small = (
        filling.get("prune.ratio", 0.0),
        filling.get("distill.epochs", 1),
        filling.get("quantize", False),
    )
    accuracy = 0.99 - 0.05 * ratio**3 / math.sqrt(epochs) - 0.003 * small
    size, time_ratio = 1e6 * (1 - ratio) ** 2 * (0.3 if small else 1.0), (1 - ratio) * (0.5 if small else 1.0)
    return Entry.from_json(
        dict(
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
    )


class Instant:
    """An engine whose jobs are done when they are asked for."""

    def __init__(self) -> None:
        self.jobs: list[TrialJob] = []

    @property
    def free(self) -> int:
        return 1 - len(self.jobs)

    @property
    def running(self) -> set[Any]:
        return {job.id for job in self.jobs}

    def submit(self, job: TrialJob, timeout_s: float, within_s: float = 0.0) -> None:
        self.jobs.append(job)

    def wait(self, timeout_s: float) -> list[Message]:
        done, self.jobs = self.jobs, []
        return [
            Message(
                kind="finished",
                id=job.id,
                seconds=1.0,
                result={"entry": entry(job.label, job.id, job.filling).to_json(), "steps": 4, "reused": 2},
            )
            for job in done
        ]

    def cancel(self) -> list[Any]:
        return []

    def close(self) -> None:
        self.jobs = []


def run(strategy: str, trials: int, folder: Path) -> tuple[list[float], int]:
    """Seconds of each trial, and how many fillings were repeated."""
    times: list[float] = []
    config = Config(
        task=None,
        task_name="simulated",
        fingerprint="",
        recipe=SPACE.to_json(),
        constraints=(max_drop(0.01),),
        target=Targets("onnxruntime", "onnxruntime", ("onnxruntime",), "onnxruntime", ()),
        minimize=("latency", "size"),
        strategy=strategy,
        budget=Budget(trials=trials),
        seed=0,
        store=str(folder / "store"),
    )
    ended = [time.perf_counter()]

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "finished":
            times.append(time.perf_counter() - ended[0])
            ended[0] = time.perf_counter()

    log = Log(EventStore(folder / "study.db"), listen)
    log.record("study", {"config": config.to_json()})
    log.record("info", {"info": {"splits": {}}})
    log.record("baseline", {"entry": entry("baseline", None, {}).to_json(), "steps": 1, "reused": 0})
    jobs = Jobs(config, None, folder, log, Clock(log.state, config.budget), Stop())
    jobs.engine.close()
    jobs.engine = Instant()  # type: ignore[assignment]
    space = Space(Candidate(SPACE, "onnxruntime"))
    ended[0] = time.perf_counter()
    Search(jobs, space, registry.find("strategies", strategy)(), None, None).run()
    log.close()
    return times, len(log.state.trials) - log.state.trials.distinct


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
