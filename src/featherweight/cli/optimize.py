"""`featherweight optimize`: search a recipe's space for the best model within limits."""

from __future__ import annotations

from typing import Any

import typer

from . import _options as o
from ._shared import EXIT_CODES, DebugOption, JsonOption, guarded

EXAMPLE = (
    "Example: featherweight optimize examples/digits.py --max-drop 0.01 --max-latency 0.7x --max-size 0.5x --trials 40 --minutes 3 --out runs/digits"
)


def register(app: typer.Typer) -> None:
    app.command("optimize", epilog=f"{EXAMPLE}\n\n{EXIT_CODES}")(guarded(optimize))


def optimize(
    task: o.TaskRef = None,
    kind: o.Kind = None,
    model: o.Model = None,
    data: o.Data = None,
    text_column: o.TextColumn = None,
    label_column: o.LabelColumn = None,
    max_length: o.MaxLength = None,
    task_option: o.TaskOption = None,
    recipe: o.RecipeFile = None,
    max_drop: o.MaxDrop = None,
    min_metric: o.MinMetric = None,
    max_latency: o.MaxLatency = None,
    max_size: o.MaxSize = None,
    max_memory: o.MaxMemory = None,
    max_params: o.MaxParams = None,
    max_macs: o.MaxMacs = None,
    minimize: o.Minimize = None,
    strategy: o.Strategy = None,
    stopper: o.Stopper = None,
    guess: o.Guesses = None,
    earlier: o.Earlier = None,
    target: o.TargetText = None,
    threads: o.Threads = None,
    batch: o.Batch = None,
    trials: o.Trials = None,
    minutes: o.Minutes = None,
    trial_minutes: o.TrialMinutes = None,
    trial_memory_gb: o.TrialMemory = None,
    enough: o.Enough = None,
    stall: o.Stall = None,
    least_gain: o.LeastGain = None,
    seed: o.Seed = None,
    workers: o.Workers = None,
    reuse: o.Reuse = None,
    out: o.OutFolder = None,
    dry_run: o.DryRun = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a model smaller and faster within your limits, and certify what comes out."""
    from . import _request, _run

    limits = {
        "max_drop": max_drop,
        "min_metric": min_metric,
        "max_latency": max_latency,
        "max_size": max_size,
        "max_memory": max_memory,
        "max_params": max_params,
        "max_macs": max_macs,
    }
    budget = {
        "trials": trials,
        "minutes": minutes,
        "trial_minutes": trial_minutes,
        "trial_memory_gb": trial_memory_gb,
        "enough": enough,
        "stall": stall,
        "least_gain": least_gain,
    }
    given: dict[str, Any] = {
        "strategy": strategy,
        "target": target,
        "threads": threads,
        "batch": batch,
        "seed": seed,
        "workers": workers,
        "reuse": reuse,
    }
    given |= {"stopper": stopper, "guesses": _request.guesses(guess), "earlier": earlier or None}
    options = {"model": model, "data": data, "text_column": text_column, "label_column": label_column, "max_length": max_length}
    settings = _request.settings(task, recipe=recipe, limits=limits, minimize=minimize, budget=budget, given=given)
    if out is None and not dry_run:
        _request.refuse_without_out(task)
    chosen = _request.task(task, kind, options, task_option or [])
    if dry_run:
        _run.dry_run(chosen, settings, as_json)
        return
    raise typer.Exit(_run.start(chosen, settings, _request.folder(out, chosen), as_json))
