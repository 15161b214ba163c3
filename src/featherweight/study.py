"""Studies: `optimize` runs one, `Study` is what it found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, StoreError
from .limits import Budget, Constraint
from .recipe import Recipe
from .records import Entry, Event
from .request import check_same_study, configure, read_config, settings
from .state import StudyState

if TYPE_CHECKING:
    import pandas as pd

    from .sieve import Sieve
    from .statics import Statics
    from .task import Task
    from .warm import Guess

Listener = Callable[[Event], None]


def optimize(
    task: Task | str,
    recipe: Recipe | None = None,
    *,
    target: str = "onnxruntime",
    constraints: Sequence[Constraint] = (),
    minimize: Sequence[str] | None = None,
    strategy: str = "adaptive",
    stopper: str | None = None,
    guesses: Sequence[Guess] = (),
    earlier: Sequence[str | Path] = (),
    budget: Budget,
    seed: int = 0,
    out: str | Path,
    workers: int | None = None,
    threads: int = 1,
    batch: int = 1,
    device: str = "cpu",
    reuse: bool = True,
    measure_seconds: float = 2.0,
    on_event: Listener | None = None,
) -> Study:
    """Search `recipe` (default: `recipes.default(task)`) for the candidates that meet `constraints` and minimise `minimize`
    (default: latency and size).

    target: `onnxruntime`, `openvino:bf16`, several separated by commas (a hole), or `auto` (all that run here); threads, batch:
    of one inference of the artifact. workers: trials at a time (default 1 per two cores). Without an accuracy constraint the
    metric may drop by 0.01. stopper: ends weak trials while they train (`asha`, `hyperband`, `successive_halving`, `median`; fields in
    brackets: `asha(eta=2)`). guesses: fillings, also of some holes only, to begin with. earlier: folders of studies of the same space to
    learn from. `out` is the study's folder: the same call again goes on where it was. Raises InputError, TaskError, RecipeError or
    TargetError before anything runs, if the request cannot be met.
    """
    settings = {k: v for k, v in locals().items() if k not in ("task", "recipe", "out", "on_event")}
    return _run(task, recipe, out, on_event, mode="optimize", **settings)


def search(
    task: Task | str,
    recipe: Recipe | None = None,
    *,
    compress: bool = False,
    target: str = "onnxruntime",
    constraints: Sequence[Constraint] = (),
    minimize: Sequence[str] | None = None,
    strategy: str = "adaptive",
    stopper: str | None = None,
    proxy: str | None = None,
    supernet: str | None = None,
    guesses: Sequence[Guess] = (),
    earlier: Sequence[str | Path] = (),
    budget: Budget,
    seed: int = 0,
    out: str | Path,
    workers: int | None = None,
    threads: int = 1,
    batch: int = 1,
    device: str = "cpu",
    reuse: bool = True,
    measure_seconds: float = 2.0,
    on_event: Listener | None = None,
) -> Study:
    """Search architecture and training together: `recipe` begins with `Build(net)`, whose fields may be holes (default:
    `recipes.search(task)`, a net that suits the data). The task needs no model.

    compress: the default recipe also prunes and quantizes. minimize: default the error, and without constraints also the latency.
    Limits that a description settles (parameters, multiply-accumulates, fields that do not fit) are checked before anything is built, the
    others (latency, size, memory) on the untrained net before it is trained. proxy: `naswot:0.25` trains only nets that this score puts
    among the best quarter of random ones [default share: half]. The baseline is the task's own model, or, if it has none, a fixed sensible
    net with the longest training of the recipe; all else is as for `optimize`.
    supernet: `darts`, `gumbel` or `oneshot` trains one net that holds all of the space first, and its ranking is tried first.
    """
    settings = {k: v for k, v in locals().items() if k not in ("task", "recipe", "out", "on_event")}
    return _run(task, recipe, out, on_event, mode="search", **settings)


def _run(task: Task | str | dict[str, Any], recipe: Recipe | None, out: str | Path, on_event: Listener | None, **settings: Any) -> Study:
    """A study from its request to its results."""
    from .loop import Loop
    from .task import load_task

    loaded = load_task(task)
    folder = Path(out)
    config = configure(loaded, recipe, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    loop = Loop(config, _portable(loaded), folder, on_event or (lambda _: None), _statics(loaded, config), sieve=_sieve(loaded, config))
    try:
        with loop.alone():  # before the first word is written: a refused run leaves no trace in the other's log
            check_same_study(loop.state, config, folder)
            if not loop.state.config:
                loop.record("study", {"config": config}, key="study")
                loop.record("info", {"info": _info(loaded)}, key="info")
            elif loop.state.config["budget"] != config["budget"]:
                loop.record("budget", {"budget": config["budget"]})
            try:
                loop.run()
                study = Study(folder, loop.state)
                study.write_results()
            finally:
                loop.record("close", {"spent_s": loop.spent()})
    finally:
        loop.close()
    return study


def _statics(task: Task, config: dict[str, Any]) -> Statics:
    from .statics import Statics, sample_shape

    return Statics(sample_shape(task.example()), len(task.splits().train), [Constraint(**c) for c in config["constraints"]])


def dry_run(task: Task | str, recipe: Recipe | None = None, **settings: Any) -> dict[str, Any]:
    """What `optimize` with these settings would search and take (see `forecast`); checks the request as `optimize` does."""
    from .forecast import forecast
    from .task import load_task

    loaded = load_task(task)
    return forecast(loaded, configure(loaded, recipe, **settings))


def _sieve(task: Task, config: dict[str, Any]) -> Sieve | None:
    from .sieve import Sieve

    return Sieve(task, **config["proxy"], seed=config["seed"]) if config["proxy"] else None


class Study:
    """All of one search: its trials, its front, its best candidate. Read-only; `optimize` makes it, `Study.open` reads it."""

    def __init__(self, out: Path, state: StudyState) -> None:
        self.out, self.state = Path(out), state

    @classmethod
    def open(cls, out: str | Path) -> Study:
        """The study in a folder. StoreError if there is none."""
        from .store.events import EventStore

        path = Path(out) / "study.db"
        if not path.exists():
            raise StoreError("there is no study in this folder", got=str(out), fix="name the folder that was given as --out")
        store = EventStore(path)
        try:
            state = StudyState().fold(store.read())
        finally:
            store.close()
        if "baseline" not in state.baselines:
            raise StoreError("this study has not measured its baseline yet", got=str(out), fix=f"featherweight resume {out}")
        return cls(Path(out), state)

    @classmethod
    def resume(cls, out: str | Path, *, budget: Budget | None = None, on_event: Listener | None = None) -> Study:
        """Go on with the study in a folder, as far as its budget (or a new one) allows."""
        config = read_config(Path(out))
        if config["task"] is None:
            raise InputError(
                "this study's task was made in a program, not in a file, and cannot be loaded again",
                got=config["task_name"],
                fix="call optimize(...) with the same arguments again: it goes on where it was",
            )
        return _run(config["task"], out=out, on_event=on_event, **settings(config, budget))

    @property
    def config(self) -> dict[str, Any]:
        return self.state.config

    @property
    def front(self) -> pd.DataFrame:
        """The Pareto front as a table, baselines included; one row an entry."""
        import pandas as pd

        rows = []
        for e in self.state.front():
            cert = e.certificate or {}
            rows.append(
                {
                    "label": e.label,
                    "trial": e.trial,
                    "target": e.target,
                    e.metric["name"]: e.metric["value"],
                    "speedup": e.speedup["ratio"],
                    "latency_ms": e.latency_ms["median"],
                    "size_bytes": e.size_bytes,
                    "peak_memory_bytes": e.peak_memory_bytes,
                    "params": e.params,
                    "macs": e.macs,
                    "certificate": cert.get("verdict"),
                }
            )
        return pd.DataFrame(rows)

    @property
    def best(self) -> Found | None:
        """The winner, or None if nothing met the constraints (then see `nearest`)."""
        entry = self.state.best()
        return Found(self, entry) if entry else None

    @property
    def nearest(self) -> Found | None:
        """If nothing met the constraints: what came nearest."""
        entry = self.state.nearest()
        return Found(self, entry) if entry else None

    def front_json(self) -> dict[str, Any]:
        return self.state.front_json()

    def trials(self) -> list[dict[str, Any]]:
        return [r.to_json() for r in self.state.rows]

    def info(self) -> dict[str, Any]:
        """{"splits", "machine", "inputs", "phases_s"}: what the numbers were measured on."""
        return {**self.state.info, "phases_s": self.state.phases}

    def export(self, to: str | Path, trial: int | None = None) -> Path:
        """Copy the best candidate (or a trial's artifact) to a folder. InputError if the trial has none."""
        if trial is None:
            source = self.out / "best"
            if not source.is_dir():
                raise InputError("this study has no best candidate to export", fix="name a trial: --trial N")
        else:
            rows = self.state.rows
            if not 0 <= trial < len(rows) or rows[trial].entry is None:
                raise InputError(
                    "this trial has no artifact", got=trial, allowed=", ".join(str(r.number) for r in rows if r.entry)[:500] or "none is complete"
                )
            source = Path(rows[trial].entry.artifact)  # type: ignore[union-attr]
            if not source.is_dir():
                raise InputError(
                    "this trial's artifact was not kept: it is not on the front",
                    got=trial,
                    fix="raise the budget and resume to make it anew, or export the best",
                )
        to = Path(to)
        if to.exists() and any(to.iterdir()):
            raise InputError("the folder to export to is not empty", got=str(to), fix="name a new folder")
        shutil.copytree(source, to, dirs_exist_ok=True)
        return to

    def write_results(self) -> None:
        """Write front.json, run.yaml, best/ and report.html; drop artifacts that are not on the front."""
        import yaml

        from .report import html
        from .store.artifacts import write_atomic

        front, config, info = self.front_json(), self.config, self.info()
        write_atomic(self.out / "front.json", json.dumps(front, indent=1))
        write_atomic(self.out / "run.yaml", yaml.safe_dump(config, sort_keys=False))
        entry = self.state.best() or self.state.nearest()
        if entry is not None:
            self._write_best(entry, front, info)
        html.write(self.out / "report.html", front, self.trials(), info, config)
        kept = {Path(e.artifact).name for e in [*self.state.baselines.values(), *self.state.front(), *([entry] if entry else [])]}
        for folder in (self.out / "artifacts").glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _write_best(self, entry: Entry, front: dict[str, Any], info: dict[str, Any]) -> None:
        """best/: the artifact's files, model/ (spec and safetensors), recipe.json, MODEL_CARD.md, manifest.json over all of them."""
        from .report.card import model_card
        from .store.artifacts import sha256_file

        final, new, old = self.out / "best", self.out / "best.new", self.out / "best.old"
        new.mkdir(exist_ok=True)
        for p in Path(entry.artifact).iterdir():
            if p.name != "manifest.json":
                shutil.copy2(p, new / p.name)
        (new / "recipe.json").write_text(json.dumps(entry.recipe, indent=1))
        (new / "MODEL_CARD.md").write_text(model_card(front, entry.to_json(), info, self.config))
        manifest = json.loads((Path(entry.artifact) / "manifest.json").read_text())
        manifest["artifact_files"] = manifest.pop("files")
        manifest["files"] = {str(p.relative_to(new)): sha256_file(p) for p in sorted(new.rglob("*")) if p.is_file() and p.name != "manifest.json"}
        (new / "manifest.json").write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.rename(final, old)
        os.rename(new, final)
        shutil.rmtree(old, ignore_errors=True)


class Found:
    """One entry of a study, with what can be done with it."""

    def __init__(self, study: Study, entry: Entry) -> None:
        self.study, self.entry = study, entry

    def export(self, to: str | Path) -> Path:
        """Copy the artifact, and for the best one its weights and card, to a new folder."""
        best = self.study.state.best() or self.study.state.nearest()
        return self.study.export(to, None if best is not None and best.trial == self.entry.trial else self.entry.trial)

    def __repr__(self) -> str:
        e = self.entry
        return f"Found({e.label}: {e.metric['name']} {e.metric['value']:.4f}, {e.speedup['ratio']:.2f}x, {e.size_bytes} bytes, {e.target})"


def _portable(task: Task) -> Any:
    """The task for a worker process: its reference, or itself by value."""
    if task.ref is not None:
        return task.ref
    import base64

    import cloudpickle

    try:
        return base64.b64encode(cloudpickle.dumps(task)).decode()
    except Exception as e:  # user objects fail to pickle in any way they like
        raise InputError(
            "this task cannot be sent to a worker process",
            got=f"{type(e).__name__}: {e}",
            fix="put it into a file and give the file's name, as in optimize('task.py:task', ...)",
        ) from e


def _info(task: Task) -> dict[str, Any]:
    from .machine import machine

    inputs = {k: {"shape": ["batch", *v.shape[1:]], "dtype": str(v.dtype)} for k, v in task.example().items()}
    return {"splits": task.splits().report, "machine": machine(), "inputs": inputs}
