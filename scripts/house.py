#!/usr/bin/env python3
"""The house as its imports draw it: what stands above what, and the figures of its structure.

    python scripts/house.py                 the figures of this checkout
    python scripts/house.py FOLDER          of another one

`scripts/pages.py` draws docs/house.svg with it.

Needs nothing but Python. `tests/test_layers.py` holds the code to `FLOORS`.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

FLOORS = [  # from the top down; rooms on one floor do not import each other
    ("__init__", "__main__"),
    ("cli",),
    ("study",),
    ("recipes", "report", "testing"),
    ("engine", "optuna_sampler", "warm"),
    ("strategies", "transforms"),
    ("measure", "nets", "stoppers", "surrogate"),
    ("targets",),
    ("graphs", "train"),
    ("models", "task"),
    ("digest", "limits", "pareto", "plan", "proof", "recipe", "store"),
    ("records",),
    ("space",),
    ("child", "columns", "deploy", "machine", "plain", "pt2", "registry", "seeding"),
    ("errors",),
]


class House:
    """The package below ROOT/src/featherweight: its files, their imports, its rooms.

    A file is named by its path from the package (`prune/cut.py`), a room by its folder or, for a
    file at the root, by the file's name.
    """

    def __init__(self, root: Path) -> None:
        self.src = root / "src" / "featherweight"
        self.files = {str(p.relative_to(self.src)): p.read_text() for p in sorted(self.src.rglob("*.py"))}
        self.trees = {name: ast.parse(text) for name, text in self.files.items()}

    def room(self, file: str) -> str:
        parts = Path(file).parts
        return parts[0] if len(parts) > 1 else Path(file).stem

    def folder(self, file: str) -> str:
        """The file's own folder: `transforms/prune`."""
        return str(Path(file).parent)

    def imports(self, file: str) -> Iterator[tuple[str, bool]]:
        """(imported file, inside a function?) of every import of our own,
        those for type checkers alone left out."""
        tree = self.trees[file]
        typing_only = {
            id(n)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for part in node.body
            for n in ast.walk(part)
        }
        at_head = {id(n) for n in tree.body}
        here = list(Path(file).parts[:-1])
        for node in ast.walk(tree):
            if id(node) in typing_only:
                continue
            inside = id(node) not in at_head
            if isinstance(node, ast.ImportFrom):
                if node.level:
                    base = here[: len(here) - node.level + 1]
                elif (node.module or "").split(".")[0] == "featherweight":
                    base = []
                else:
                    continue
                module = (node.module or "").split(".") if node.module else []
                module = module if node.level else module[1:]
                for alias in node.names:
                    found = self._file([*base, *module, alias.name]) or self._file([*base, *module])
                    if found is not None and found != file:
                        yield found, inside
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("featherweight."):
                        found = self._file(alias.name.split(".")[1:])
                        if found is not None:
                            yield found, inside

    def _file(self, module: list[str]) -> str | None:
        for name in ("/".join(module) + ".py", "/".join([*module, "__init__.py"])):
            if name in self.files:
                return name
        return None

    def graph(self) -> dict[str, set[str]]:
        """{file: the files that it imports}, imports inside functions too."""
        return {file: {to for to, _ in self.imports(file)} for file in self.files}

    def circles(self) -> list[list[str]]:
        """The groups of files that import each other, directly or through others (strongly
        connected components of more than one)."""
        graph, index, low, stack, on, out = self.graph(), {}, {}, [], set(), []

        def visit(v: str) -> None:  # Tarjan 1972
            index[v] = low[v] = len(index)
            stack.append(v)
            on.add(v)
            for w in graph[v]:
                if w not in index:
                    visit(w)
                    low[v] = min(low[v], low[w])
                elif w in on:
                    low[v] = min(low[v], index[w])
            if low[v] == index[v]:
                part = []
                while not part or part[-1] != v:
                    part.append(stack.pop())
                    on.discard(part[-1])
                if len(part) > 1:
                    out.append(sorted(part))

        for v in graph:
            if v not in index:
                visit(v)
        return sorted(out)

    def arrows(self) -> dict[tuple[str, str], int]:
        """{(room, room that it imports): number of imports}."""
        out: dict[tuple[str, str], int] = {}
        for file in self.files:
            for to, _ in self.imports(file):
                if self.room(file) != self.room(to):
                    out[self.room(file), self.room(to)] = out.get((self.room(file), self.room(to)), 0) + 1
        return dict(sorted(out.items()))

    def upward(self) -> list[str]:
        """Imports of a room on the same floor or above, and rooms that have no floor."""
        floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
        out = [f"{room} has no floor" for room in sorted({self.room(f) for f in self.files} - set(floor))]
        for file in self.files:
            for to, _ in self.imports(file):
                a, b = self.room(file), self.room(to)
                if "__init__" != a != b != "__init__" and floor.get(b, -1) <= floor.get(a, -1):
                    out.append(f"{file} imports {to}")
        return sorted(set(out))

    def trespassing(self) -> list[str]:
        """Imports of a file with an underscore by a file of another folder."""
        return sorted(
            {
                f"{file} imports {to}"
                for file in self.files
                for to, _ in self.imports(file)
                if Path(to).name.startswith("_")
                and Path(to).name != "__init__.py"
                and Path(to).parent != Path(file).parent
            }
        )

    def picture(self) -> str:
        """The rooms by floor and the arrows between them, as SVG. Without counts: it changes when a
        room or an arrow comes or goes, not with every import."""
        width, high, step = 150, 34, 92
        place, most = {}, max(map(len, FLOORS))
        for y, floor in enumerate(FLOORS):
            for x, room in enumerate(floor):
                place[room] = (40 + (x + (most - len(floor)) / 2) * (width + 60), 20 + y * step)
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {most * (width + 60) + 40} {len(FLOORS) * step}" '
            'font-family="sans-serif" font-size="13">',
            "<style>path{fill:none;stroke:#2b6cb0;stroke-opacity:.28}path:hover{stroke:#c05621;stroke-opacity:1}"
            "rect{fill:#fff;stroke:#1a202c}text{fill:#1a202c;text-anchor:middle}</style>",
        ]
        for a, b in self.arrows():
            if a in place and b in place and "__init__" not in (a, b):
                (x, y), (u, v) = place[a], place[b]
                x, y, u = x + width / 2, y + high, u + width / 2
                bend = min(60.0, (v - y) / 2)
                title = f"<title>{a} takes from {b}</title>"
                line = f"M{x:g} {y:g} C{x:g} {y + bend:g} {u:g} {v - bend:g} {u:g} {v:g}"
                out.append(f'<path d="{line}">{title}</path>')
        for room, (x, y) in place.items():
            shown = {"__init__": "fw"}.get(room, room)
            out.append(f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{high}" rx="4"/>')
            out.append(f'<text x="{x + width / 2:g}" y="{y + 22:g}">{shown}</text>')
        return "\n".join([*out, "</svg>"]) + "\n"

    def figures(self) -> dict[str, int | float | str]:
        lines = {f: text.count("\n") for f, text in self.files.items() if text}
        longest = max(lines, key=lines.__getitem__)
        functions = [
            (node.end_lineno or 0) - node.lineno + 1
            for tree in self.trees.values()
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        hidden = [f for f in self.files if Path(f).name.startswith("_") and Path(f).name != "__init__.py"]
        return {
            "files (not empty)": len(lines),
            "lines": sum(lines.values()),
            "median lines of a file": statistics.median(lines.values()),
            "longest file": f"{longest} ({lines[longest]})",
            "files over 250 lines": sum(n > 250 for n in lines.values()),
            "median lines of a function": statistics.median(functions),
            "longest function": max(functions),
            "modules at the root": sum("/" not in f and f != "__init__.py" for f in self.files),
            "rooms": len({self.room(f) for f in self.files} - {"__init__"}),
            "folders": len({self.folder(f) for f in self.files if "/" in f}),
            "arrows between rooms": len(self.arrows()),
            "circles of files": len(self.circles()),
            "upward arrows": len([x for x in self.upward() if "imports" in x]),
            "imports inside functions": sum(self._inner()),
            "of our own modules": sum(inside for f in self.files for _, inside in self.imports(f)),
            "files with an underscore": len(hidden),
            "imports of them from another folder": len(self.trespassing()),
            "Any in annotations": sum(
                isinstance(n, ast.Name) and n.id == "Any" for t in self.trees.values() for n in ast.walk(t)
            ),
            "dict[str, Any]": sum(text.count("dict[str, Any]") for text in self.files.values()),
            "lines over 120": sum(len(line) > 120 for text in self.files.values() for line in text.split("\n")),
        }

    def _inner(self) -> Iterator[int]:
        """Imports in the body of a function."""
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    own = [n for n in _body(node) if isinstance(n, (ast.Import, ast.ImportFrom))]
                    yield len(own)


def _body(function: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, without the functions in it."""
    for node in ast.iter_child_nodes(function):
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _body(node)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) == 2 else Path(__file__).parent.parent
    house = House(root)
    for name, value in house.figures().items():
        print(f"{name:36} {value}")
    circles = [" <-> ".join(c) for c in house.circles()]
    for title, rows in (
        ("circles", circles),
        ("upward", house.upward()),
        ("hidden, taken elsewhere", house.trespassing()),
    ):
        if rows:
            print(f"\n{title}:\n  " + "\n  ".join(rows))


if __name__ == "__main__":
    main()
