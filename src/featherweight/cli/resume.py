"""`featherweight resume`: go on with a study."""

from __future__ import annotations

from typing import Any

import typer

from . import _options, _request, _run
from ._shared import DebugOption, JsonOption, OutArgument, guarded


def register(app: typer.Typer) -> None:
    options = {
        "out": OutArgument,
        **_options.budget(more=True),
        "trust": _options.TRUST,
        "as_json": JsonOption,
        "debug": DebugOption,
    }
    app.command("resume")(guarded(_options.shown(resume, options)))


def resume(**options: Any) -> None:
    """Go on with a study where it stopped. Trials and minutes count from the study's beginning;
    a limit that is not given stays."""
    from ..study import calls

    out, trust = options["out"], bool(options["trust"])
    budget = _request.larger(out, options)
    raise typer.Exit(
        _run.watched(
            lambda listen: calls.resume(out, budget=budget, on_event=listen, trust=trust), out, options["as_json"]
        )
    )
