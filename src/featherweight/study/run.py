"""One run of a study: its phases, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import registry
from ..engine.messages import timed_out
from ..measure.yardsticks import Yardstick
from ..recipe import Candidate, decode
from ..report import units
from ..space import Space
from ..store.events import EventStore
from .baselines import measure_baselines
from .certify import certify
from .clock import Clock
from .config import Config
from .ends import none_finished
from .jobs import Jobs
from .knowledge import train_supernet, with_earlier
from .log import Listener, Log
from .noticed import foreseen
from .pauses import Pauses, make_stopper
from .polish import polish
from .process import Stop, interruptible
from .proxy import ProxyFilter
from .race import race
from .results import package_best
from .search import Search
from .simpler import measure_simpler
from .state import StudyState
from .statics import Statics

_LEAST_S = 5.0  # in which a trial could not even be begun


class Run:
    """config: as `request.configure` makes it; task: how a worker loads it (`engine.carried`);
    statics: what is known of a candidate before it runs; proxy: what untrained nets have to pass
    (None: nothing); guess: what an answer without looking is worth (`guessing.guess`); others: what
    other learners are (`measure.yardsticks`), in so many seconds; began: when the call began (None:
    now)."""

    def __init__(
        self,
        config: Config,
        task: Any,
        out: Path,
        listener: Listener,
        statics: Statics,
        proxy: ProxyFilter | None = None,
        guess: Callable[[], tuple[float, str] | None] = lambda: None,
        others: Callable[[float], Sequence[Yardstick]] = lambda within_s: (),
        began: float | None = None,
    ) -> None:
        self.config, self.statics, self.proxy, self.guess = config, statics, proxy, guess
        self.others = others
        self.log = Log(EventStore(out / "study.db"), listener)
        self.clock = Clock(self.state, config.budget, config.polish, began=began)
        self.jobs = Jobs(config, task, out, self.log, self.clock, Stop())
        tree = Candidate(decode(config.recipe), decode(config.target.choice))
        self.space: Space = statics.space(tree)
        stopper = make_stopper(config.stopper, self.space) if config.stopper else None
        self.pauses = Pauses(stopper, self.state, out / "checkpoints") if stopper is not None else None

    @property
    def state(self) -> StudyState:
        return self.log.state

    def phases(self) -> None:
        """All of them. Whatever happens, the event log holds all that was finished."""
        with interruptible(self.jobs.stop, self.log.warn):
            try:
                self.log.record("open", {"pid": os.getpid(), "before_s": self.clock.this_run(), "contends": True})
                measure_baselines(self.jobs, self.space, self.guess)
                measure_simpler(self.jobs, self.guess, self.others)
                self.statics.baseline = self.state.baseline
                for note in foreseen(self.state) if not len(self.state.trials) else ():
                    self.log.warn(note)
                strategy = registry.find("strategies", self.config.strategy)()
                strategy = train_supernet(self.jobs, self.space, strategy)
                if not self.jobs.stop.asked:  # what it is told is logged, and more baselines may follow
                    strategy = with_earlier(self.log, self.config, self.space, strategy)
                search = Search(self.jobs, self.space, strategy, self.pauses, self.proxy)
                search.run()
                self._unbegun()
                polish(self.jobs)
                if self.clock.release():  # no finalist was worth the time that was kept for them
                    search.run()
                    polish(self.jobs)
                why = none_finished(self.state.trials)
                if why is not None and self.state.ended is None:
                    self.log.record("ended", {"reason": why})
                measure_baselines(self.jobs, self.space, self.guess, late=True)
                certify(self.jobs)
                self._uncertified()
                race(self.jobs)
                self.log.record("phase", {"name": "report"})
                package_best(self.jobs)
            finally:
                self.jobs.engine.close()

    def _unbegun(self) -> None:
        """Say why no trial was begun, if it was for want of time."""
        if len(self.state.trials) or self.jobs.stop.asked or self.clock.left() > _LEAST_S:
            return
        left, kept = max(0.0, self.clock.remaining()), self.clock.ending()
        self.log.warn(
            f"no time for a first trial: of the {units.seconds(left)} that are left {units.seconds(min(left, kept))} "
            f"are kept for certificates and the report, and the original alone took "
            f"{units.seconds(self.state.baseline.seconds)}; about {self.state.needed_minutes()} minutes would do"
        )

    def _uncertified(self) -> None:
        """Log why the best has no certificate, if it has none."""
        best, failed = self.state.best(), self.jobs.failures.get("certify")
        if best is None or best is self.state.baseline or best.certificate:
            return
        if self.jobs.stop.asked:
            why = "the study was interrupted"
        elif failed is not None and not timed_out(failed):
            why = f"its job failed: {failed}"
        else:
            why = "the time was up"
        self.log.record("uncertified", {"reason": why}, trial=best.trial)

    def close(self) -> None:
        self.log.close()
