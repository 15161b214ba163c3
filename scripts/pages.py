#!/usr/bin/env python3
"""Writes the pages that are made from the code: docs/methods.md (all methods, from the registry)
and docs/house.svg (the rooms, from the imports).

    python scripts/pages.py          writes them
    python scripts/pages.py --check  names those that are out of date (exit code 1 if there are any)
"""

from __future__ import annotations

import sys
from pathlib import Path

from featherweight.report.methods import page

sys.path.insert(0, str(Path(__file__).parent.parent))
from scripts.house import House  # noqa: E402

ROOT = Path(__file__).parent.parent
PAGES = {"docs/methods.md": page, "docs/house.svg": lambda: House(ROOT).picture()}


def main() -> int:
    made = {ROOT / name: text() for name, text in PAGES.items()}
    if "--check" not in sys.argv:
        for path, text in made.items():
            path.write_text(text)
        return 0
    old = [str(p.relative_to(ROOT)) for p, text in made.items() if not p.is_file() or p.read_text() != text]
    if old:
        print(f"out of date: {', '.join(old)}; python scripts/pages.py", file=sys.stderr)
    return bool(old)


if __name__ == "__main__":
    sys.exit(main())
