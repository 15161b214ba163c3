"""`featherweight search`: find an architecture, and how to train it, for a task's data."""

from __future__ import annotations

import typer

from . import _options as o
from ._shared import EXIT_CODES, DebugOption, JsonOption, guarded

EXAMPLE = "Example: featherweight search examples/digits.py --max-params 100k --max-latency 2ms --trials 30 --minutes 5 --out runs/search"


def register(app: typer.Typer) -> None:
    app.command("search", epilog=f"{EXAMPLE}\n\n{EXIT_CODES}")(guarded(search))


def search(
    task: o.TaskRef = None,
    kind: o.Kind = None,
    model: o.Model = None,
    data: o.Data = None,
    text_column: o.TextColumn = None,
    label_column: o.LabelColumn = None,
    max_length: o.MaxLength = None,
    task_option: o.TaskOption = None,
    recipe: o.SearchRecipe = None,
    compress: o.Compress = False,
    max_drop: o.SearchDrop = None,
    min_metric: o.MinMetric = None,
    max_latency: o.MaxLatency = None,
    max_size: o.MaxSize = None,
    max_memory: o.MaxMemory = None,
    max_params: o.MaxParams = None,
    max_macs: o.MaxMacs = None,
    minimize: o.SearchMinimize = None,
    strategy: o.Strategy = None,
    stopper: o.Stopper = None,
    proxy: o.Proxy = None,
    supernet: o.Supernet = None,
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
    """Search an architecture, its training and, with --compress, its compression, within your limits. The task needs no model."""
    from . import _run

    raise typer.Exit(_run.command("search", locals()))
