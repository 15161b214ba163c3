"""The search itself: ask the strategy, run the candidate, hear what became of it.

Every change of state is in the event log before anything else happens because of it, so a kill at
any moment loses nothing that was finished and repeats nothing but what was running.
"""

from __future__ import annotations

import math
import time
from typing import Any

from ..engine.messages import Message, timed_out
from ..engine.screen import unchecked
from ..errors import FeatherweightError, InputError, RecipeError, TargetError
from ..recipe import Recipe
from ..recipes import one_line
from ..records import Trial
from ..seeding import generator
from ..space import Space
from ..strategies.base import Strategy
from ..targets.base import Target
from .ends import in_vain, reason
from .jobs import Jobs, check_target, told
from .pauses import Pauses
from .proxy import ProxyFilter

# candidates refused by a measurement of their untrained twin, a trial of the budget,
# that are not counted as trials
_SCREENS = 2
# candidates proposed, a trial of the budget, at most: those that are refused at no cost are not
# counted as trials
_REFUSALS = 20
# of the minutes: the rest is kept for the finalists, and for certificates
UP = "the search's share of the time was up"


class Search:
    """space, strategy: what is searched, and how; pauses: the stopper, None: no trial has to wait;
    proxy: what untrained nets have to pass (None: nothing)."""

    def __init__(
        self, jobs: Jobs, space: Space, strategy: Strategy, pauses: Pauses | None, proxy: ProxyFilter | None
    ) -> None:
        self.jobs, self.engine, self.log, self.clock, self.stop = jobs, jobs.engine, jobs.log, jobs.clock, jobs.stop
        self.state, self.budget, self.config = jobs.log.state, jobs.clock.budget, jobs.config
        self.space, self.strategy, self.pauses, self.proxy = space, strategy, pauses, proxy
        self.exhausted = False  # nothing new is proposed any more
        self._screens = sum(t.state == "failed" and t.cost_s > 0 and t.violation > 0 for t in self.state.trials)

    def run(self) -> None:
        """Trials until the budget or the space is used up, the search has ended,
        or it is interrupted."""
        waiting = self.state.unfinished() if self.clock.left() > 0 else []
        if self.may_go_on(waiting):
            self.log.record("phase", {"name": "search"})
        while not self.stop.asked:
            while self.engine.free and not self.stop.asked:
                trial = self.next_trial(waiting)
                if trial is None:
                    break
                self.start(trial)
            if self.engine.free == self.config.workers:  # nothing runs, and nothing may start
                break
            for message in self.jobs.messages():
                self.outcome(message)
            self.jobs.heartbeat()
        why = "interrupted" if self.stop.asked else UP
        for number in self.engine.cancel():
            if self.state.trials[number].state == "running":
                self.log.record("stopped", {"reason": why, "seconds": 0.0}, trial=number)

    # --- what comes next --------------------------------------------------------------------------

    def next_trial(self, waiting: list[Trial]) -> Trial | None:
        """What a free worker does next: go on with what an earlier run left (`waiting`, from which
        it is taken), else with a paused trial that is promoted, else begin a new one; None if there
        is nothing, or no time for it."""
        if self.ends_early():
            return None
        if waiting:
            return waiting.pop(0) if self.clock.left() > 1.0 else None
        if self.pauses is not None and self.clock.left() > 1.0:
            trial = self.pauses.next(self.closed(), self.clock.left())
            if trial is not None:  # its worker may not have put it down yet
                return trial if trial.number not in self.engine.running else None
        if self.closed():
            return None
        trial = self.propose()
        self.exhausted = trial is None
        return trial

    def may_go_on(self, waiting: list[Trial]) -> bool:
        """Is there a trial to begin, or one that goes on?"""
        if self.stop.asked or self.ends_early():
            return False
        paused = self.pauses is not None and self.pauses.next(self.closed(), self.clock.left()) is not None
        return bool(waiting) or paused or not self.closed()

    def closed(self) -> bool:
        """Will no further trial be proposed?"""
        return self.exhausted or not self.may_start()

    def ends_early(self) -> bool:
        """Has the search found what it was to find, or is there nothing more to hope for? The
        reason is logged."""
        best = self.state.leader() if self.budget.enough is not None else None
        why = reason(self.budget, self.state.trials, best) or in_vain(self.state.trials, self.space)
        # with a larger budget, what ended an earlier run may do so no more
        if why != self.state.ended:
            self.log.record("ended", {"reason": why})
        return why is not None

    def may_start(self) -> bool:
        """Is there budget for one more trial? One that was refused before it ran is not
        counted, up to 19 a trial that cost nothing and `_SCREENS` a trial whose untrained twin
        had to be measured."""
        if self.budget.trials is not None:
            proposed, trials = len(self.state.trials), self.budget.trials
            counted = proposed - self.state.refused
            if counted >= trials or proposed >= _REFUSALS * trials or self._screens >= _SCREENS * trials:
                return False
        left = self.clock.left()
        ended = sorted(t.cost_s for t in self.state.trials.last(20) if t.state == "complete")
        needed = 0.7 * ended[len(ended) // 2] if ended else 0.0
        if not ended and self.pauses is not None and math.isfinite(left):
            # one of those that wait has to train to its end: else there is nothing to show
            needed = self.pauses.to_end(left)
        return left > needed + 1.0

    # --- a trial ----------------------------------------------------------------------------------

    def propose(self) -> Trial | None:
        """Ask the strategy and log its answer; None if the space is exhausted.
        Same seed and history, same answer."""
        number, started = len(self.state.trials), time.monotonic()
        rng = generator(self.config.seed, "propose", number)
        try:
            proposals = self.strategy.propose(self.space, self.state.trials, 1, rng)
        except FeatherweightError:
            raise
        except Exception as e:  # whatever a plug-in's own code raises; our own is a bug of ours
            home = type(self.strategy).__module__
            if home.startswith("featherweight."):
                raise
            said = f"{type(e).__name__}: {e}"
            raise FeatherweightError(
                f"the strategy {self.config.strategy!r} failed", got=said, fix=f"it is of {home}"
            ) from e
        if not proposals:
            return None
        chosen = proposals[0]
        seconds = time.monotonic() - started
        filled = self.space.fill(chosen.filling)
        body = {
            "filling": chosen.filling,
            "note": chosen.note,
            "recipe": filled.recipe.to_json(),
            "target": filled.target,
            "features": self.space.features(chosen.filling),
            "propose_s": seconds,
        }
        if self.proxy is not None and self.space.refused(chosen.filling) is None:
            score = self.proxy.score(filled.recipe.steps[0].net)
            body["proxy"] = {self.proxy.kind: score} if math.isfinite(score) else {}
        self.log.record("proposed", body, trial=number, key=f"trial {number}")
        return self.state.trials[number]

    def start(self, trial: Trial) -> None:
        """Send a trial to a worker; one whose steps cannot follow each other, or that the space
        refuses, is refused before anything runs."""
        recipe = Recipe.from_json(trial.recipe)
        try:
            recipe.check()
            check_target(recipe, Target.parse(trial.target or ""))
            why = self.space.refused(trial.filling)
            if why is None and self.proxy is not None and not trial.reports:
                why = self.proxy.refuses(self.space.fill(trial.filling), self.space)
        except (InputError, RecipeError, TargetError) as e:
            why = str(e)
        if why is not None:
            self.log.record("failed", {"reason": why, "seconds": 0.0, "refused": True}, trial=trial.number)
            return
        for kind, why in unchecked(recipe, [c.quantity for c in self.state.constraints]).items():
            told = {"step": kind, "text": f"{why} (first in trial {trial.number})"}
            self.log.record("unchecked", told, key=f"unchecked {kind}")
        # stopped by an earlier run, or paused; a trial that was just proposed is running already
        if trial.state != "running":
            self.log.record("started", trial=trial.number)
        # what has trained already was screened
        more: dict[str, Any] = {"screen": () if trial.reports else self.jobs.screened()}
        if self.pauses is not None:
            more["rungs"] = self.pauses.rungs(trial, recipe)
        label = one_line(recipe, trial.filling)
        job = self.jobs.trial_job(
            recipe, trial.target or "", label, id=trial.number, trial=trial.number, filling=trial.filling, **more
        )
        self.engine.submit(job, self.clock.timeout(), self.clock.left())

    def outcome(self, message: Message) -> None:
        """Log what a worker says of its trial."""
        number = message.id
        if message.kind == "progress":
            self.log.progress(message)
        elif message.kind == "report":
            self.judge(message)
        elif self.state.trials[number].state != "running":
            # it was paused before; its worker is free now, however it ended
            pass
        elif message.kind == "finished":
            self.log.record("finished", {**told(message), "seconds": message.seconds}, trial=number)
            self.forget(number)
        elif self.clock.out_of_time() and timed_out(message.reason):
            self.log.record("stopped", {"reason": UP, "seconds": message.seconds}, trial=number)
        else:
            body: dict[str, Any] = {"reason": message.reason, "seconds": message.seconds}
            if message.over is not None:  # nothing was trained for it
                body |= {"over": message.over, "violation": message.violation, "refused": True}
                self._screens += 1
            self.log.record("failed", body, trial=number)
            self.forget(number)

    def judge(self, message: Message) -> None:
        """Log the score that a trial tells at a rung together with what becomes of it,
        and tell its worker."""
        number, epoch, score = message.id, float(message.epoch or 0), float(message.score or 0)
        on = self.pauses is None or self.pauses.goes_on(number, epoch, score, self.closed(), self.clock.left())
        body = {"epoch": message.epoch, "of": message.of, "score": score}
        if on:
            self.log.record("reported", body, trial=number)
        else:
            kind = self.config.stopper["kind"] if self.config.stopper else "a stopper"
            why = f"{kind} stopped it after {epoch:g} of {message.of} epochs"
            self.log.record("paused", {**body, "reason": why, "seconds": message.seconds}, trial=number)
            if self.pauses is not None and self.pauses.stopper.final:
                self.forget(number)
        self.engine.answer(number, "go" if on else "pause")

    def forget(self, number: int) -> None:
        """A trial that has ended needs no checkpoint."""
        if self.pauses is not None:
            self.pauses.forget(number)
