"""`featherweight measure`: time an artifact on this machine, alone or against another."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..limits import max_memory as memory_limit
from ..records import Measured
from ..report import units
from ..report.rows import speed_claim
from ._shared import DebugOption, JsonOption, guarded, out_console, print_json

# to load and run: a hanging runtime is an error, not a hanging command; and if it compiles before
TIMEOUT_S, COMPILES_S = 60.0, 600.0
_BYTES_IN_S = 20_000_000  # of a file, that surely are read in a second
# what an artifact may take: a runtime, and so many bytes for each of its files and inputs
_RUNTIME, _FOR_FILES, _FOR_INPUTS = 800_000_000, 10, 100


def register(app: typer.Typer) -> None:
    app.command("measure")(guarded(measure))


def measure(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder with a manifest.json, such as OUT/best.")
    ],
    against: Annotated[
        Path | None, typer.Option("--against", help="Another artifact, timed in turns with the first.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Time for the timing.", min=0.01, max=3600.0)] = 3.0,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of one inference \\[default: the manifest's].")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            help="End it when it takes more \\[default: 0.8 GB, and 10 times its files and 100 times its inputs].",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help="Seconds to load and run it \\[default: 60, or 600 if it compiles, and 1 for each 20 MB].",
            min=1.0,
            max=86400.0,
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure an artifact's latency and memory in a fresh process. The inputs are random:
    accuracy is not measured."""
    from ..measure.run import measure as run
    from . import _artifact

    mine = _artifact.read(artifact, threads)
    other = None if against is None else _artifact.read(against, threads)
    example = mine.example()
    files = mine.size_bytes + (0 if other is None else other.size_bytes)
    compiles = any(a is not None and a.target.mode for a in (mine, other))
    least_s = COMPILES_S if compiles else TIMEOUT_S
    inputs = mine.target.batch * sum(v.nbytes for v in example.values())
    with tempfile.TemporaryDirectory(prefix="featherweight-") as work:
        found = run(
            artifact,
            mine.target,
            reference=None if against is None or other is None else (against, other.target),
            example=example,
            inputs=None,
            seconds=seconds,
            timeout_s=seconds + (timeout or least_s + files / _BYTES_IN_S),
            memory_bytes=_limit(max_memory)
            if max_memory is not None
            else _RUNTIME + _FOR_FILES * files + _FOR_INPUTS * inputs,
            workdir=Path(work),
        )
    if as_json:
        numbers = found.to_json()
        facts = {"artifact": str(artifact), "target": str(mine.target), "against": against and str(against)}
        print_json(facts | {k: numbers[k] for k in ("latency_ms", "reference_ms", "speedup", "peak_memory_bytes")})
    else:
        _print(artifact, str(mine.target), against, found)


def _limit(text: str) -> int:
    limit = memory_limit(text)
    if limit.relative:
        raise InputError("there is nothing that this is relative to", got=f"--max-memory {text}", allowed="as 2GB")
    return int(limit.bound)


def _print(artifact: Path, target: str, against: Path | None, found: Measured) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(text, markup=False, soft_wrap=True, style=style)

    console = out_console()
    for name, times in ((artifact, found.latency_ms), (against, found.reference_ms)):
        if times is not None:
            median, p90, cpu = map(units.milliseconds, (times.median, times.p90, times.cpu_median))
            say(
                f"{name}: median {median}, p90 {p90}, CPU {cpu} an inference "
                f"(n = {times.n}, others used {units.percent(times.load)} of the machine)"
            )
    memory = units.size(found.peak_memory_bytes)
    say(f"target {target}; a process that loads and runs the first needs {memory}; inputs are random")
    speed = found.speedup
    if speed is not None:
        word = speed_claim(speed.to_json())
        shown = word != "no difference shown"
        verdict = (
            f"{artifact} is {word} than {against}"
            if shown
            else f"no difference in speed shown between {artifact} and {against}"
        )
        interval = units.between(*(units.ratio(end) for end in speed.ci95))
        say(
            (
                f"{verdict}: its speed is {units.ratio(speed.ratio)} (95 % interval {interval}, {speed.clock} time, "
                f"{speed.n} rounds)"
            ),
            "bold",
        )
