"""What is shown while a study runs: a live view in a terminal, one line an event elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..report import units
from ..report.provable import proof
from ..report.rows import drop, verdict_text
from ..report.table import front_table
from ..store.events import EventStore
from .known import artifact_id
from .state import StudyState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

PHASES = {
    "supernet": "training a net that holds the whole space",
    "baseline": "measuring the baselines",
    "simpler": "fitting what needs no network, to compare with",
    "search": "searching",
    "polish": "training the finalists longer",
    "race": "timing the best again",
    "certify": "certifying on the test split",
    "report": "writing the report",
}
ROWS = 12  # lines of the live table


class LiveView:
    """A listener for a study's events, and a context manager that holds the terminal meanwhile.

    It folds the events as the study does, those of earlier runs in the same folder first, so what
    it shows is what the study knows. `interrupted`: Ctrl-C was heard. began: when the command did
    (None: now).
    """

    def __init__(self, console: Console, out: Path, began: float | None = None) -> None:
        self.console, self.out = console, out
        # rich would end the program: what it shows is not what it runs for
        console.on_broken_pipe = self._unheard  # type: ignore[method-assign]
        self.state = StudyState()
        self.interrupted = False
        self.phase = "starting"
        self.running: dict[Any, str] = {}
        self._begun = time.monotonic() if began is None else began
        self.spent_s, self._heard = 0.0, self._begun
        self._table: RenderableType | None = None
        self._live: Live | None = None

    def __enter__(self) -> LiveView:
        if (self.out / "study.db").exists():
            store = EventStore(self.out / "study.db", writable=False)
            try:
                self.state.fold(store.read())
            finally:
                store.close()
            self.spent_s = self.state.spent_s
        if self.console.is_terminal:
            from rich.live import Live

            # Twice a second: drawing must not disturb what is being timed.
            self._live = Live(get_renderable=self.render, console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if "time" in event:  # in the log, so part of the study's state
            self.state.apply(event)
        if kind in ("baseline", "finished", "polished", "certified", "raced"):
            self._table = None
        if kind == "warning" and str(event.get("text", "")).startswith("interrupted"):
            self.interrupted = True
        if kind == "phase":
            self.phase, self.running = PHASES.get(event["name"], event["name"]), {}
        elif kind == "budget" and "spent_s" in event:
            self.spent_s, self._heard = float(event["spent_s"]), time.monotonic()
        elif kind in ("started", "progress"):
            self.running[event.get("trial")] = step_text(event)
        elif kind in ("finished", "failed", "stopped", "paused", "baseline", "baseline_failed", "certified"):
            self.running.pop(event.get("trial"), None)
        text = self.line(event)
        if text and (self._live is None or kind in ("warning", "unchecked", "baseline_failed")):
            try:
                self.console.print(
                    text, markup=False, soft_wrap=True, style="yellow" if kind in ("warning", "unchecked") else ""
                )
            except OSError:  # the terminal is gone
                self._unheard()

    def _unheard(self) -> None:
        """Nobody reads what is shown any more: the study goes on without a word."""
        self.console.quiet = True

    # --- text -------------------------------------------------------------------------------------

    def line(self, event: dict[str, Any]) -> str | None:
        """One line about an event that is worth one."""
        kind, trial, at = event["kind"], event.get("trial"), f"[{time.monotonic() - self._begun:5.0f} s]"
        if kind == "phase":
            return f"{at} {PHASES.get(event['name'], event['name'])}"
        if kind == "info" and (known := self.state.prospect()) is not None:
            name = self.state.info["metric"]["name"]
            return f"{at} {proof(known, name)}"
        if kind == "baseline":
            label = event["entry"]["label"]
            return f"{at} baseline {label!r}: {self._numbers(self.state.baselines[label].to_json())}"
        if kind == "baseline_failed":
            return f"{at} baseline {event['label']!r} could not be made: {event['reason']}"
        if kind == "finished":
            row = self.state.trials[trial]  # type: ignore[index]
            numbers = self._numbers(row.entry.to_json()) if row.entry else ""
            return (
                f"{at} trial {trial}: {numbers} ({event['reused']} of {event['steps']} steps reused, "
                f"{units.seconds(event['seconds'])})"
            )
        if kind in ("failed", "stopped", "paused"):
            return f"{at} trial {trial} {kind}: {event.get('reason')}"
        if kind == "ended" and event["reason"] is not None:
            return f"{at} the search ends early: {event['reason']}"
        if kind == "polished":
            numbers = self._numbers(self.state.polished[event["trial"], event["rung"]].to_json())
            return f"{at} trial {trial}, {event['epochs']} epochs more: {numbers} ({units.seconds(event['seconds'])})"
        if kind == "unpolished":
            return f"{at} trial {trial} could not be trained longer: {event['reason']}"
        if kind == "raced":
            mine = next((e for e in self.state.entries() if artifact_id(e) == event["artifact"]), None)
            who = f"trial {trial}" if mine is None or mine.trial is not None else mine.label
            why = "as it will be reported" if event.get("last") else "for the choice of the best"
            return f"{at} {who} timed again, {why}: {units.ratio(event['speedup']['ratio'])}"
        if kind == "certified":
            return f"{at} {event['certificate']['verdict']}: {event['entry']['label']}"
        return f"{at} {event['text']}" if kind in ("warning", "unchecked") else None

    def _numbers(self, entry: dict[str, Any]) -> str:
        name = entry["metric"]["name"]
        lost = drop(entry, self.state.baseline.to_json())
        reference = entry["label"] == "baseline"  # what others are held to
        limits = "" if reference else f", limits {verdict_text(entry, self.state.tested or None)}"
        return (
            f"{name} {units.metric(entry['metric']['value'], name)} (drop {units.difference(lost, name)}), "
            f"speed {units.ratio(entry['speedup']['ratio'])}, {units.size(entry['size_bytes'])}{limits}"
        )

    def status(self) -> str:
        """Trials done, failed and running, steps reused, and what is left of the budget."""
        states = [r.state for r in self.state.trials]
        trials, minutes = self._ends()
        wanted = f" of {trials}" if trials else ""
        parts = [
            f"trial {len(states)}{wanted}",
            f"{states.count('complete')} measured",
            f"{states.count('failed')} failed",
            f"{states.count('running')} running",
        ]
        if states.count("stopped"):
            parts.append(f"{states.count('stopped')} stopped")
        parts.append(f"{self.state.reused} of {self.state.steps} steps reused")
        spent = self.spent()
        parts.append(
            f"{units.seconds(max(0.0, 60 * minutes - spent))} left of {units.seconds(60 * minutes)}"
            if minutes
            else f"{units.seconds(spent)} so far"
        )
        return ", ".join(parts)

    def _ends(self) -> tuple[int | None, float | None]:
        """Trials and minutes of the budget; None where it has no such end, or is not known yet."""
        config = self.state.config
        return (config.budget.trials, config.budget.minutes) if config is not None else (None, None)

    def spent(self) -> float:
        """Seconds of the budget that are gone, between two reports of the study by this
        process's clock."""
        return self.spent_s + time.monotonic() - self._heard

    def share(self) -> float:
        """How much of the budget is gone, 0 to 1: of the trials or of the minutes,
        whichever ends first."""
        trials, minutes = self._ends()
        ended = sum(r.state != "running" for r in self.state.trials)
        shares = [ended / trials] if trials else []
        shares += [self.spent() / (60 * minutes)] if minutes else []
        return min(1.0, max(shares, default=0.0))

    def render(self) -> RenderableType:
        """The whole view."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Text(f"{self.phase[:1].upper()}{self.phase[1:]}", style="bold")
        if self.interrupted:
            head.append(
                "  Ctrl-C was heard: finishing with what there is (once more stops at once)", style="bold yellow"
            )
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=1.0, completed=self.share(), width=min(60, self.console.width - 2)))
        now = [
            Text(f"  {'baseline' if trial is None else f'trial {trial}'}: {text}", style="dim")
            for trial, text in list(self.running.items())[:8]
        ]
        if self._table is None and "baseline" in self.state.baselines:
            self._table = front_table(self.state.front_json(), "The front so far", limit=ROWS, width=self.console.width)
        return Group(head, bar, Text(self.status()), *now, *([self._table] if self._table is not None else []))


def step_text(event: dict[str, Any]) -> str:
    """`train, epoch 2 of 5` of a progress event."""
    text = str(event.get("step", "starting"))
    if event.get("epoch") is not None:
        text += f", epoch {event['epoch']}" + (f" of {event['of']}" if event.get("of") is not None else "")
    if event.get("loss") is not None:
        text += f", loss {float(event['loss']):.4g}"
    return text
