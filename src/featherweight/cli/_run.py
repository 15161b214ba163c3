"""Running a study with the live view on, and printing what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..report import units
from ..report.provable import proof
from ..study.live import LiveView
from . import _request
from ._shared import INTERRUPTED, err_console, out_console, print_json, print_study

if TYPE_CHECKING:
    from ..study.study import Study
    from ..task.task import Task


def command(mode: str, options: Mapping[str, Any]) -> int:
    """What `featherweight optimize` and `search` (the modes) do with their options, by parameter
    name; returns the exit code."""
    began = time.monotonic()
    call, settings = _request.settings(mode, options)
    out, dry, as_json = options["out"], options["dry_run"], options["as_json"]
    if out is None and not dry:
        _request.refuse_without_out(options["task"])
    task = _request.task(options)
    if dry:
        dry_run(call, task, settings, as_json)
        return 0
    folder = _request.folder(out, task, mode)
    return start(call, task, settings, folder, as_json, began)


def start(call: str, task: Task, settings: Mapping[str, Any], out: Path, as_json: bool, began: float) -> int:
    """Run the study by `optimize` or `search` (the call) and print it; returns the exit code.
    began: when the command did, from which its minutes count."""
    from ..study import calls
    from ..study.clock import since

    run = calls.search if call == "search" else calls.optimize
    with since(began):
        return watched(lambda listen: run(task, out=out, on_event=listen, **settings), out, as_json)


def watched(run: Callable[[LiveView], Study], out: Path, as_json: bool) -> int:
    """Call `run` with a listener that shows what happens; print the study; return the exit code."""
    from ..study.clock import begun

    with LiveView(err_console(), out, begun()) as view:
        found = run(view)
    code = print_study(found, out, as_json)
    return INTERRUPTED if view.interrupted else code


def dry_run(call: str, task: Task, settings: Mapping[str, Any], as_json: bool) -> None:
    """Print the space, its size, and the predicted time and memory."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..study import calls

    plan = calls.dry_run(task, mode=call, **settings)
    if as_json:
        print_json(plan)
        return
    console = out_console()
    table = Table(title="The space", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("hole", "may be", "only when"):
        table.add_column(name, overflow="fold")
    for hole in plan["space"]:
        when = " and ".join(f"{p} = {v}" for p, v in hole["when"])
        table.add_row(Text(hole["path"]), Text(str(hole["domain"])), Text(when))
    console.print(table)
    size = "without end (a hole is continuous)" if plan["size"] == "inf" else f"{int(plan['size']):,}"
    console.print(f"Candidates in the space: {size}", markup=False)
    for line in _predicted(plan):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)
    if (why := _too_short(plan)) is not None:
        console.print(why, markup=False, style="bold red")
    for note in plan["noticed"]:
        console.print(f"{note[0].upper()}{note[1:]}.", markup=False, style="bold")
    if plan["proof"] is not None:
        console.print(proof(plan["proof"], plan["metric"]), markup=False)
    elif plan["floor"]:
        text = (
            f"What the test split can certify is known once a candidate was measured: {plan['metric']} is not right or "
        )
        console.print(f"{text}wrong for each sample, and its spread decides.", markup=False)
    console.print(f"How this was predicted: {plan['how']}.", markup=False, style="dim")


def _predicted(plan: Mapping[str, Any]) -> list[str]:
    """What the search would take: parts that add up to what is said in all, and where the minutes
    end it."""
    one = f"of {units.seconds(plan['trial_s'])} each"
    trials = f"trials {one}"
    if plan["search_s"] is not None:
        trials = f"{units.seconds(plan['search_s'])} for {units.many(plan['trials'], 'trial')} {one}"
    parts = [
        f"{units.seconds(plan['baseline_s'])} for {units.many(plan['baselines'], 'baseline')} "
        f"({units.seconds(plan['first_s'])} of it for the first)",
        trials,
        *([f"{units.seconds(plan['polish_s'])} for the finalists"] if plan["polish_s"] else []),
        f"{units.seconds(plan['end_s'])} for certificates and the last timings",
    ]
    whole = f": {units.seconds(plan['sum_s'])} in all" if plan["sum_s"] is not None else ""
    lines = [f"Predicted: {', '.join(parts)}{whole}; {units.size(plan['memory_bytes'])} of memory."]
    if plan["within"]:  # of none, `_too_short` tells
        of = f" of {plan['trials']:,}" if plan["trials"] is not None else ""
        lines.append(
            f"The budget ends it after {units.seconds(60 * plan['minutes'])}: time for about "
            f"{plan['within']:,}{of} trials."
        )
    return lines


def _too_short(plan: Mapping[str, Any]) -> str | None:
    """That the minutes will not do for the first measurement, or for one trial; None if they
    will."""
    if plan["minutes"] is None or plan["within"] != 0:
        return None
    given, first, trial = (units.seconds(s) for s in (60 * plan["minutes"], plan["first_s"], plan["trial_s"]))
    if plan["first_s"] > 60 * plan["minutes"]:
        return f"Too short: {given} will not even do to make and measure the original, which takes about {first}."
    return f"Too short: {given} will hardly do for a single trial, which takes about {trial} after the baselines."
