"""What a study found, for its user: the front, the best candidate, their files and report."""

from __future__ import annotations

import filecmp
import importlib
import os
import re
import shutil
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..engine.local import printed
from ..errors import InputError, StoreError
from ..limits import OBJECTIVES, Budget, distance, objectives
from ..plain import read_json
from ..records import Entry
from ..report import html, views
from ..report.ahead import next_command
from ..report.analysis import Analysis
from ..report.words import summary, trial_lines
from ..store.manifest import MANIFEST, sound
from ..store.places import filled
from .command import command, goes_on
from .log import Listener
from .process import running
from .reading import chosen_manifest, read_state
from .state import StudyState

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure


class Study:
    """All of one search: its trials, its front, its best candidate. Read-only;
    `optimize` makes it, `Study.open` reads it."""

    def __init__(self, out: Path, state: StudyState) -> None:
        self.out, self.state = Path(out), state
        self._best = self.out.resolve() / "best"  # wherever the program goes from here

    @classmethod
    def open(cls, out: str | Path) -> Study:
        """The study in a folder. StoreError if there is none."""
        if not isinstance(out, (str, os.PathLike)) or not isinstance(os.fspath(out), str):
            raise InputError("this names no folder", got=repr(out), allowed="a path, as 'runs/digits'")
        state = read_state(Path(out))
        if "baseline" not in state.baselines:
            raise StoreError(
                "this study has not measured its baseline yet", got=str(out), fix=goes_on(state.config, out)
            )
        return cls(Path(out), state)

    @classmethod
    def resume(
        cls,
        out: str | Path,
        *,
        budget: Budget | None = None,
        on_event: Listener | None = None,
        trust: bool = False,
        verbose: bool | None = None,
    ) -> Study:
        """Go on with the study in a folder, as far as its budget (or a new one) allows.
        The same as `calls.resume`."""
        call = importlib.import_module(f"{__package__}.calls").resume
        again: Study = call(out, budget=budget, on_event=on_event, trust=trust, verbose=verbose)
        return again

    def __repr__(self) -> str:
        if "baseline" not in self.state.baselines:
            return f"Study({self.out}: nothing was measured yet)"
        return "\n  ".join([f"Study({self.out}):", *summary(self.front_json())[:2]])

    def _repr_html_(self) -> str:
        """In a notebook: what was found, and the table of the front."""
        return views.as_html(self.front_json()) if "baseline" in self.state.baselines else f"<p>{self!r}</p>"

    @property
    def config(self) -> dict[str, Any]:
        """The settings, as run.yaml holds them."""
        return self.state.begun.to_json()

    @property
    def front(self) -> pd.DataFrame:
        """The Pareto front as a table, baselines included; one row an entry, none if nothing meets
        the limits."""
        import pandas as pd

        entries = self.state.front()
        return pd.DataFrame({name: [value(e) for e in entries] for name, value in self._columns().items()})

    def _columns(self) -> dict[str, Callable[[Entry], Any]]:
        return {
            "label": lambda e: e.label,
            "trial": lambda e: e.trial,
            "target": lambda e: e.target,
            self.state.baseline.metric.name: lambda e: e.metric.value,
            "speedup": lambda e: e.speedup.ratio,
            "latency_ms": lambda e: e.latency_ms.median,
            "size_bytes": lambda e: e.size_bytes,
            "peak_memory_bytes": lambda e: e.peak_memory_bytes,
            "params": lambda e: e.params,
            "macs": lambda e: e.macs,
            "certificate": lambda e: (e.certificate or {}).get("verdict"),
        }

    def leaderboard(self) -> pd.DataFrame:
        """All that was measured, baselines too, the best first: what is within the limits by the
        geometric mean of the objectives (1: as the original), then the rest, by how far it breaks
        them."""
        import pandas as pd

        state, base = self.state, self.state.baseline
        minimize = list(state.begun.minimize)
        entries = {(e.trial, e.label, e.target): e for e in (*state.baselines.values(), *state.found())}
        score = {key: fmean(map(log, objectives(e, base, minimize))) for key, e in entries.items()}
        chosen = state.best()

        def place(item: tuple[Any, Entry]) -> tuple[Any, ...]:
            key, e = item
            return (e is not chosen, not e.feasible, distance(e.violations), score[key])

        rows = sorted(entries.items(), key=place)
        columns: dict[str, Any] = {name: [value(e) for _, e in rows] for name, value in self._columns().items()}
        columns["trial"] = pd.array(columns["trial"], dtype="Int64")
        return pd.DataFrame(
            {
                **columns,
                "score": [exp(score[key]) for key, _ in rows],
                "feasible": [e.feasible for _, e in rows],
                "breaks": ["; ".join(v["constraint"] for v in e.violations) for _, e in rows],
            }
        )

    def plot(self, x: str = "latency", y: str = "metric") -> Figure:
        """A Plotly figure of all that was measured: one quantity against another, as multiples of
        the original's. x, y: latency and "metric", or two of latency, size, memory, params, macs
        and error. InputError for others."""
        if "baseline" not in self.state.baselines:
            raise StoreError("there is nothing to plot: nothing was measured yet", got=str(self.out))
        if (x, y) != ("latency", "metric") and not {x, y} <= set(OBJECTIVES):
            raise InputError(
                "these cannot be plotted",
                got=f"{x}, {y}",
                allowed=f"latency, metric; or two of {', '.join(OBJECTIVES)}",
            )
        return views.figure(self.front_json(), self.trials(), x, y)

    @property
    def best(self) -> Found | None:
        """The winner: a candidate, or a baseline (plain int8, say) if none of them is better. None
        if nothing met the constraints: `nearest` is the candidate that breaks them least."""
        entry = self.state.best()
        return Found(self, entry) if entry else None

    @property
    def nearest(self) -> Found | None:
        """The candidate that breaks the constraints least, if none met them; else None."""
        entry = self.state.nearest()
        return Found(self, entry) if entry else None

    def front_json(self) -> dict[str, Any]:
        """front.json; of a study that runs, what it knows so far, with "running"."""
        return {**self.state.front_json(), **({"running": True} if running(self.out) else {})}

    def trials(self) -> list[dict[str, Any]]:
        return [t.to_json() for t in self.state.trials]

    def info(self) -> dict[str, Any]:
        """{"splits", "machine", "inputs", "phases_s"}: what the numbers were measured on."""
        return {**self.state.info, "phases_s": self.state.phases}

    def export(self, to: str | Path, trial: int | str | None = None) -> Path:
        """Copy the best candidate (or a trial's artifact, its best on the front; or that of a
        baseline, by its label) to a folder: a new one, or one that holds just that. InputError if
        there is none."""
        chosen = self.state.best() or self.state.nearest()
        if chosen is not None and _name(chosen) == trial and _made_of(self._best) == chosen.sha256:
            trial = None  # with its card and weights
        if trial is None:
            source = self._best
            if chosen is not None and source.is_dir() and _made_of(source) not in (None, chosen.sha256):
                raise InputError(
                    "the best candidate is another one than its folder holds",
                    got=f"{source}, and the best is {chosen.label}",
                    fix=f"{goes_on(self.state.config, self.out)}: it is written again",
                )
            if not source.is_dir() and (self.state.best() or self.state.nearest()) is not None:
                raise InputError(
                    "the best candidate's folder is not there",
                    got=str(source),
                    fix=f"{goes_on(self.state.config, self.out)}: it is written again; or name a trial: --trial N",
                )
            if not source.is_dir() or chosen is None:
                raise self._nothing()
            if self.state.packaged and sound(source, chosen.sha256)["files"] != self.state.packaged:
                raise StoreError(
                    "the best candidate's folder is not as it was written",
                    got=f"{source / MANIFEST}: other files than the study's log has",
                    fix=f"{goes_on(self.state.config, self.out)}: it is written again",
                )
        else:
            chosen = self._kept_baseline(trial) if isinstance(trial, str) else self._kept(trial)
            source = Path(chosen.artifact)
        names = [*sound(source, chosen.sha256)["files"], MANIFEST]
        if not str(to):
            raise InputError("the folder to export to has no name", got=repr(to), fix="name a new folder")
        to = Path(to)
        if to.resolve().is_relative_to(self.out.resolve()):
            raise InputError("the folder to export to is in the study's own", got=str(to), fix="name one outside of it")
        if to.exists() and not to.is_dir():
            raise InputError("the folder to export to is a file", got=str(to), fix="name a new folder")
        if to.is_dir() and _made_of(to) is not None and _same_files(source, to, names):
            return to  # a script that runs again exports again
        if to.exists() and any(to.iterdir()):
            raise InputError("the folder to export to is not empty", got=str(to), fix="name a new folder")

        def copy(part: Path) -> None:
            for name in names:  # and nothing that somebody else has put there
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, part / name)

        filled(to, copy)
        return to

    def _nothing(self) -> InputError:
        """That there is nothing to export, why, and what would help."""
        if "baseline" not in self.state.baselines:
            return InputError("this study has no best candidate to export", fix="name a trial: --trial N")
        front = self.front_json()
        return InputError(
            "this study has no best candidate to export",
            got=summary(front)[0],
            fix=f"{next_command(front, self.out)}; or export the original as it was measured: --trial baseline",
        )

    def _kept(self, trial: int) -> Entry:
        """The entry of a trial whose artifact is here: the best, if it is this trial; else of its
        entries on the front the certified one, then the one that scores best; else what else is
        kept of it."""
        state = self.state
        mine = [e for e in state.found() if e.trial == trial]
        kept = sorted({e.trial for e in state.found() if e.trial is not None and Path(e.artifact).is_dir()})
        allowed = ", ".join(map(str, kept))[:500] or "no trial's is here"
        if not mine:
            raise InputError("this trial has no artifact", got=trial, allowed=allowed)
        best = state.best() or state.nearest()
        front = sorted(state.ranked(), key=lambda e: (e.certificate or {}).get("verdict") != "certified")
        for entry in [*([best] if best else []), *front, *reversed(mine)]:
            if entry.trial == trial and Path(entry.artifact).is_dir():
                return entry
        raise InputError(
            "this trial's artifact was not kept: it is not on the front",
            got=trial,
            allowed=allowed,
            fix="name one that is on the front, or none: the best is exported",
        )

    def _kept_baseline(self, label: str) -> Entry:
        kept = {name: e for name, e in self.state.baselines.items() if Path(e.artifact).is_dir()}
        label = label if label in kept else re.sub(r" \(\d+ epochs?\)$", "", label)  # as tables have it
        if label not in kept:
            raise InputError(
                "this study has no such baseline",
                got=label,
                allowed=", ".join(map(repr, kept)) or "no baseline's artifact is here",
                fix="name a baseline by its label, or a trial by its number",
            )
        return kept[label]

    def trial(self, number: int) -> dict[str, Any]:
        """A trial as JSON data, with "printed": what its code printed, and "lines": what became of
        it, in words. InputError if there is no such trial."""
        trials = self.state.trials
        if not 0 <= number < len(trials):
            raise InputError(
                "this study has no such trial",
                got=number,
                allowed=f"0 to {len(trials) - 1}" if len(trials) else "there are none yet",
            )
        log = printed(self.out / "logs", number)
        text = log.read_bytes().decode(errors="replace") if log.is_file() else ""
        told = trials[number].to_json()
        shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", text.replace("\r\n", "\n").replace("\r", "\n"))
        return {**told, "printed": shown, "lines": trial_lines(told, self.front_json())}

    def report(self, path: str | Path, found: Analysis | None = None) -> Path:
        """Write the study's report, one HTML file, to `path`, which is returned. found: what
        `report.analysis.analyse` made of the study, if it was asked before."""
        more = {"command": command(self.state.begun, self.out), "manifest": chosen_manifest(self.state)}
        config = {**self.config, "out": str(self.out), **more}
        return html.write(Path(path), self.front_json(), self.trials(), self.info(), config, found)


