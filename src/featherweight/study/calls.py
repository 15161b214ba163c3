"""The calls that run a study: `optimize`, `search`, `resume`, `dry_run`.

What `optimize` and `search` can be told is listed once, in `config.Settings`; their signatures and
docstrings are made from it.
"""

from __future__ import annotations

import base64
import inspect
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import FeatherweightError, InputError, StoreError
from ..limits import Budget
from ..machine import machine
from ..measure.accuracy import metric
from ..recipe import Recipe
from ..store.manifest import sound
from ..task.load import load_task
from ..task.task import Task
from .clock import begun
from .config import Config, Settings
from .folder import check_folder
from .forecast import forecast
from .guessing import guess
from .known import proven
from .log import LOGGER, Listener, logged
from .noticed import noticed
from .process import alone
from .proxy import ProxyFilter
from .reading import begun_as, read_config, read_state
from .request import configure
from .results import analysed, write_results
from .run import Run
from .state import StudyState
from .statics import Statics, sample_shape
from .study import Study
from .trust import check_tried, check_trusted, signed

F = TypeVar("F", bound="Callable[..., Study]")


def _told(call: F) -> F:
    """The call with the settings that it takes in its signature and its docstring."""
    mode, own = call.__name__, list(inspect.signature(call).parameters.values())
    fields = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        if f.name != "budget"
        else inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, annotation=f.type)
        for f in Settings.fields(mode)
    ]
    call.__signature__ = inspect.Signature([*own[:-1], *fields], return_annotation="Study")  # type: ignore[attr-defined]
    call.__doc__ = f"{inspect.cleandoc(call.__doc__ or '')}\n\n{Settings.describe(mode)}\n"
    return call


@_told
def optimize(
    task: Task | str,
    recipe: Recipe | None = None,
    *,
    out: str | Path,
    on_event: Listener | None = None,
    **settings: Any,
) -> Study:
    """Search `recipe` (default: the task's own, or `recipes.default(task)`) for the candidates that
    meet the constraints, and the best of them.

    `out` is the study's folder: the same call again goes on where it was. on_event: hears all that
    happens; without it, warnings go to Python's log, the verdict, too, if nothing was certified;
    what is measured does at level INFO (`logging.getLogger("featherweight")`). Raises InputError,
    TaskError, RecipeError or TargetError before anything runs, if the request cannot be met.
    """
    began = begun()
    asked = Settings.of("optimize", recipe, **settings)
    return _run(load_task(task), asked, out, on_event, began)


@_told
def search(
    task: Task | str,
    recipe: Recipe | None = None,
    *,
    out: str | Path,
    on_event: Listener | None = None,
    **settings: Any,
) -> Study:
    """Search architecture and training together: `recipe` begins with `Build(net)`, whose
    fields may be holes (default: `recipes.search(task)`, a net that suits the data). The task
    needs no model.

    Limits that a description settles (parameters, multiply-accumulates, fields that do not fit) are
    checked before anything is built, the others (latency, size, memory) on the untrained net before
    it is trained. The baseline is the task's own model, or, if it has none, a fixed sensible net
    with the longest training of the recipe; all else is as for `optimize`.
    """
    began = begun()
    asked = Settings.of("search", recipe, **settings)
    return _run(load_task(task), asked, out, on_event, began)


def resume(
    out: str | Path, *, budget: Budget | None = None, on_event: Listener | None = None, trust: bool = False
) -> Study:
    """Go on with the study in a folder, as far as its budget (or a new one) allows. That executes
    the Python files that the folder names: InputError if they are not those with which this user
    began the study on this machine, unless they are to be trusted."""
    began = begun()
    state = read_state(Path(out)) if Path(out).is_dir() else None
    config = read_config(Path(out)) if state is None else state.begun
    if config.task is None:
        raise InputError(
            "this study's task was made in a program, not in a file, and cannot be loaded again",
            got=config.task_name,
            fix="call optimize(...) with the same arguments again: it goes on where it was",
        )
    if not trust:
        check_trusted(config, str(out), state)
    return _run(load_task(config.task), config.settings(budget), out, on_event, began, trust)


def dry_run(
    task: Task | str, recipe: Recipe | None = None, *, mode: str = "optimize", **settings: Any
) -> dict[str, Any]:
    """What `optimize` (or `search`, by `mode`) with these settings would search and take
    (see `forecast`); checks the request as it does."""
    loaded = load_task(task)
    return forecast(loaded, configure(loaded, Settings.of(mode, recipe, **settings)))


