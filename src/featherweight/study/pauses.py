"""The stopper in a study: which running trial waits at a rung, and which waiting one goes on. Reads
the state, changes nothing in it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from .. import registry
from ..engine.messages import RungPlan
from ..recipe import Recipe
from ..records import Trial
from ..space import Domain, Space, resolve
from ..space.domains import Maybe
from ..stoppers.base import Stopper
from ..transforms.base import Trained
from .state import StudyState


class Pauses:
    """stopper: what decides; folder: where the trials' checkpoints are kept."""

    def __init__(self, stopper: Stopper, state: StudyState, folder: Path) -> None:
        self.stopper, self.state, self.folder = stopper, state, folder

    def rungs(self, trial: Trial, recipe: Recipe) -> RungPlan | None:
        """Where the trial tells its score; None if it never has to.

        The epochs are those of the recipe's first training step that can pause."""
        epochs = self.stopper.rungs(trial.number, first_epochs(recipe))
        return (
            RungPlan(tuple(epochs), tuple(sorted(trial.reports)), str(self._checkpoint(trial.number)))
            if epochs
            else None
        )

    def goes_on(self, number: int, epoch: float, score: float, closed: bool, left_s: float = math.inf) -> bool:
        """Does a running trial that has just told its score go on without a wait? closed,
        left_s: as of `next`."""
        reports, states = self._told(left_s if closed else None)
        reports[number] = {**reports.get(number, {}), epoch: score}
        if not self.stopper.decide(reports, number, epoch):
            return True
        return self.stopper.promote(reports, {**states, number: "paused"}, closed) == number

    def next(self, closed: bool, left_s: float = math.inf) -> Trial | None:
        """The paused trial that goes on now. closed: no new trial will be started; then only those
        count that can train to their end in the `left_s` seconds that are left for trials."""
        reports, states = self._told(left_s if closed else None)
        if self.stopper.final or "paused" not in states.values():
            return None
        number = self.stopper.promote(reports, states, closed)
        return None if number is None else self.state.trials[number]

    def to_end(self, left_s: float) -> float:
        """Seconds to keep free so that one trial can end: what the one needs that would go on if
        nothing else ran or came, of those that can train to their end in `left_s` (finite), and
        the longest stretch between two looks so far, in which no worker may come free. 0 if no
        trial can end."""
        if self.stopper.final:
            return 0.0
        reports, states = self._told(left_s)
        reports = {number: told for number, told in reports.items() if number in states}  # what runs may yet fail
        number = self.stopper.promote(reports, states, True) if "paused" in states.values() else None
        return 0.0 if number is None else _rest(self.state.trials[number]) + max(map(_stretch, self.state.trials))

    def forget(self, number: int) -> None:
        """Remove the checkpoint of a trial that has ended."""
        self._checkpoint(number).unlink(missing_ok=True)

    def _checkpoint(self, number: int) -> Path:
        return self.folder / f"{number}.pt"

    def _told(self, left_s: float | None) -> tuple[dict[int, dict[float, float]], dict[int, str]]:
        """Reports and states, for the stopper. What is not finished and not paused runs, or will
        again: it was cut off by the budget or a kill.

        left_s: None, or, if nothing new will start, how long trials may still take: then one that
        has failed, or needs longer, stands in nobody's way; and if time is limited, a free worker
        does not wait for what runs, which is left out."""
        reports, states = {}, {}
        for r in self.state.trials:
            lost = left_s is not None and (r.state == "failed" or (r.paused and _rest(r) > left_s))
            ended = lost or r.state in ("complete", "failed")
            if ended or r.paused or left_s is None or left_s == math.inf:
                states[r.number] = "ended" if ended else "paused" if r.paused else "running"
            if r.reports and not lost:
                reports[r.number] = r.reports
        return reports, states


def _rest(trial: Trial) -> float:
    """Seconds, with a fifth for the rest of the recipe, that a paused trial needs for the epochs
    that it has not trained yet, at its own pace."""
    of, done = first_epochs(Recipe.from_json(trial.recipe)), max(trial.reports, default=0)
    return 1.2 * trial.before_s * max(0.0, of / done - 1.0) if done else math.inf


def make_stopper(config: dict[str, Any], space: Space) -> Stopper:
    """config: {"kind": .., its fields}. Hyperband without a max_budget gets the most epochs that
    the space allows, its brackets depend on it."""
    fields = {k: v for k, v in config.items() if k != "kind"}
    stopper: Stopper = registry.find("stoppers", config["kind"])(**fields)
    if config["kind"] == "hyperband" and fields.get("max_budget") is None:
        stopper = dataclasses.replace(stopper, max_budget=max(1, first_epochs(_longest(space))))  # type: ignore[type-var]
    return stopper


def first_epochs(recipe: Recipe) -> int:
    """Epochs of the first training step that can pause; 0 if there is none."""
    return next((s.epochs for s in recipe.steps if isinstance(s, Trained) and s.pauses), 0)


def _longest(space: Space) -> Recipe:
    """The filling with the most epochs (where several trainings are to choose
    from: of the first)."""

    def choose(path: str, domain: Domain) -> Any:
        if isinstance(domain, Maybe):
            return True
        options = domain.options(2) or []
        return max(options) if path.endswith("epochs") else options[0]

    recipe: Recipe = resolve(space.tree, choose).recipe
    return recipe


def _stretch(trial: Trial) -> float:
    """Seconds of its longest training between two rungs, at its mean pace;
    0 of one that has not waited yet."""
    rungs = sorted(trial.reports)
    return trial.before_s * max(b - a for a, b in zip([0.0, *rungs], rungs, strict=False)) / rungs[-1] if rungs else 0.0
