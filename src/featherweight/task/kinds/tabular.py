"""Tables: a row of numbers, dates and categories, and a column to predict: a class or a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...deploy.predict import number_of, text_of
from ...errors import TaskError
from ..files import parse_ref
from ..rounding import blurred
from ..sources import local_sources
from ..task import Task
from ._columns import Prepared, described, prepared
from ._nets import net_of, training
from ._table import LABEL_COLUMNS, Table, class_numbers, complain, labels_of, names_of, pick, read_table

if TYPE_CHECKING:
    from torch import nn

    from ..data import Splits

TARGET_COLUMNS = (*LABEL_COLUMNS, "y", "outcome")
PREDICTED = ("classes", "numbers")
LOSSES = {"mse": 2, "mae": 1}  # of numbers, and the power of their scale in it
_FEW = 20  # whole numbers that are classes, at most
_SAMPLES = 150_000  # rows that the baseline's training sees, in all of its epochs
_NET = 1  # version of `Perceptron`


def tabular(
    data: str | Path,
    *,
    model: str | Path | None = None,
    label_column: str | None = None,
    predict: str | None = None,
    categorical: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    group_column: str | None = None,
    loss: str = "mse",
    metric: str | None = None,
    widest: int = 16,
    epochs: int | None = None,
    split_seed: int = 0,
) -> Task:
    """A task from a .csv, .tsv, .jsonl or .parquet file with a column to predict.

    label_column: that column. predict: classes or numbers; by default classes if it is text, or
    whole numbers of up to 20 kinds. model: FILE.py:net, a function (or module class) that takes
    features and num_classes (1 for numbers) and gives an nn.Module from [n, features] to
    [n, num_classes]; by default three hidden layers of 128. Columns are numbers, dates (ISO 8601)
    or categories; categorical: names of columns of numbers that are names; ignore: columns to leave
    out; group_column: rows with one value are in one split. What is always the same, counts the
    rows, or is another text in nearly every one, is left out.

    Inside the exported model numbers are standardised, missing ones are the mean (and a flag says
    so), and categories become learned vectors of up to `widest` numbers; what the training split
    does not have twice, or beyond the 1,000 most frequent, is one category. All that is counted on
    the training split. loss: of numbers, mse or mae, in their own units; metric: by name, by
    default accuracy, or r2 for numbers. epochs: of training for the baseline; by default so many
    that about 150,000 rows are seen, 10 to 100.
    """
    file = Path(data).resolve()
    ref = None if model is None else parse_ref(str(model), "net")
    net_file = None if ref is None else ref[0].resolve()  # before it runs: it may change the current folder
    table = read_table(file)
    target = pick("label", label_column, TARGET_COLUMNS, table, file)
    named = {"categorical": _names(categorical), "ignore": _names(ignore)}
    _check(
        file, table, {**named, "group_column": [] if group_column is None else [group_column]}, loss, predict, widest
    )
    left = {target, group_column, *named["ignore"]}
    found, notes = described(file, table, [n for n in table.names if n not in left], named["categorical"])
    targets, classes, origin = _targets(file, table, target, predict)
    if origin and metric == "mape":
        raise TaskError(
            f"float32 cannot tell the numbers in column {target!r} apart, and so no percentage of them",
            got=f"about {origin:g}",
            allowed="r2, mse, rmse, mae",
            fix="choose another metric, or predict the difference from a fixed number",
        )
    if origin:
        notes = (
            *notes,
            f"float32 cannot tell the numbers in {target!r} apart: their difference from {origin:.15g} "
            "is learned, and added to by predict",
        )
    groups = None if group_column is None else names_of(file, table, group_column, "group")
    outputs = 1 if classes is None else len(classes)
    epochs = max(10, min(100, _SAMPLES // len(targets))) if epochs is None else epochs

    @cache
    def made() -> Prepared:
        return prepared(found, table, targets, classes, groups, split_seed)

    net = None
    if ref is not None and net_file is not None:
        net = net_of(net_file, ref[1], outputs, lambda: made().features(widest))
    options: dict[str, Any] = {
        "label_column": target,
        "predict": PREDICTED[classes is None],
        "loss": loss,
        "metric": metric,
    }
    options |= {"widest": widest, "epochs": epochs, "split_seed": split_seed, "group_column": group_column}
    options |= {k: v for k, v in named.items() if v}
    return Task(
        name=f"{net_file.stem}-{file.stem}" if net_file else file.stem,
        model=lambda: _model(made(), widest, outputs, LOSSES[loss], net),
        data=lambda: _splits(made()),
        loss="cross_entropy" if classes is not None else loss,
        metric=metric or ("accuracy" if classes is not None else "r2"),
        baseline=training(epochs) if epochs else None,
        split_seed=split_seed,
        ref={
            "kind": "tabular",
            "options": {"data": str(file), **({"model": f"{net_file}:{ref[1]}"} if ref else {}), **options},
        },
        sources=(file, *(() if net_file is None else local_sources(net_file))),
        identity=(f"{_NET} {sorted(named.items())} {widest} {[(c.name, c.kind) for c in found]}",),
        notes=notes,
        prepared=_prepared([c.name for c in found], target, classes, origin),
        deploy=lambda to: {"kind": "table", "columns": made().how, **({"answers_from": origin} if origin else {})},
        front=lambda: ("columns", _front(made(), widest, outputs, LOSSES[loss])),
    )


def _splits(made: Prepared) -> Splits:
    return made.splits


def _front(made: Prepared, widest: int, outputs: int, power: int) -> dict[str, Any]:
    """The fields of `nets.columns.Columns`."""
    shift, scale = made.units or (0.0, 1.0)
    fields = {"mean": made.mean, "deviation": made.deviation, "missing": made.missing, "values": made.values}
    back = {"scale": scale, "shift": shift, "power": 0 if made.units is None else power}
    return {**fields, "classes": outputs, "widest": widest, **back}


def _model(made: Prepared, widest: int, outputs: int, power: int, net: Any) -> nn.Module:
    from ..fronts.around import Around
    from ..fronts.columns import Columns, Units
    from ..fronts.widths import widths
    from ._perceptron import Perceptron

    front = Columns(made.mean, made.deviation, made.missing, widths(made.values, widest))
    inside = Perceptron(made.features(widest), outputs) if net is None else net()
    return Around(front, inside, None if made.units is None else Units(made.units[1], made.units[0], power))


def own_module(columns: Sequence[Mapping[str, Any]], shapes: Mapping[str, Sequence[int]]) -> nn.Module:
    """The net of a task without a `model`, untrained: of columns as deployment.json has them and
    the shapes of saved tensors. KeyError if these are of no such net."""
    from ..fronts.around import Around
    from ..fronts.columns import Columns, Units
    from ._perceptron import HIDDEN, Perceptron

    numbers = [c for c in columns if c["type"] != "category"]
    missing = sum(bool(c["missing"]) for c in numbers)
    tables = [shapes[f"front.tables.{i}.weight"] for i in range(len(columns) - len(numbers))]
    sizes = [(int(values), int(width)) for values, width in tables]
    front = Columns([0.0] * len(numbers), [1.0] * len(numbers), missing, sizes)
    outputs = shapes[f"net.layers.{4 * len(HIDDEN)}.bias"][0]
    inside = Perceptron(len(numbers) + missing + sum(width for _, width in sizes), outputs)
    return Around(front, inside, Units(1.0, 0.0) if "back.scale" in shapes else None)


def _prepared(names: Sequence[str], target: str, classes: Sequence[str] | None, origin: float) -> str:
    """What `deploy.predict.columns` does, in words."""
    said = "logits, one a class: " + ", ".join(classes) if classes is not None else f"{target!r} in its own units"
    said += f", less {origin:.15g} (answers_from)" if origin else ""
    return (
        f"Of each row the columns {', '.join(names)}: numbers (dates as days since 1970; less `origin` and divided "
        f"by `unit`, in float64, where deployment.json names these) as float32, with a flag for those that may have no "
        f"value; of categories the place in the list of deployment.json, from 1 on, 0 for any other. They are "
        f"standardised and embedded inside the model. The outputs are {said}."
    )


def _names(given: str | Sequence[str]) -> list[str]:
    names = given.split(",") if isinstance(given, str) else list(given)
    return [str(n).strip() for n in names if str(n).strip()]


def _check(file: Path, table: Table, named: dict[str, list[str]], loss: str, predict: str | None, widest: int) -> None:
    for option, names in named.items():
        if unknown := [n for n in names if n not in table.names]:
            raise TaskError(
                f"{file.name} has no such column",
                got=f"{option}={', '.join(unknown)}",
                allowed=f"columns: {', '.join(table.names)}"[:500],
            )
    if loss not in LOSSES:
        raise TaskError("no such loss of numbers", got=repr(loss), allowed=", ".join(LOSSES))
    if predict not in (None, *PREDICTED):
        raise TaskError("what is to be predicted?", got=repr(predict), allowed=", ".join(PREDICTED))
    if isinstance(widest, bool) or not isinstance(widest, int) or not 1 <= widest <= 4096:
        raise TaskError("this is no width of a category's vector", got=repr(widest), allowed="1 to 4096")


def _targets(file: Path, table: Table, name: str, predict: str | None) -> tuple[np.ndarray, list[str] | None, float]:
    """Class numbers int64 [n], the classes' names, 0; or numbers float32 [n], None, and what was
    taken off them because float32 would not tell them apart (0: nothing)."""
    cells = table.column(name)
    complain(file, f"no value in column {name!r}", [i for i, c in enumerate(cells) if text_of(c) is None])
    numbers = [number_of(c) for c in cells]
    if predict is None:
        whole = all(v is not None for v in numbers)
        few = len(set(numbers)) <= _FEW and all(v is not None and float(v).is_integer() for v in numbers)
        predict = "numbers" if whole and not few else "classes"
    if predict == "classes":
        targets, classes = class_numbers(labels_of(file, table, name))
        return targets, classes, 0.0
    complain(
        file, f"no number in column {name!r}", [i for i, v in enumerate(numbers) if v is None], "mend or remove them"
    )
    exact = np.array(numbers, dtype=np.float64)
    if len(np.unique(exact)) < 2:
        raise TaskError(f"column {name!r} of {file.name} is always the same", got=f"{len(exact)} rows of {exact[0]:g}")
    origin = float(exact.mean()) if blurred(exact) else 0.0
    found = (exact - origin).astype(np.float32)
    if len(np.unique(found)) < 2:
        raise TaskError(
            f"float32 cannot tell the numbers in column {name!r} of {file.name} apart",
            got=f"{exact.min():.17g} to {exact.max():.17g}",
            fix="write them in a smaller unit, or as differences",
        )
    return found, None, origin