def _run(
    task: Task, asked: Settings, out: str | Path, on_event: Listener | None, began: float, trust: bool = False
) -> Study:
    """A study from its request to its results. began: when the call did, from which its minutes
    count."""
    folder = Path(out)
    check_folder(folder, (before := begun_as(folder)) is not None)
    config = configure(task, asked, before)
    folder.mkdir(parents=True, exist_ok=True)
    statics = Statics(sample_shape(task.example()), len(task.splits().train), config.constraints)
    proxy = ProxyFilter(task, **config.proxy, seed=config.seed) if config.proxy else None
    run = Run(config, _portable(task), folder, on_event or logged, statics, proxy, partial(guess, task), began)
    try:
        # before the first word is written: a refused run leaves no trace in the other's log
        with alone(folder):
            _check_same(run.state.config, config, folder)
            _check_whole(run.state)
            if run.state.config is not None and not trust:
                check_tried(config, str(out), run.state)
            code = signed(config)
            if run.state.config is None:
                run.log.record("study", {"config": {**config.to_json(), "code": code}}, key="study")
            elif run.state.config.budget != config.budget:
                run.log.record("budget", {"budget": config.to_json()["budget"]})
            if not run.state.info:  # a new study, or one of which that was lost
                run.log.record("info", {"info": _info(task)}, key="info")
            if code is not None and run.state.begun.code != code:
                run.log.record("trusted", {"code": code})
            for note in noticed(task, config):
                run.log.warn(note)
            try:
                run.phases()
                found = analysed(run.state)
                run.log.record("results", {"interrupted": run.jobs.stop.asked})
                packaged = write_results(folder, run.state, found)
                if packaged and packaged != run.state.packaged:
                    run.log.record("packaged", {"files": packaged})
            except FeatherweightError as e:
                run.log.record("broken_off", {"reason": e.what})
                raise
            finally:
                run.log.record("close", {"spent_s": run.clock.spent()})
    finally:
        run.close()
    study = Study(folder, run.state)
    if on_event is None:
        best = run.state.best()
        LOGGER.log(logging.INFO if best is not None and proven(best) else logging.WARNING, "%r", study)
    return study


def _check_same(before: Config | None, now: Config, out: Path) -> None:
    """StoreError if the folder holds a study with other settings:
    mixing two would compare what cannot be compared."""
    odd = before.differences(now) if before is not None else []
    if before is not None and odd:
        raise StoreError(
            "this folder holds a study with other settings",
            got=f"{out}, where these were different: {', '.join(_difference(name, before, now) for name in odd)}",
            fix="use another --out, or the same settings to go on (the budget may grow)",
        )


def _difference(name: str, before: Config, now: Config) -> str:
    """A setting that differs, in words, with both values where they are short."""
    said = {"fingerprint": "the task's code or data", "original": "the task's baseline (how it is trained)"}
    was, found = getattr(before, name), getattr(now, name)
    if name == "target" and was.text == found.text:
        runtimes = (", ".join(dict.fromkeys((*one.runtimes, *one.originals))) for one in (was, found))
        return "what target {} finds installed ({}; now {})".format(was.text, *runtimes)
    if name == "target":
        was, found = was.text, found.text
    short = isinstance(was, str | int | float) and isinstance(found, str | int | float) and name not in said
    return f"{name} ({was}; now {found})" if short else said.get(name, name)


def _check_whole(state: StudyState) -> None:
    """StoreError if the file that all candidates are timed against is gone, or another one."""
    base = state.baselines.get("baseline")
    if base is None:
        return
    fix = "copy or move the whole folder, artifacts/ with it, or begin a new study with another --out"
    if not Path(base.artifact).is_dir():
        raise StoreError("the baseline's file is not in the study's folder", got=base.artifact, fix=fix)
    try:
        sound(Path(base.artifact), base.sha256)
    except (InputError, StoreError) as e:
        raise StoreError("the baseline's file is not as it was made", got=e.got, allowed=e.allowed, fix=fix) from e


def _portable(task: Task) -> Any:
    """The task for a worker process: its reference, or itself by value."""
    if task.ref is not None:
        return task.ref
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
    inputs = {k: {"shape": ["batch", *v.shape[1:]], "dtype": str(v.dtype)} for k, v in task.example().items()}
    m = metric(task.metric)
    judged = {"name": m.name, "right_or_wrong": m.zero_one is True}
    splits = {**task.splits().report, **({"notes": list(task.notes)} if task.notes else {})}
    prepared = {"prepared": task.prepared} if task.prepared else {}
    return {"splits": splits, "machine": machine(), "inputs": inputs, "metric": judged, **prepared}
