"""`featherweight cache`: the store of computed steps."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from ..limits import max_size
from ..report import units
from ..store.artifacts import ArtifactStore
from ._shared import DebugOption, JsonOption, guarded, out_console, print_json


def register(app: typer.Typer) -> None:
    app.command("cache")(guarded(cache))


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove every entry; studies keep their results.")] = False,
    limit: Annotated[str | None, typer.Option("--limit", help="Keep at most this much from now on, as 5GB.")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show, limit or clear the store of computed steps."""
    store = ArtifactStore()
    before = store.stats()["bytes"]
    if limit is not None:
        store.set_limit(parse_size(limit))
    if clear:
        store.clear()
    now = store.stats()
    freed = max(0, before - now["bytes"])
    if as_json:
        print_json({**now, "freed_bytes": freed})
        return
    console = out_console()
    if clear or limit is not None:
        console.print(f"Freed {units.size(freed)}.")
    console.print(
        f"{now['root']}: {now['entries']} entries, {units.size(now['bytes'])} of at most "
        f"{units.size(now['limit_bytes'])}",
        markup=False,
        soft_wrap=True,
    )


def parse_size(text: str) -> int:
    """`5GB`, `500MB` or a plain number, in bytes."""
    wrong = InputError("this is no size", got=text, allowed="5GB, 500MB, or a number of bytes")
    if text.strip().isdecimal() and len(text) < 20:
        return int(text)
    try:
        found = max_size(text)
    except InputError as e:
        raise wrong from e
    if found.relative:
        raise wrong
    return int(found.bound)
