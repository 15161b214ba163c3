"""`featherweight verify`: is an exported model here what it was where it was made?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..errors import StoreError
from ..report import units
from ._shared import FAILED, DebugOption, JsonOption, guarded, out_console, print_json


def register(app: typer.Typer) -> None:
    app.command("verify")(guarded(verify))


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder that was exported, or a study's best/, or the study's.")
    ],
    seconds: Annotated[float, typer.Option("--seconds", help="Time for the timing.", min=0.01, max=3600.0)] = 2.0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare a folder's files with its manifest, the output for its sample with the one that was
    kept, and its speed with what was measured. Exit code 1 if it is not what it was."""
    from ..measure.run import measure
    from . import _artifact, _deployed

    model = _deployed.read(folder)
    try:
        fine, said = model.check()
    except (OSError, ValueError, KeyError, TypeError) as e:  # a sample that is none
        raise StoreError("the sample of this folder cannot be read", got=f"{type(e).__name__}: {e}"[:300]) from e
    artifact = _artifact.read(model.folder)
    with tempfile.TemporaryDirectory(prefix="featherweight-") as work:
        found = measure(
            model.folder,
            artifact.target,
            reference=None,
            example=artifact.example(),
            inputs=None,
            seconds=seconds,
            timeout_s=seconds + 600.0,
            workdir=Path(work),
        )
    measured = model.spec.get("measured") or {}
    times = found.latency_ms
    facts = {
        "files": "as the manifest says",
        "sample": said,
        "sound": fine,
        "latency_ms": None if times is None else times.median,
        "latency_ms_measured": measured.get("latency_ms"),
        "peak_memory_bytes": found.peak_memory_bytes,
    }
    if as_json:
        print_json(facts)
    else:
        console = out_console()
        console.print("Files: as the manifest says.", markup=False)
        console.print(f"Sample: {said}.", markup=False, style="" if fine else "bold red", soft_wrap=True)
        if times is not None:
            before = measured.get("latency_ms")
            told = f"; {units.milliseconds(before)} where it was made, on {measured.get('cpu')}" if before else ""
            console.print(
                f"Speed: {units.milliseconds(times.median)} an inference here (median of {times.n}, p90 "
                f"{units.milliseconds(times.p90)}){told}.",
                markup=False,
                soft_wrap=True,
            )
        console.print("It is what it was." if fine else "It is NOT what it was.", style="bold")
    if not fine:
        raise typer.Exit(FAILED)
