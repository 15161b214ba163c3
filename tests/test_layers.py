"""Imports point down the house only."""

import ast
from pathlib import Path

SRC = Path(__file__).parent.parent / "src" / "featherweight"
LAYERS = [  # top to bottom; what stands on one line may not import each other, except within one package
    {"__init__"},
    {"cli"},
    {"service"},
    {"study"},
    {"report"},
    {"loop", "forecast"},
    {"baselines", "pausing", "warming"},
    {"request"},
    {"state"},
    {"optuna_sampler", "sieve", "statics", "terminate", "warm"},
    {"testing"},
    {"engine"},
    {"recipes"},
    {"strategies", "stoppers"},
    {"transforms"},
    {"nets"},
    {"store"},
    {"measure"},
    {"targets"},
    {"models"},
    {"train"},
    {"task"},
    {"data"},
    {"recipe"},
    {"pareto"},
    {"limits"},
    {"records"},
    {"space"},
    {"seeding", "registry"},
    {"errors"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
SIBLINGS = {"strategies", "stoppers", "transforms", "targets"}  # one method one file: methods share only base files


SAME = {"kinds": "task"}  # built-in task kinds are part of the task


def part(path):
    relative = path.relative_to(SRC)
    name = relative.parts[0] if len(relative.parts) > 1 else relative.stem
    return SAME.get(name, name)


def imports(path):
    """(package-relative module path) of every import of our own in a file, lazy ones included, type-only ones not."""
    tree = ast.parse(path.read_text())
    typing_only = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for n in ast.walk(node)}
    here = list(path.relative_to(SRC).parts[:-1])
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            names = (node.module or "").split(".") if node.module else []
            yield from ([*base, *names] if names else [*base, a.name] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "featherweight":
            yield node.module.split(".")[1:] or [node.names[0].name]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1:] for a in node.names if a.name.split(".")[0] == "featherweight" and "." in a.name)


def test_every_part_has_a_place():
    assert {part(p) for p in SRC.rglob("*.py")} <= set(RANK)


def test_imports_point_down():
    wrong = []
    for path in SRC.rglob("*.py"):
        for target in imports(path):
            to = SAME.get(target[0], target[0]) if target else ""
            if to in RANK and part(path) != "__init__" and to != part(path) and RANK[to] <= RANK[part(path)]:
                wrong.append(f"{path.relative_to(SRC)} imports {'.'.join(target)}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_methods_do_not_import_each_other():
    shared = {"base", "common", "__init__"}
    wrong = []
    for path in SRC.rglob("*.py"):
        if part(path) not in SIBLINGS or path.stem in shared:
            continue
        for target in imports(path):
            if len(target) > 1 and target[0] == part(path) and target[1] not in shared and not target[1].startswith("_"):
                wrong.append(f"{path.relative_to(SRC)} imports {'.'.join(target)}")
    assert not wrong, "\n".join(sorted(set(wrong)))
