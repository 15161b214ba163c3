"""`featherweight predict`: ask an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ._shared import DebugOption, JsonOption, guarded, out_console, print_json


def register(app: typer.Typer) -> None:
    app.command("predict")(guarded(predict))


def predict(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder that was exported, or a study's best/, or the study's.")
    ],
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="SAMPLE...",
            help="Images; WAV files; texts, or .txt with one a line; .csv, .npz or .npy of numbers.",
        ),
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask the model in a folder. Its own predict.py is not run: the files are data."""
    from ..deploy.predict import UNREADABLE
    from . import _deployed

    model = _deployed.read(folder)
    try:
        answers = model(given)
    except UNREADABLE as e:
        raise InputError("these samples cannot be read", got=str(e), allowed=_deployed.takes(model.spec)) from e
    if as_json:
        print_json(answers)
        return
    console = out_console()
    single = model.spec["prepare"]["kind"] in ("image", "audio") or all(not Path(g).suffix for g in given)
    names = given if single and len(given) == len(answers) else [str(i) for i in range(len(answers))]
    for name, answer in zip(names, answers, strict=True):
        console.print(f"{name}: {_said(answer)}", markup=False, soft_wrap=True)


def _said(answer: dict[str, object]) -> str:
    """An answer in words."""
    if "label" in answer:
        others = {k: v for k, v in dict(answer["probabilities"]).items() if k != answer["label"]}  # type: ignore[call-overload]
        rest = "; ".join(f"{k} {v:.1%}" for k, v in list(others.items())[:4] if v >= 0.001)
        return f"{answer['label']} ({answer['probability']:.1%}{f'; {rest}' if rest else ''})"
    if "words" in answer:
        pairs = zip(answer["words"], answer["labels"], strict=True)  # type: ignore[call-overload]
        found = "; ".join(f"{s['text']} ({s['label']}, {s['probability']:.1%})" for s in answer.get("spans", ()))  # type: ignore[attr-defined]
        return " ".join(f"{w}/{'(cut off)' if t is None else t}" for w, t in pairs) + (f"  [{found}]" if found else "")
    if "text" in answer:
        return str(answer["text"])
    if "shares" in answer:
        return "; ".join(f"{k} {v:.1%}" for k, v in dict(answer["shares"]).items())  # type: ignore[call-overload]
    if "maps" in answer:
        import numpy as np

        maps = {k: np.mean(v) for k, v in dict(answer["maps"]).items()}  # type: ignore[call-overload]
        return "; ".join(f"{k} {v:.1%}" for k, v in maps.items())
    if "labels" in answer:
        labels = answer["labels"]
        return ", ".join(labels) if isinstance(labels, list) and labels else "none of the labels"
    return json.dumps(answer["output"])
