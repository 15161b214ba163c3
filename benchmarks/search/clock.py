"""Simulated clock: stoppers against full training, and cost-aware against cost-blind search, in
seconds of training instead of trials.

    python benchmarks/search/learning.py digits; python benchmarks/search/learning.py synthetic
    python benchmarks/search/clock.py stoppers [--seeds 20] [--workers 4] [--budget 20]
        [--strategy random]
    python benchmarks/search/clock.py cost [--seeds 20] [--evaluations 200] [--methods bayesian]

stoppers: the recorded learning curves (learning.py) are replayed by workers on an event queue;
nothing sleeps. A paused trial that is promoted goes on where it stood. Score: the least error that
any trial has shown at its full 27 epochs or where it stopped, by that time, less the least final
error of all settings. budget: simulated time, in mean full trainings of one worker.
cost: tables (NAS-Bench-201, HPOLib, HPOBench), one worker; regret after seconds of training, as the
strategy sees them and with all seconds shown as 1 (cost-blind).
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import learning  # noqa: E402 (siblings lie beside this file)
import play  # noqa: E402
import problems  # noqa: E402
import stats  # noqa: E402

from featherweight import registry  # noqa: E402
from featherweight.records import History, Trial  # noqa: E402
from featherweight.seeding import generator  # noqa: E402
from featherweight.stoppers.base import Stopper  # noqa: E402

STOPPERS: dict[str, dict[str, Any] | None] = {
    "full": None,
    "median": {"kind": "median", "min_budget": 3},
    "successive_halving": {"kind": "successive_halving"},
    "asha": {"kind": "asha"},
    "asha-stopping": {"kind": "asha", "type": "stopping"},
    "hyperband": {"kind": "hyperband", "max_budget": learning.EPOCHS},
}
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the simulated time, where scores are shown


def make(name: str) -> Stopper | None:
    settings = STOPPERS[name]
    return (
        None
        if settings is None
        else registry.find("stoppers", settings["kind"])(**{k: v for k, v in settings.items() if k != "kind"})
    )


@dataclass
class Cluster:
    """Workers on a simulated clock. `busy`: (when a segment ends, trial, epoch it ends at).
    `best`: (seconds, least error shown), as it fell.

    epochs: run by all trials together; full: trials that reached the last epoch; started: trials.
    """

    curves: learning.Curves
    stopper: Stopper | None
    strategy: Any
    seed: int
    workers: int
    now: float = 0.0
    busy: list[tuple[float, int, int]] = field(default_factory=list)
    states: dict[int, str] = field(default_factory=dict)
    reports: dict[int, dict[int, float]] = field(default_factory=dict)
    at: dict[int, int] = field(default_factory=dict)  # trial -> epochs done
    best: list[tuple[float, float]] = field(default_factory=list)
    epochs: int = 0

    def __post_init__(self) -> None:
        self.history, self.space = History(), self.curves.space()
        self.reference = float(self.curves.error[:, -1].max())

    def run(self, seconds: float) -> None:
        """Until the clock stands at `seconds`, or there is nothing left to run."""
        while True:
            while len(self.busy) < self.workers:
                trial = self.next_trial()
                if trial is None:
                    break
                self.go_on(trial)
            if not self.busy or self.busy[0][0] > seconds:
                return
            self.now, trial, epoch = heapq.heappop(self.busy)
            self.reached(trial, epoch)

    def next_trial(self) -> int | None:
        """A paused trial that is promoted, else a new one, else (nothing new is left) whatever may
        be promoted then."""
        promoted = None if self.stopper is None else self.stopper.promote(self.reports, self.states)
        if promoted is not None:
            return promoted
        number = len(self.history)
        proposals = self.strategy.propose(self.space, self.history, 1, generator(self.seed, "propose", number))
        if not proposals:
            return None if self.stopper is None else self.stopper.promote(self.reports, self.states, closed=True)
        filling = proposals[0].filling
        self.history.add(Trial(number, filling, note=proposals[0].note, features=self.space.features(filling)))
        self.at[number] = 0
        return number

    def go_on(self, trial: int) -> None:
        """The trial runs up to its next rung, or to the end."""
        rungs = () if self.stopper is None else self.stopper.rungs(trial, learning.EPOCHS)
        done = self.at[trial]
        until = next((r for r in rungs if r > done), learning.EPOCHS)
        row = self.curves.row(self.history[trial].filling)
        took = float(self.curves.seconds[row, done:until].sum())
        self.states[trial], self.history[trial].state = "running", "running"
        self.history[trial].cost_s += took
        self.epochs += until - done
        heapq.heappush(self.busy, (self.now + took, trial, until))

    def reached(self, trial: int, epoch: int) -> None:
        """The trial tells its score; it ends, pauses, or goes on at once."""
        record = self.history[trial]
        error = float(self.curves.error[self.curves.row(record.filling), epoch - 1])
        self.at[trial] = epoch
        self.reports.setdefault(trial, {})[epoch] = error
        record.reports = self.reports[trial]
        ended = epoch == learning.EPOCHS
        stopped = not ended and self.stopper is not None and self.stopper.decide(self.reports, trial, epoch)
        if not ended and not stopped:
            self.go_on(trial)
            return
        self.states[trial] = "ended" if ended or (self.stopper is not None and self.stopper.final) else "paused"
        record.state = "complete" if ended else "stopped"
        record.values = (max(error / self.reference, problems.LEAST),)
        if not self.best or error < self.best[-1][1]:
            self.best.append((self.now, error))

    def score(self, seconds: float) -> float:
        """The least error shown by then, less the least final error of all settings (below 0 where
        an early epoch was better); before any trial has shown one, the mean final error, which is
        what a random setting has."""
        known = [e for t, e in self.best if t <= seconds]
        least = known[-1] if known else float(self.curves.error[:, -1].mean())
        return least - float(self.curves.error[:, -1].min())


def stoppers(args: argparse.Namespace) -> str:
    lines = [
        "| curves | stopper | " + " | ".join(f"{s:.0%} of time" for s in SHARES) + " | trials | full | epochs |",
        f"|---|---|{'---|' * (len(SHARES) + 3)}",
    ]
    for name in args.data.split(","):
        curves = learning.load(name)
        horizon = args.budget * float(curves.seconds.sum(1).mean())
        for label in STOPPERS:
            runs = []
            for seed in range(args.seeds):
                cluster = Cluster(curves, make(label), registry.find("strategies", args.strategy)(), seed, args.workers)
                cluster.run(horizon)
                runs.append(cluster)
            cells = [shown([100 * c.score(s * horizon) for c in runs]) for s in SHARES]
            full = [float(sum(e == learning.EPOCHS for e in c.at.values())) for c in runs]
            counts = [shown([float(len(c.history)) for c in runs]), shown(full), shown([float(c.epochs) for c in runs])]
            lines.append(f"| {name} | {label} | {' | '.join([*cells, *counts])} |")
    setting = (
        f"{args.strategy}, {args.workers} workers, {args.budget:g} mean full trainings of each, {args.seeds} seeds"
    )
    head = f"Error in points above the least final error of all settings; {setting}."
    return "\n".join([head, "", *lines])


def shown(values: Sequence[float]) -> str:
    mean = stats.of(values)
    return f"{mean.mean:.3g}" + ("" if math.isnan(mean.error) else f" +- {mean.error:.2g}")


def costs(
    problem: problems.Problem, method: str, seed: int, evaluations: int, blind: bool
) -> list[tuple[float, float]]:
    """(seconds of training so far, score) after each evaluation."""
    search = play.asker(method, problem, seed, evaluations)
    outcomes, clock = [], []
    for _ in range(evaluations):
        filling = search.ask()
        if filling is None:
            break
        outcome = problem.outcome(filling)
        outcomes.append(outcome)
        clock.append(math.fsum((clock[-1] if clock else 0.0, outcome["cost_s"])))
        search.tell(problem.values(outcome), 1.0 if blind else outcome["cost_s"], 0.0)
    return list(zip(clock, problem.curve(outcomes), strict=True))


def cost(args: argparse.Namespace) -> str:
    """Each search's scores at shares of the seconds that random search spends on as many
    evaluations, in the mean."""
    lines = [
        "| search | method | " + " | ".join(f"{s:.0%} of time" for s in SHARES) + " |",
        f"|---|---|{'---|' * len(SHARES)}",
    ]
    for name in (n for g in args.groups.split(",") for n in problems.GROUPS[g]):
        problem = problems.load(name)
        spent = [costs(problem, "random", s, args.evaluations, True) for s in range(args.seeds)]
        horizon = args.share * stats.of([run[-1][0] for run in spent]).mean
        table = {"random": spent}
        for method in args.methods.split(","):
            for blind in (False, True):
                table[f"{method}, {'blind to cost' if blind else 'told the cost'}"] = [
                    costs(problem, method, s, args.evaluations, blind) for s in range(args.seeds)
                ]
        for label, runs in table.items():
            cells = [
                shown([next((v for t, v in reversed(run) if t <= s * horizon), run[0][1]) for run in runs])
                for s in SHARES
            ]
            lines.append(f"| {name} | {label} | {' | '.join(cells)} |")
    head = (
        f"Score after seconds of training; 100 % is {args.share:g} of the seconds that {args.evaluations} random "
        f"trials take; {args.seeds} seeds."
    )
    return "\n".join([head, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stoppers", "cost"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--budget", type=float, default=20.0, help="stoppers: mean full trainings of each worker")
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--data", default=",".join(learning.DATA))
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument(
        "--share", type=float, default=0.5, help="cost: the whole time, as a share of what the random trials take"
    )
    parser.add_argument("--methods", default="bayesian")
    parser.add_argument("--groups", default="nas201,hpolib,hpobench")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args()
    text = stoppers(args) if args.what == "stoppers" else cost(args)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"clock-{args.what}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
