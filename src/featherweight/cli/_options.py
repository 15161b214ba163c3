"""The options of `optimize` and `search`, made from what a study can be told
(`study.config.Settings`, `limits`).

None means that an option was not given: defaults are decided in one place, by `_request`.
A bracket in a help text has a backslash before it: Rich would take `[default: 1]` for a style and
leave it out.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ..limits import LIMITS, OBJECTIVES, Budget
from ..registry import built_in, names
from ..study.config import Option, Settings
from ..train.relax_settings import METHODS
from ._shared import DebugOption, JsonOption

_model = partial(typer.Option, rich_help_panel="Task")
_limit = partial(typer.Option, rich_help_panel="Limits")
_search = partial(typer.Option, rich_help_panel="Search")
_output = partial(typer.Option, rich_help_panel="Output")

# as task.kinds.kinds() says, without NumPy
_KINDS = sorted(kind.replace("_", "-") for kind in built_in("task.kinds"))

TASK: dict[str, Any] = {  # by parameter name
    "task": Annotated[
        str | None,
        typer.Argument(
            metavar="TASK",
            help="FILE.py, FILE.py:NAME, MODEL.onnx or MODEL.pt2 with --data, or the run.yaml of an earlier run (then "
            "--out is needed).",
        ),
    ],
    "kind": Annotated[
        str | None,
        _model(
            "--task",
            metavar="KIND",
            help=f"A built-in kind instead of a file: {', '.join(_KINDS)}.",
        ),
    ],
    "model": Annotated[
        str | None, _model("--model", help="With --task: a Hugging Face folder, FILE.py:NET, an .onnx or a .pt2 file.")
    ],
    "data": Annotated[
        str | None,
        _model(
            "--data",
            help="With --task: a csv, tsv, jsonl, parquet, conll or txt file, or a folder with one folder a class; of "
            "an ONNX model an .npz file.",
        ),
    ],
    "text_column": Annotated[
        str | None, _model("--text-column", help="The column of the text, or of words \\[default: guessed].")
    ],
    "label_column": Annotated[
        str | None,
        _model("--label-column", help="The column of the label, or of what is to be predicted \\[default: guessed]."),
    ],
    "max_length": Annotated[int | None, _model("--max-length", help="Longest text, in tokens.")],
    "task_option": Annotated[
        list[str] | None,
        _model("--task-option", metavar="NAME=VALUE", help="Another option of the kind, as epochs=3. May be repeated."),
    ],
}
_RECIPE = {
    "optimize": "The space to search: JSON or YAML, or ptq, cnn, encoder or mlp \\[default: the task's own].",
    "search": "The space to search, JSON or YAML; it begins with build \\[default: one that suits the data].",
}
_SEARCH_DROP = "The metric may be this much below the baseline's."
OUT = Annotated[
    Path | None,
    _output(
        "--out",
        help="The study's folder; the same command again goes on there \\[default: runs/TASK or runs/TASK-search].",
    ),
]
TRUST = Annotated[
    bool,
    _output(
        "--trust", help="Run the Python files that a study's folder or a run.yaml names, though you did not begin it."
    ),
]
DRY_RUN = Annotated[
    bool, _output("--dry-run", help="Print the space, its size and the predicted time and memory; search nothing.")
]


def takes_options(mode: str, verb: Callable[..., None]) -> Callable[..., None]:
    """`verb`, which takes its options by name in one dictionary, as Typer reads it: with a
    parameter for each option of the mode."""
    recipe = {"recipe": Annotated[Path | None, _model("--recipe", help=_RECIPE[mode])]}
    return shown(
        verb,
        {
            **TASK,
            **recipe,
            **_settings(mode),
            "out": OUT,
            "trust": TRUST,
            "dry_run": DRY_RUN,
            "as_json": JsonOption,
            "debug": DebugOption,
        },
    )


def shown(verb: Callable[..., None], options: dict[str, Any]) -> Callable[..., None]:
    """`verb` with these options, by parameter name, in its signature."""
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(option), annotation=option)
        for name, option in options.items()
    ]
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    verb.__annotations__ = dict(options)
    return verb


def budget(more: bool = False) -> dict[str, Any]:
    """An option for each part of a budget; more: of one that there is, which has no defaults."""

    def said(f: dataclasses.Field[Any]) -> str:
        text: str = f.metadata["help"]
        return text.partition(" \\[default")[0].rstrip(".") + "." if more else text

    return {
        f.name: Annotated[(int if f.name in Budget.WHOLE else float) | None, _search(_flag(f.name), help=said(f))]
        for f in dataclasses.fields(Budget)
    }


def _settings(mode: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for f in Settings.fields(mode):
        if f.name == "constraints":
            out |= {name: _limited(name, help, mode) for name, (_, help) in LIMITS.items()}
        elif f.name == "budget":
            out |= budget()
        elif f.metadata["option"] is not None:
            out[parameter(f)] = _option(f, mode)
    return out


def parameter(f: dataclasses.Field[Any]) -> str:
    """The parameter of a setting's option: `guess` of `guesses`."""
    return f.metadata["option"].flag.strip("-").partition("/")[0] or f.name


def _option(f: dataclasses.Field[Any], mode: str) -> Any:
    option: Option = f.metadata["option"]
    lists = {
        "objectives": OBJECTIVES,
        "strategies": names("strategies"),
        "stoppers": names("stoppers"),
        "proxies": names("models.proxies"),
        "supernets": METHODS,
    }
    text = (option.search if mode == "search" and option.search else option.help).format_map(
        {k: ", ".join(v) for k, v in lists.items()}
    )
    kind: Any = list[option.kind] if option.several else option.kind  # type: ignore[name-defined]
    return Annotated[
        bool if f.default is False else kind | None,
        _search(option.flag or _flag(f.name), help=text, metavar=option.metavar),
    ]


def _limited(name: str, help: str, mode: str) -> Any:
    kind: Any = float if name == "min_metric" else str
    return Annotated[
        kind | None, _limit(_flag(name), help=_SEARCH_DROP if name == "max_drop" and mode == "search" else help)
    ]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _default(option: Any) -> Any:
    """None of what may be left out, False of a switch, nothing of what has to be given."""
    base = get_args(option)[0]
    return False if base is bool else None if type(None) in get_args(base) else inspect.Parameter.empty
