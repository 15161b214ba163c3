"""The calls that run a study: `optimize`, `search`, `resume`, `dry_run`.

What `optimize` and `search` can be told is listed once, in `config.Settings`; their signatures and
docstrings are made from it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .. import registry
from ..engine.carried import carried
from ..errors import FeatherweightError, InputError, StoreError
from ..limits import LIMITS, Budget
from ..machine import machine
from ..measure.accuracy import metric_of
from ..store.manifest import sound
from ..task.load import load_task
from ..task.task import Task
from .clock import begun
from .config import Config, Settings
from .folder import check_folder
from .forecast import forecast
from .guessing import guess
from .log import Listener
from .noticed import noticed
from .process import alone
from .proxy import ProxyFilter
from .reading import begun_as, read_config, read_state
from .request import configure, objectives_of
from .results import analysed, write_results
from .run import Run
from .shorthand import ENDS, MADE_OF, task_and_recipe
from .shorthand import folder as default_folder
from .simpler import others
from .spoken import said, spoken
from .state import StudyState
from .statics import Statics, sample_shape
from .study import Study
from .trust import check_tried, check_trusted, signed

F = TypeVar("F", bound="Callable[..., Study]")


def _told(call: F) -> F:
    """The call with the settings that it takes in its signature and its docstring."""
    mode, own = call.__name__, list(inspect.signature(call).parameters.values())
    keyword = inspect.Parameter.KEYWORD_ONLY
    fields = [inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in Settings.fields(mode)]
    short = [inspect.Parameter(name, keyword, default=None, annotation="Any") for name in (*LIMITS, *ENDS)]
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*own[:-1], *short, *fields], return_annotation="Study"
    )
    call.__doc__ = f"{inspect.cleandoc(call.__doc__ or '')}\n\n{Settings.describe(mode)}\n"
    return call


@_told
def optimize(
    task: Any,
    data: Any = None,
    recipe: Any = None,
    *,
    loss: Any = None,
    metric: Any = None,
    baseline: Any = None,
    label: str | None = None,
    output: str | int | None = None,
    classes: Sequence[str] | None = None,
    class_axis: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    on_event: Listener | None = None,
    verbose: bool | None = None,
    **settings: Any,
) -> Study:
    """Search a recipe for the candidates that meet the limits, and the best of them.

        fw.optimize(net, (X, y), max_drop="1%", max_latency="0.5x", minutes=10)
        fw.optimize("task.py", max_size="300KB", trials=40)

    task: a `Task`, a task file ("FILE.py:NAME"), or a model: a module with its weights, or a class
    or function that makes one. data: of a model, (inputs, targets) or inputs alone, a Dataset, a
    DataLoader, a Hugging Face dataset, a DataFrame, a Split, or these by "train", "valid" and
    "test". recipe: the space, a recipe or steps (default: the task's own, or
    `recipes.default(task)`).

    Of a model and data: loss, metric: names, functions or torch's losses (default: what suits
    targets and outputs; without targets the model's own behaviour is kept); baseline: how the
    model is trained first, a `Train`, a recipe or epochs (None: its weights are ready); label: the
    column or key of the targets; output: which of the model's outputs counts; classes: their
    names; class_axis: the axis of outputs that has them, where there is an answer at each place
    (pixels, tokens), 1 or -1, or 0 if one number there says yes or no (None: as targets and inputs
    show); name: of the task.

    `out` is the study's folder (default: runs/NAME): the same call again goes on where it was.
    on_event: hears all that happens. verbose: show it, as a live view in a terminal or a notebook
    and as lines elsewhere (None: if nobody listens); with False, warnings go to Python's log, the
    verdict, too, if nothing was certified, and at level INFO what is measured
    (`logging.getLogger("featherweight")`).
    Raises InputError, TaskError, RecipeError or TargetError before anything runs, if the request
    cannot be met.

    Limits and ends of the search may be given by name: max_drop="1%", max_latency="0.5x",
    minutes=10 (`limits`).
    """
    began = begun()
    own = dict(zip(MADE_OF, (loss, metric, baseline, label, output, classes, class_axis, name), strict=True))
    loaded, asked = _asked("optimize", task, data, recipe, own, settings)
    return _run(loaded, asked, out, on_event, began, verbose=verbose)


@_told
def search(
    task: Any = None,
    data: Any = None,
    recipe: Any = None,
    *,
    loss: Any = None,
    metric: Any = None,
    baseline: Any = None,
    label: str | None = None,
    output: str | int | None = None,
    classes: Sequence[str] | None = None,
    class_axis: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    on_event: Listener | None = None,
    verbose: bool | None = None,
    **settings: Any,
) -> Study:
    """Search architecture and training together: `recipe` begins with `Build(net)`, whose
    fields may be holes (default: `recipes.search(task)`, a net that suits the data). The task
    needs no model: `fw.search(data=(X, y), minutes=10)`.

    Limits that a description settles (parameters, multiply-accumulates, fields that do not fit) are
    checked before anything is built, the others (latency, size, memory) on the untrained net before
    it is trained. The baseline is the task's own model, or, if it has none, a fixed sensible net
    with the longest training of the recipe; all else is as for `optimize`.
    """
    began = begun()
    own = dict(zip(MADE_OF, (loss, metric, baseline, label, output, classes, class_axis, name), strict=True))
    loaded, asked = _asked("search", task, data, recipe, own, settings)
    return _run(loaded, asked, out, on_event, began, verbose=verbose)


def _asked(
    mode: str, task: Any, data: Any, recipe: Any, own: dict[str, Any], settings: dict[str, Any]
) -> tuple[Task, Settings]:
    """The task and the settings of a call; the cheap checks come first."""
    asked = Settings.of(mode, **settings)
    registry.find("strategies", asked.strategy)
    objectives_of(asked.minimize, mode == "search", bool(asked.constraints))
    loaded, found = task_and_recipe(mode, task, data, recipe, own)
    return loaded, dataclasses.replace(asked, recipe=found)


def resume(
    out: str | Path,
    *,
    budget: Budget | None = None,
    on_event: Listener | None = None,
    trust: bool = False,
    verbose: bool | None = None,
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
    return _run(load_task(config.task), config.settings(budget), out, on_event, began, trust, verbose)


def dry_run(
    task: Any, data: Any = None, recipe: Any = None, *, mode: str = "optimize", **settings: Any
) -> dict[str, Any]:
    """What `optimize` (or `search`, by `mode`) with these settings would search and take
    (see `forecast`); checks the request as it does."""
    own = {name: settings.pop(name) for name in MADE_OF if name in settings}
    loaded, asked = _asked(mode, task, data, recipe, own, settings)
    return forecast(loaded, configure(loaded, asked))


def _run(
    task: Task,
    asked: Settings,
    out: str | Path | None,
    on_event: Listener | None,
    began: float,
    trust: bool = False,
    verbose: bool | None = None,
) -> Study:
    """A study from its request to its results. began: when the call did, from which its minutes
    count."""
    folder, before, config = _placed(task, asked, None if out is None else Path(out))
    folder.mkdir(parents=True, exist_ok=True)
    with carried(task) as reference, spoken(on_event, verbose, folder, began) as listener:
        study = _ran(task, reference, config, folder, listener, began, trust)
    said(study, on_event, verbose)
    return study


def _placed(task: Task, asked: Settings, out: Path | None) -> tuple[Path, Config | None, Config]:
    """(the study's folder, how it was begun, its settings): the one that was named, or, of
    runs/NAME, runs/NAME-2 and so on, that with the same study, else the first that is free."""
    first = default_folder(task, asked.mode) if out is None else out
    for n in range(1, 1000):
        folder = first if n == 1 else first.with_name(f"{first.name}-{n}")
        if folder.exists() and not folder.is_dir():
            raise InputError("the study's folder is a file", got=str(folder), fix="name another one: out=..")
        check_folder(folder, (before := begun_as(folder)) is not None)
        config = configure(task, asked, before)
        if out is not None or before is None or not before.differences(config):
            return folder, before, config
    raise InputError("there are a thousand studies of this name", got=str(first), fix="name a folder: out=..")


def _ran(
    task: Task, reference: Any, config: Config, folder: Path, listener: Listener, began: float, trust: bool
) -> Study:
    """reference: how a worker loads the task."""
    statics = Statics(sample_shape(task.example()), len(task.splits().train), config.constraints)
    proxy = ProxyFilter(task, **config.proxy, seed=config.seed) if config.proxy else None
    run = Run(
        config,
        reference,
        folder,
        listener,
        statics,
        proxy,
        partial(guess, task),
        partial(others, task, config.seed),
        began,
    )
    try:
        # before the first word is written: a refused run leaves no trace in the other's log
        with alone(folder):
            _check_same(run.state.config, config, folder)
            _check_whole(run.state)
            if run.state.config is not None and not trust:
                check_tried(config, str(folder), run.state)
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
    return Study(folder, run.state)


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


def _info(task: Task) -> dict[str, Any]:
    inputs = {k: {"shape": ["batch", *v.shape[1:]], "dtype": str(v.dtype)} for k, v in task.example().items()}
    m = metric_of(task)
    judged = {"name": m.name, "right_or_wrong": m.zero_one is True}
    splits = {**task.splits().report, **({"notes": list(task.notes)} if task.notes else {})}
    prepared = {"prepared": task.prepared} if task.prepared else {}
    return {"splits": splits, "machine": machine(), "inputs": inputs, "metric": judged, **prepared}
