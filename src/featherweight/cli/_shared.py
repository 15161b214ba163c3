"""What the verbs share: exit codes, consoles, errors without tracebacks,
and the printing of results."""

from __future__ import annotations

import errno
import functools
import json
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from ..errors import DiskError, FeatherweightError, InputError, RecipeError, TaskError
from ..report.ahead import next_command
from ..report.table import front_table
from ..report.words import feasible, summary
from ..store.disk import FULL
from ..study.ends import NONE_FINISHED
from ._flags import in_flags

if TYPE_CHECKING:
    from rich.console import Console

    from ..study.study import Study

OK, FAILED, USAGE, INFEASIBLE, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = (
    "Exit codes: 0 fine, 1 failed, 2 wrong usage or input, 3 no candidate meets the limits, "
    "130 interrupted (what was finished is kept)."
)
# what a system says of a path that somebody named, and of which nothing was made
_OF_PATHS = (errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST)
WIDE = 200  # columns where there is no terminal
RESULTS = ("report.html", "front.json", "best", "run.yaml", "study.db")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print only JSON on standard output; all else goes to standard error.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The study's folder (--out of optimize).")]

P = ParamSpec("P")
R = TypeVar("R")


def out_console() -> Console:
    """For results: standard output. What is no terminal (a file, a pipe) gets long lines,
    not folded ones."""
    from ..report.console import SafeConsole

    console = SafeConsole(highlight=False)
    return console if console.is_terminal else SafeConsole(highlight=False, width=WIDE)


def err_console() -> Console:
    """For progress and errors: standard error."""
    from ..report.console import SafeConsole

    return SafeConsole(stderr=True, highlight=False)


def guarded(verb: Callable[P, R]) -> Callable[P, R]:
    """A verb whose errors are printed with their fix and become exit codes.
    Reads the verb's own `as_json` and `debug`."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        as_json, debug = bool(kwargs.get("as_json")), bool(kwargs.get("debug"))
        try:
            return verb(*args, **kwargs)
        except FeatherweightError as e:
            if debug:
                traceback.print_exc()
            if kwargs.get("kind") is not None:
                in_flags(e, str(kwargs["kind"]))
            _print_error(e, as_json)
            raise typer.Exit(_code(e)) from e
        except KeyboardInterrupt as e:
            _line(
                "Interrupted. What was finished is kept; the same command goes on from there.", as_json, "Interrupted"
            )
            raise typer.Exit(INTERRUPTED) from e
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except OSError as e:
            got = (f"{str(e.filename2 or e.filename)[:300]}: " if e.filename else "") + str(e.strerror)
            known: FeatherweightError | None = None
            if e.errno in FULL:
                known = DiskError("a disk is full, or cannot be written", got=got)
            elif e.errno in _OF_PATHS:
                known = InputError("this path cannot be used", got=got)
            if known is None:
                _unexpected(e, as_json, debug)
                raise typer.Exit(FAILED) from e
            _print_error(known, as_json)
            raise typer.Exit(_code(known)) from e
        except Exception as e:
            _unexpected(e, as_json, debug)
            raise typer.Exit(FAILED) from e

    return run


def _code(error: Exception) -> int:
    return USAGE if isinstance(error, (InputError, RecipeError, TaskError)) else FAILED


def _print_error(error: Any, as_json: bool) -> None:
    from rich.text import Text

    if as_json:
        print_json_error(type(error).__name__, error.what, got=error.got, allowed=error.allowed, fix=error.fix)
        return
    text = Text("Error: ", style="bold red").append(error.what, style="red")
    for name in ("got", "allowed", "fix"):
        value = getattr(error, name)
        if value is not None:
            text.append(f"\n  {name}: ", style="bold").append(str(value), style="")
    err_console().print(text, soft_wrap=True)


def print_json_error(kind: str, what: str, **details: Any) -> None:
    """{"error": {"type", "what", "got", "allowed", "fix"}} on standard output."""
    known = {k: v if isinstance(v, (int, float, str, bool, type(None))) else str(v) for k, v in details.items()}
    typer.echo(json.dumps({"error": {"type": kind, "what": what, "got": None, "allowed": None, "fix": None, **known}}))


def _line(text: str, as_json: bool, kind: str) -> None:
    if as_json:
        print_json_error(kind, text)
    else:
        err_console().print(text, style="yellow", markup=False)


def _unexpected(error: Exception, as_json: bool, debug: bool) -> None:
    """One line and the place of the saved traceback: this is our fault, not the user's."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="featherweight-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as f:
        f.write(traceback.format_exc())
    if debug:
        traceback.print_exc()
    first = (str(error).splitlines() or [""])[0]
    text = (
        f"{type(error).__name__}: {first.rstrip('.')}. This is a bug in Featherweight; run again with --debug. "
        f"The traceback is in {f.name}"
    )
    if as_json:
        print_json_error("Bug", text, fix="run again with --debug")
    else:
        err_console().print(text, style="red", markup=False, soft_wrap=True)


def print_json(data: Any) -> None:
    """Data as JSON on standard output."""
    typer.echo(json.dumps(data, indent=1))


def _verdict(front: dict[str, Any]) -> int:
    """The exit code of a study: did its trials finish, and meet the limits?"""
    if str(front.get("ended") or "").startswith(NONE_FINISHED):
        return FAILED
    return OK if feasible(front) else INFEASIBLE


def print_study(study: Study, out: Path, as_json: bool) -> int:
    """What a study found, on standard output; returns the exit code."""
    front = study.front_json()
    if as_json:
        print_json(front)
        return _verdict(front)
    console = out_console()
    console.print()
    for i, line in enumerate(summary(front)):
        console.print(line, style="bold" if i == 0 else "", markup=False, soft_wrap=not console.is_terminal)
    if front.get("ended"):
        early = "" if front["ended"].startswith(NONE_FINISHED) else " before its budget"
        console.print(f"The search ended{early}: {front['ended']}.", markup=False, soft_wrap=not console.is_terminal)
    console.print()
    console.print(front_table(front, width=console.width))
    written = [str(out / name) for name in RESULTS if (out / name).exists()]
    if written:
        console.print(f"Written: {', '.join(written)}", markup=False, soft_wrap=True)
    console.print(f"Next: {next_command(front, out)}", markup=False, soft_wrap=True, style="bold")
    return _verdict(front)
