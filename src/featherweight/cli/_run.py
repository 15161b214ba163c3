"""Running a study with the live view on, and printing what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..report import units, words
from . import _request
from ._live import LiveView
from ._shared import INTERRUPTED, err_console, out_console, print_json, print_study

if TYPE_CHECKING:
    from ..study.study import Study
    from ..task.task import Task


def command(mode: str, options: Mapping[str, Any]) -> int:
    """What `featherweight optimize` and `search` (the modes) do with their options, by parameter
    name; returns the exit code."""
    call, settings = _request.settings(mode, options)
    out, dry, as_json = options["out"], options["dry_run"], options["as_json"]
    if out is None and not dry:
        _request.refuse_without_out(options["task"])
    task = _request.task(options)
    if dry:
        dry_run(call, task, settings, as_json)
        return 0
    return start(call, task, settings, _request.folder(out, task, "-search" if mode == "search" else ""), as_json)


def start(call: str, task: Task, settings: Mapping[str, Any], out: Path, as_json: bool) -> int:
    """Run the study by `optimize` or `search` (the call) and print it; returns the exit code."""
    from ..study import calls

    run = calls.search if call == "search" else calls.optimize
    return watched(lambda listen: run(task, out=out, on_event=listen, **settings), out, as_json)


def watched(run: Callable[[LiveView], Study], out: Path, as_json: bool) -> int:
    """Call `run` with a listener that shows what happens; print the study; return the exit code."""
    with LiveView(err_console(), out) as view:
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
    trial, total, memory = (
        units.seconds(plan["trial_s"]),
        units.seconds(plan["total_s"]),
        units.size(plan["memory_bytes"]),
    )
    parts = f"{trial} a trial, {units.seconds(plan['baseline_s'])} the baselines, {total} in all"
    console.print(f"Predicted: {parts}, {memory} of memory.", markup=False)
    if plan["proof"] is not None:
        console.print(words.proof(plan["proof"], plan["metric"]), markup=False)
    console.print(f"How this was predicted: {plan['how']}.", markup=False, style="dim")