def _name(entry: Entry) -> int | str:
    """By what `Study.export` knows the entry: its trial, or the label of a baseline."""
    return entry.label if entry.trial is None else entry.trial


def _made_of(folder: Path) -> str | None:
    """The sha256 of the artifact that a folder was made of; None if it does not say."""
    try:
        return str(read_json(folder / "manifest.json")["sha256"])
    except (OSError, KeyError, ValueError, TypeError):
        return None


def _same_files(source: Path, to: Path, names: list[str]) -> bool:
    """Has a folder these files of another, byte for byte, and no others?"""
    there = sorted(str(p.relative_to(to)) for p in to.rglob("*") if p.is_file())
    return there == sorted(names) and filecmp.cmpfiles(source, to, names, shallow=False)[1:] == ([], [])


class Found:
    """One entry of a study, with what can be done with it."""

    def __init__(self, study: Study, entry: Entry) -> None:
        self.study, self.entry = study, entry

    def export(self, to: str | Path) -> Path:
        """Copy the artifact, and for the best one its weights and card, to a new folder."""
        best = self.study.state.best() or self.study.state.nearest()
        return self.study.export(
            to, None if best is not None and _name(best) == _name(self.entry) else _name(self.entry)
        )

    def __repr__(self) -> str:
        e = self.entry
        return (
            f"Found({e.label}: {e.metric.name} {e.metric.value:.4f}, {e.speedup.ratio:.2f}x, "
            f"{e.size_bytes} bytes, {e.target}{'' if e.feasible else ', breaks limits'})"
        )
