"""The options of `optimize`, with their help. None means that it was not given: defaults are decided in one place, by `_request`.

A bracket in a help text has a backslash before it: Rich would take `[default: 1]` for a style and leave it out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..limits import OBJECTIVES
from ..registry import names

_model = partial(typer.Option, rich_help_panel="Task")
_limit = partial(typer.Option, rich_help_panel="Limits")
_search = partial(typer.Option, rich_help_panel="Search")
_output = partial(typer.Option, rich_help_panel="Output")

TaskRef = Annotated[
    str | None, typer.Argument(metavar="TASK", help="FILE.py, FILE.py:NAME, or the run.yaml of an earlier run (then --out is needed).")
]
Kind = Annotated[
    str | None, _model("--task", metavar="KIND", help="A built-in kind instead of a file, such as text-classification or image-classification.")
]
Model = Annotated[str | None, _model("--model", help="With --task: a Hugging Face folder, or FILE.py:NET.")]
Data = Annotated[str | None, _model("--data", help="With --task: a csv, jsonl or parquet file, or a folder with one folder a class.")]
TextColumn = Annotated[str | None, _model("--text-column", help="The column of the text \\[default: guessed].")]
LabelColumn = Annotated[str | None, _model("--label-column", help="The column of the label \\[default: guessed].")]
MaxLength = Annotated[int | None, _model("--max-length", help="Longest text, in tokens.")]
TaskOption = Annotated[
    list[str] | None, _model("--task-option", metavar="NAME=VALUE", help="Another option of the kind, as epochs=3. May be repeated.")
]
RecipeFile = Annotated[Path | None, _model("--recipe", help="The space to search, JSON or YAML \\[default: the task's own].")]

MaxDrop = Annotated[
    float | None, _limit("--max-drop", help="The metric may fall by this much; 0.01 is one point \\[default: 0.01 if no floor is given].")
]
MinMetric = Annotated[float | None, _limit("--min-metric", help="The metric must reach this.")]
MaxLatency = Annotated[str | None, _limit("--max-latency", help="0.7x of the original's, or 2ms.")]
MaxSize = Annotated[str | None, _limit("--max-size", help="0.5x, or 300KB.")]
MaxMemory = Annotated[str | None, _limit("--max-memory", help="Peak memory of a process that runs it: 0.8x, or 200MB.")]
MaxParams = Annotated[str | None, _limit("--max-params", help="0.5x, or 100k.")]
MaxMacs = Annotated[str | None, _limit("--max-macs", help="Multiply-accumulates of one sample: 0.5x, or 10M.")]

Minimize = Annotated[
    str | None, _search("--minimize", help=f"What to make small, separated by commas: {', '.join(OBJECTIVES)} \\[default: latency,size].")
]
Strategy = Annotated[str | None, _search("--strategy", help=f"{', '.join(names('strategies'))} \\[default: adaptive].")]
TargetText = Annotated[
    str | None, _search("--target", help="onnxruntime, openvino:bf16, several separated by commas, or auto \\[default: onnxruntime].")
]
SearchRecipe = Annotated[
    Path | None, _model("--recipe", help="The space to search, JSON or YAML; it begins with build \\[default: one that suits the data].")
]
Compress = Annotated[bool, _search("--compress", help="The default space also prunes and quantizes.")]
SearchDrop = Annotated[float | None, _limit("--max-drop", help="The metric may be this much below the baseline's.")]
SearchMinimize = Annotated[
    str | None,
    _search("--minimize", help=f"Separated by commas: {', '.join(OBJECTIVES)} \\[default: error, and without limits error,latency]."),
]
Stopper = Annotated[
    str | None,
    _search(
        "--stopper",
        help=f"Ends weak trials while they train: {', '.join(names('stoppers'))}; with settings: 'asha(eta=2)', or 'asha(min_budget=0.25)' to "
        "look after a quarter of the data.",
    ),
]
Proxy = Annotated[
    str | None,
    _search("--proxy", help=f"Trains only nets that score well untrained: {', '.join(names('models.proxies'))}; 'naswot:0.25' keeps a quarter."),
]
Supernet = Annotated[str | None, _search("--supernet", help="darts, gumbel or oneshot: train one net that holds them all first.")]
Guesses = Annotated[
    list[str] | None, _search("--guess", metavar="JSON[@WEIGHT]", help="A filling to begin with, also of some holes only. May be repeated.")
]
Earlier = Annotated[list[Path] | None, _search("--earlier", help="The folder of a study of the same space to learn from. May be repeated.")]
Enough = Annotated[float | None, _search("--enough", help="End when the metric of a candidate within the limits reaches this.")]
Stall = Annotated[int | None, _search("--stall", help="End when so many trials in a row brought nothing.")]
LeastGain = Annotated[float | None, _search("--least-gain", help="End when the strategy expects less than this, as a share.")]
Threads = Annotated[int | None, _search("--threads", help="Threads of one inference \\[default: 1].")]
Batch = Annotated[int | None, _search("--batch", help="Samples in one inference \\[default: 1].")]
Trials = Annotated[int | None, _search("--trials", help="Candidates to try \\[default: 40 if --minutes is not given either].")]
Minutes = Annotated[float | None, _search("--minutes", help="Wall time of all of it, certificates included.")]
TrialMinutes = Annotated[float | None, _search("--trial-minutes", help="Time limit of one trial.")]
TrialMemory = Annotated[float | None, _search("--trial-memory-gb", help="Memory limit of one trial.")]
Seed = Annotated[int | None, _search("--seed", help="The same seed proposes the same candidates \\[default: 0].")]
Workers = Annotated[int | None, _search("--workers", help="Trials at a time \\[default: one per two cores].")]
Reuse = Annotated[bool | None, _search("--reuse/--no-reuse", help="Take steps that were computed before from the cache \\[default: reuse].")]

OutFolder = Annotated[
    Path | None, _output("--out", help="The study's folder; the same command again goes on there \\[default: runs/TASK or runs/TASK-search].")
]
DryRun = Annotated[bool, _output("--dry-run", help="Print the space, its size and the predicted time and memory; search nothing.")]
