"""`featherweight optimize`: search a recipe's space for the best model within limits."""

from __future__ import annotations

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
    from . import _run

    raise typer.Exit(_run.command("optimize", locals()))
