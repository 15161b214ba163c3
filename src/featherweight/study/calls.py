"""The calls that run a study: `optimize`, `search`, `resume`, `dry_run`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..limits import Budget, Constraint
from ..machine import machine
from ..recipe import Recipe
from ..task.load import load_task
from .forecast import forecast
from .log import Listener
from .process import alone
from .proxy import ProxyFilter
from .request import configure
from .results import write_results
from .run import Run
from .settings import check_same_study, read_config, settings
from .statics import Statics, sample_shape
from .study import Study

if TYPE_CHECKING:
    from ..task.task import Task
    from ..warm.guess import Guess


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


def resume(out: str | Path, *, budget: Budget | None = None, on_event: Listener | None = None) -> Study:
    """Go on with the study in a folder, as far as its budget (or a new one) allows."""
    config = read_config(Path(out))
    if config["task"] is None:
        raise InputError(
            "this study's task was made in a program, not in a file, and cannot be loaded again",
            got=config["task_name"],
            fix="call optimize(...) with the same arguments again: it goes on where it was",
        )
    return _run(config["task"], out=out, on_event=on_event, **settings(config, budget))


def _run(task: Task | str | dict[str, Any], recipe: Recipe | None, out: str | Path, on_event: Listener | None, **settings: Any) -> Study:
    """A study from its request to its results."""
    loaded = load_task(task)
    folder = Path(out)
    config = configure(loaded, recipe, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(config, _portable(loaded), folder, on_event or (lambda _: None), _statics(loaded, config), _proxy(loaded, config))
    try:
        with alone(folder):  # before the first word is written: a refused run leaves no trace in the other's log
            check_same_study(run.state, config, folder)
            if not run.state.config:
                run.log.record("study", {"config": config}, key="study")
                run.log.record("info", {"info": _info(loaded)}, key="info")
            elif run.state.config["budget"] != config["budget"]:
                run.log.record("budget", {"budget": config["budget"]})
            try:
                run.phases()
                write_results(folder, run.state)
            finally:
                run.log.record("close", {"spent_s": run.clock.spent()})
    finally:
        run.close()
    return Study(folder, run.state)


def _statics(task: Task, config: dict[str, Any]) -> Statics:
    return Statics(sample_shape(task.example()), len(task.splits().train), [Constraint(**c) for c in config["constraints"]])


def dry_run(task: Task | str, recipe: Recipe | None = None, **settings: Any) -> dict[str, Any]:
    """What `optimize` with these settings would search and take (see `forecast`); checks the request as `optimize` does."""
    loaded = load_task(task)
    return forecast(loaded, configure(loaded, recipe, **settings))


def _proxy(task: Task, config: dict[str, Any]) -> ProxyFilter | None:
    return ProxyFilter(task, **config["proxy"], seed=config["seed"]) if config["proxy"] else None


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
    return {"splits": task.splits().report, "machine": machine(), "inputs": inputs}
