"""`featherweight resume`: go on with a study."""

from __future__ import annotations

import typer

from . import _options as o
from ._shared import DebugOption, JsonOption, OutArgument, guarded


def register(app: typer.Typer) -> None:
    app.command("resume")(guarded(resume))


def resume(
    out: OutArgument,
    trials: o.Trials = None,
    minutes: o.Minutes = None,
    trial_minutes: o.TrialMinutes = None,
    trial_memory_gb: o.TrialMemory = None,
    enough: o.Enough = None,
    stall: o.Stall = None,
    least_gain: o.LeastGain = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Go on with a study where it stopped. Trials and minutes count from the study's beginning; a limit that is not given stays."""
    options = locals()
    from ..study import calls
    from . import _request, _run

    budget = _request.larger(out, options)
    raise typer.Exit(_run.watched(lambda listen: calls.resume(out, budget=budget, on_event=listen), out, as_json))
