"""The command line: `featherweight VERB`. One file per verb, no logic;
heavy modules are imported when a verb runs."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from typing import Annotated

import typer

from featherweight import __version__

from . import (
    cache,
    doctor,
    export,
    front,
    measure,
    methods,
    optimize,
    predict,
    repair,
    report,
    resume,
    search,
    trial,
    verify,
)
from ._shared import EXIT_CODES, USAGE, print_json_error

HELP = (
    "The best model in its weight class: make a model smaller and faster until it meets your limits, "
    "with the evidence beside it."
)

app = typer.Typer(
    name="featherweight",
    help=HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_VERBS = (
    optimize,
    search,
    front,
    trial,
    report,
    export,
    predict,
    verify,
    measure,
    resume,
    repair,
    methods,
    cache,
    doctor,
)
for _verb in _VERBS:
    _verb.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        try:
            typer.echo(f"featherweight {version('featherweight')}")
        except PackageNotFoundError:  # run from the source tree
            typer.echo(f"featherweight {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Reads the options that come before the verb."""


root.__doc__ = HELP


def main() -> None:
    """The console script. With `--json` a wrong usage is reported as JSON too."""
    if "--json" not in sys.argv[1:]:
        app()
        return
    try:
        code = app(standalone_mode=False)
    except Exception as e:
        if not hasattr(e, "format_message"):  # not one of the parser's own errors
            raise
        print_json_error("UsageError", e.format_message(), fix="see --help")
        sys.exit(USAGE)
    sys.exit(code if isinstance(code, int) else 0)
