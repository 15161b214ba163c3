"""`featherweight doctor`: can this machine do the work, and what is it good at?"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from .. import registry
from ..child import command, environment
from ..errors import FeatherweightError, MissingExtra, StoreError
from ..machine import machine
from ..report import units
from ..store.artifacts import ArtifactStore
from ._shared import FAILED, OK, DebugOption, JsonOption, guarded, out_console, print_json

ESSENTIAL = ("torch", "onnxruntime")
RUNTIMES = (*ESSENTIAL, "openvino")
EXTRAS = {
    "openvino": ("openvino", "nncf"),
    "llm": ("transformers", "pyarrow"),
    "image": ("PIL",),
    "ray": ("ray",),
    "service": ("fastapi", "uvicorn"),
}
TIMEOUT_S = 60.0  # the first import of torch from a cold disk is slow


@dataclass(frozen=True)
class Check:
    """One finding. status: `ok`, `note` (good to know), `missing` (optional) or `broken`
    (essential, or a method that cannot be loaded)."""

    name: str
    status: str
    found: str
    fix: str | None = None


def register(app: typer.Typer) -> None:
    app.command("doctor")(guarded(doctor))


def doctor(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Check Python, runtimes, processor, memory, disk, extras, methods and plug-ins; exit code 1 if
    something essential or a method is broken.

    Each runtime is tried for a second.
    """
    checks = [*software(), *hardware(), *storage(), *extras(), *methods(), *(runtime(name) for name in RUNTIMES)]
    broken = [c for c in checks if c.status == "broken"]
    if as_json:
        print_json({"ok": not broken, "checks": [asdict(c) for c in checks]})
    else:
        _print(checks, len(broken))
    raise typer.Exit(FAILED if broken else OK)


def _print(checks: list[Check], broken: int) -> None:
    from rich.text import Text

    console = out_console()
    styles = {"ok": "green", "note": "cyan", "missing": "yellow", "broken": "bold red"}
    for c in checks:
        text = (
            Text(f"{c.status:>8}  ", style=styles[c.status])
            .append(f"{c.name}: ", style="bold")
            .append(c.found, style="")
        )
        if c.fix:
            text.append(f"\n          fix: {c.fix}", style="")
        console.print(text, soft_wrap=True)
    console.print(
        "All that is essential works." if not broken else f"{broken} essential part{'s' * (broken > 1)} broken.",
        style="bold",
    )


def software() -> list[Check]:
    """Python and the packages whose versions matter."""
    found = sys.version_info[:3]
    out = [
        Check(
            "Python",
            "ok" if found >= (3, 11) else "broken",
            ".".join(map(str, found)),
            None if found >= (3, 11) else "install Python 3.11 or newer",
        )
    ]
    versions = machine()["versions"]
    return [*out, Check("packages", "ok", ", ".join(f"{k} {v}" for k, v in versions.items()))]


def hardware() -> list[Check]:
    """The processor with what its instruction sets mean for int8 and bf16, memory,
    and the load of the moment."""
    import psutil

    m = machine()
    memory = psutil.virtual_memory()
    busy = psutil.cpu_percent(interval=0.5) / 100
    load = ", ".join(f"{v:.2f}" for v in os.getloadavg())
    quiet = busy < 0.25
    return [
        Check("processor", "ok", f"{m['cpu']}, {m['cores']} cores, {m['threads']} threads"),
        Check("8-bit integers", "note", int8_words(m["flags"])),
        Check("bfloat16", "note", bf16_words(m["flags"])),
        Check(
            "memory",
            "ok" if memory.available > 2e9 else "note",
            f"{units.size(memory.available)} of {units.size(memory.total)} free",
        ),
        Check(
            "load",
            "ok" if quiet else "note",
            f"{units.percent(busy)} busy now, load averages {load}",
            None
            if quiet
            else "intervals of timings are wider on a busy machine: stop what else runs, or give the search more time",
        ),
    ]


def int8_words(flags: dict[str, bool]) -> str:
    """What the instruction sets mean for int8 models."""
    if flags.get("amx_int8"):
        return "AMX: int8 has matrix instructions of its own, which openvino uses best"
    if flags.get("vnni"):
        return "VNNI: int8 products take far fewer instructions than fp32, so int8 models usually gain speed"
    if flags.get("avx2"):
        return (
            "AVX2 without VNNI: int8 makes models smaller, but gains little speed, and weights get 7 bits so that sums "
            "do not overflow"
        )
    return "none of AVX2, VNNI and AMX was found: int8 makes models smaller; whether it is quicker has to be measured"


