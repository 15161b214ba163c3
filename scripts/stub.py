#!/usr/bin/env python3
"""Writes src/featherweight/__init__.pyi: what `import featherweight as fw` offers,
for type checkers and editors.

    python scripts/stub.py          writes it
    python scripts/stub.py --check  says whether it is up to date (exit code 1 if not)

Names come from where the package itself takes them: its table, the registry's built-in methods, and
the signatures of its calls, which are made from `study.config.Settings`.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path

import featherweight
from featherweight import registry
from featherweight.limits import LIMITS, Budget

FILE = Path(__file__).parent.parent / "src" / "featherweight" / "__init__.pyi"
CALL = '''
def {name}(
{arguments}
) -> Study:
    """{doc}"""'''
TYPES = {  # what a caller may give, where the call's own signature says less
    "task": "Task | nn.Module | Callable[[], nn.Module] | str | Path",
    "recipe": "Recipe | Transform | Sequence[Transform | Domain] | None",
    "loss": "str | Callable[[Any, Any], Any] | None",
    "metric": "str | Callable[[Any, Any], Any] | None",
    "baseline": "Recipe | Transform | int | None",
    "constraints": "Sequence[Constraint] | Constraint",
    "minimize": "Sequence[str] | str | None",
    "guesses": "Sequence[Guess]",
    "earlier": "Sequence[str | Path]",
    "budget": "Budget | float | None",
    "on_event": "Callable[[dict[str, Any]], None] | None",
    **dict.fromkeys(LIMITS, "str | float | None"),
    "min_metric": "float | None",
    **{f.name: str(f.type) for f in dataclasses.fields(Budget)},
}


def text() -> str:
    """The stub."""
    where = {name: module for name, module in featherweight._HOME.items() if name not in ("optimize", "search")}
    for group in featherweight._METHODS:
        for kind in sorted(registry.built_in(group)):
            where[registry.class_name(kind)] = f"{group}.{kind}"
    lines = ["# Written by scripts/stub.py; a test says when it is out of date.", ""]
    lines += [
        "from collections.abc import Callable, Sequence",
        "from pathlib import Path",
        "from typing import Any",
        "",
        "from torch import nn",
        "",
    ]
    lines += [f"from . import {name} as {name}" for name in sorted(featherweight._MODULES)]
    where["Domain"] = "space"  # for signatures; it is none of the names of `fw`
    lines += [
        f"from .{module} import {name}" + (f" as {name}" if name in featherweight.__all__ else "")
        for name, module in sorted(where.items(), key=lambda item: (item[1], item[0]))
    ]
    lines += ["", "__version__: str", *map(_call, ("optimize", "search"))]
    return "\n".join(lines) + "\n"


def _call(name: str) -> str:
    call = getattr(featherweight, name)
    arguments, named = [], False
    for p in inspect.signature(call).parameters.values():
        if p.kind is p.KEYWORD_ONLY and not named:
            arguments, named = [*arguments, "    *,"], True
        default = "" if p.default is p.empty else f" = {_said(p.default)}"
        kind = TYPES.get(p.name, p.annotation)
        kind += " | None" if p.default is None and kind != "Any" and "None" not in kind else ""
        arguments.append(f"    {p.name}: {kind}{default},")
    doc = (call.__doc__ or "").strip().split("\n")
    return CALL.format(
        name=name,
        arguments="\n".join(arguments),
        doc="\n".join(f"    {line}".rstrip() for line in doc).strip() + "\n    ",
    )


def _said(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def main() -> int:
    made = text()
    if "--check" not in sys.argv:
        FILE.write_text(made)
        return 0
    if FILE.is_file() and FILE.read_text() == made:
        return 0
    print(f"{FILE.name} is out of date: python scripts/stub.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
