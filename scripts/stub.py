#!/usr/bin/env python3
"""Writes src/featherweight/__init__.pyi: what `import featherweight as fw` offers,
for type checkers and editors.

    python scripts/stub.py          writes it
    python scripts/stub.py --check  says whether it is up to date (exit code 1 if not)

Names come from where the package itself takes them: its table, the registry's built-in methods, and
`study.config.Settings`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import featherweight
from featherweight import registry
from featherweight.study.config import Settings

FILE = Path(__file__).parent.parent / "src" / "featherweight" / "__init__.pyi"
CALL = '''
def {name}(
    task: Task | str,
    recipe: Recipe | None = None,
    *,
{settings}
    out: str | Path,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Study:
    """{doc}"""'''
TYPES = {  # what a caller may give where the study keeps a tuple
    "constraints": "Sequence[Constraint]",
    "minimize": "Sequence[str] | None",
    "guesses": "Sequence[Guess]",
    "earlier": "Sequence[str | Path]",
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
    ]
    lines += [f"from . import {name} as {name}" for name in sorted(featherweight._MODULES)]
    lines += [
        f"from .{module} import {name} as {name}"
        for name, module in sorted(where.items(), key=lambda item: (item[1], item[0]))
    ]
    lines += ["", "__version__: str", *map(_call, ("optimize", "search"))]
    return "\n".join(lines) + "\n"


def _call(name: str) -> str:
    settings = []
    for f in Settings.fields(name):
        default = "" if f.name == "budget" else f" = {_said(f.default)}"
        settings.append(f"    {f.name}: {TYPES.get(f.name, f.type)}{default},")
    doc = (getattr(featherweight, name).__doc__ or "").strip().split("\n")
    return CALL.format(
        name=name,
        settings="\n".join(settings),
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