def bf16_words(flags: dict[str, bool]) -> str:
    """What the instruction sets mean for bf16."""
    return (
        "AMX: openvino:bf16 is worth a try" if flags.get("amx_bf16") else "no AMX: bf16 is not expected to gain speed"
    )


def storage() -> list[Check]:
    """The artifact store's disk and the event store's database."""
    try:
        stats = ArtifactStore().stats()
    except StoreError as e:
        return [Check("cache", "broken", f"{e.what}: {e.got}", e.fix)]
    free = shutil.disk_usage(stats["root"]).free
    out = [
        Check(
            "cache",
            "ok" if free > 2e9 else "note",
            (
                f"{stats['root']}: {units.size(stats['bytes'])} used of {units.size(stats['limit_bytes'])}, "
                f"{units.size(free)} free on the disk"
            ),
            None if free > 2e9 else "featherweight cache --limit 1GB, or set FEATHERWEIGHT_CACHE to a larger disk",
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "test.db")
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        connection.close()
    return [*out, Check("SQLite", "ok" if mode == "wal" else "broken", f"{sqlite3.sqlite_version}, journal {mode}")]


def extras() -> list[Check]:
    """Optional packages, with the command that installs them."""
    out = []
    for extra, modules in EXTRAS.items():
        gone = [m for m in modules if importlib.util.find_spec(m) is None]
        status, found = ("missing", f"not installed: {', '.join(gone)}") if gone else ("ok", "installed")
        out.append(Check(f"extra {extra}", status, found, f"pip install 'featherweight[{extra}]'" if gone else None))
    return out


def methods() -> list[Check]:
    """Whether every method can be loaded, those of plug-ins, too;
    one finding for all, and one for each that cannot."""
    broken: list[Check] = []
    for group in registry.GROUPS:
        for kind in registry.names(group):
            try:
                registry.find(group, kind)
            except FeatherweightError as e:
                status = "missing" if isinstance(e, MissingExtra) else "broken"
                broken.append(
                    Check(f"{group} {kind}", status, e.what if e.got is None else f"{e.what} ({e.got})", e.fix)
                )
    plugged = [f"{e.name} in {group}" for group in registry.GROUPS for e in registry.plugged(group)]
    count = sum(len(registry.names(group)) for group in registry.GROUPS)
    return [
        Check(
            "methods",
            "ok",
            f"{count - len(broken)} of {count} can be loaded; from plug-ins: {', '.join(plugged) or 'none'}",
        ),
        *broken,
    ]


def runtime(name: str) -> Check:
    """Try one runtime in a process of its own."""
    if importlib.util.find_spec(name) is None:
        extra = "" if name in ESSENTIAL else "[openvino]"
        return Check(
            f"runtime {name}",
            "broken" if name in ESSENTIAL else "missing",
            "not installed",
            f"pip install 'featherweight{extra}'",
        )
    bad = "broken" if name in ESSENTIAL else "note"
    fix = f"pip install --force-reinstall {name}"
    try:
        done = subprocess.run(
            command("featherweight.cli._selftest", name),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        return Check(f"runtime {name}", bad, f"hangs: no answer in {TIMEOUT_S:g} s", fix)
    if done.returncode < 0:
        return Check(f"runtime {name}", bad, f"kills its process ({signal.Signals(-done.returncode).name})", fix)
    result = _last_json(done.stdout)
    if result is None:
        return Check(f"runtime {name}", bad, (done.stderr.strip().splitlines() or ["no answer"])[-1], fix)
    if not result["ok"]:
        return Check(f"runtime {name}", bad, str(result["error"]), fix)
    return Check(
        f"runtime {name}",
        "ok",
        (
            f"{result['version']} runs and agrees with numpy, {units.milliseconds(result['median_us'] / 1e3)} "
            "a small product"
        ),
    )


def _last_json(text: str) -> dict[str, Any] | None:
    lines = text.strip().splitlines()
    try:
        return dict(json.loads(lines[-1])) if lines else None
    except ValueError:
        return None
