"""Tables as a task: what a column is, what only the training split may say, and numbers in their
own units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from featherweight import recipes
from featherweight.deploy.predict import answers, columns, day, number_of, text_of
from featherweight.errors import TaskError
from featherweight.measure.yardsticks import yardsticks
from featherweight.models.package import Package
from featherweight.nets.columns import Columns
from featherweight.nets.mlp import Mlp
from featherweight.task.data import Splits, Subset
from featherweight.task.fronts.columns import FAR, Standardise, Units
from featherweight.task.fronts.columns import Columns as Front
from featherweight.task.kinds import _columns, make_task
from featherweight.task.kinds._table import read_table
from featherweight.task.load import load_task
from featherweight.task.task import Task
from featherweight.train.loop import predict
from featherweight.transforms.base import applied
from tests import toy

NET = """
from torch import nn
def net(features, num_classes):
    return nn.Linear(features, num_classes)
def classes(num_classes):
    return nn.LazyLinear(num_classes)
def odd(width, depth):
    return None
"""


def houses(n: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "number": np.arange(1, n + 1),
            "area": rng.normal(100, 20, n).round(3),
            "colour": rng.choice(["red", "green", "blue"], n),
            "code": [f"0{i % 7}" for i in range(n)],
            "built": pd.date_range("2001-01-01", periods=n, freq="7D").strftime("%Y-%m-%d"),
            "note": [f"text {i}" for i in range(n)],
            "always": "x",
            "price": rng.normal(3e5, 5e4, n).round(2),
            "label": rng.choice(["cheap", "dear"], n),
        }
    )
    frame.loc[3, "area"] = np.nan
    frame.loc[5, "colour"] = np.nan
    return frame


def written(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        lines = [{k: v for k, v in row.items() if v == v} for row in frame.to_dict("records")]
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def made(tmp_path: Path, frame: pd.DataFrame | None = None, **options: Any) -> Task:
    return make_task("tabular", data=written(tmp_path / "t.csv", houses() if frame is None else frame), **options)


def how(task: Task) -> list[dict[str, Any]]:
    assert task.deploy is not None
    found: list[dict[str, Any]] = task.deploy(Path())["columns"]
    return found


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_in_every_format_is_the_same_task(tmp_path: Path, suffix: str) -> None:
    task = make_task("tabular", data=written(tmp_path / f"t{suffix}", houses()), ignore="price")
    reference = made(tmp_path, ignore=["price"])
    assert task.splits().fingerprint == reference.splits().fingerprint and how(task) == how(reference)
    assert [(c["name"], c["type"]) for c in how(task)] == [
        ("area", "number"),
        ("built", "date"),
        ("colour", "category"),
        ("code", "category"),
    ]
    assert how(task)[0]["missing"] and not how(task)[1]["missing"]
    assert all(name in task.notes[0] for name in ("number", "note", "always")) and "price" not in task.notes[0]
    x = task.example()
    assert x["numbers"].shape == (1, 3) and x["numbers"].dtype == np.float32
    assert x["categories"].shape == (1, 2) and x["categories"].dtype == np.int64
    assert task.splits().report["class_names"] == ["cheap", "dear"]


def test_the_reference_makes_the_same_task(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NET)
    for options in (
        {},
        {"model": f"{tmp_path / 'nets.py'}:net", "widest": 2, "categorical": "area", "label_column": "price"},
    ):
        task = made(tmp_path, **options)
        again = load_task(json.loads(json.dumps(task.ref)))
        assert again.fingerprint == task.fingerprint and again.ref == task.ref and how(again) == how(task)
        inputs = [torch.from_numpy(v) for v in task.example().values()]
        assert torch.equal(again.build()(*inputs), task.build()(*inputs))
    assert made(tmp_path, ignore="area").fingerprint != made(tmp_path).fingerprint
    assert made(tmp_path, widest=3).fingerprint != made(tmp_path).fingerprint


def test_only_the_training_split_says_what_is_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other rows may hold what they like: means, deviations and categories stay as they are."""
    frame = houses()
    task = made(tmp_path, frame, ignore="price")
    train = task.splits().train.index  # type: ignore[attr-defined]
    rest = np.setdiff1d(np.arange(len(frame)), train)
    area, colour = how(task)[0], how(task)[2]
    assert area["fill"] == pytest.approx(frame["area"][train].mean(), rel=1e-9)
    front = task.build().front.numbers
    assert float(1 / front.inverse[0]) == pytest.approx(frame["area"][train].std(ddof=0), rel=1e-5)
    assert set(colour["values"]) == set(frame["colour"][train].dropna())
    wild = frame.copy()
    wild.loc[rest, "area"] = 1e6 + rest
    wild.loc[rest, "colour"] = "pink"
    table = read_table(written(tmp_path / "wild.csv", wild))
    found, _ = _columns.described(tmp_path, table, ["area", "colour"], ())
    targets = (frame["label"] == "dear").to_numpy(dtype=np.int64)
    parts = [p.index for p in (task.splits().train, task.splits().valid, task.splits().test)]  # type: ignore[attr-defined]
    monkeypatch.setattr(_columns, "split", lambda data, **_: Splits(*(Subset(data, index) for index in parts)))
    after = _columns.prepared(found, table, targets, ["cheap", "dear"], None, 0)
    assert after.how == [area, colour]
    inside, _ = after.splits.valid.batch(np.arange(3))
    assert (inside["categories"] == 0).all() and (inside["numbers"][:, 0] > 1e6 - 1).all()


def test_rare_and_many_categories_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 300
    frame = pd.DataFrame({"word": [f"w{i % 40}" for i in range(n)], "label": ["a", "b"] * (n // 2)})
    frame.loc[0, "word"] = "once"
    monkeypatch.setattr(_columns, "MOST_VALUES", 10)
    (column,) = how(made(tmp_path, frame))
    assert len(column["values"]) == 10 and "once" not in column["values"]
    inputs = columns({"word": ["once", None, "never seen", column["values"][3]]}, [column])
    assert inputs["categories"].tolist() == [[0], [0], [0], [4]]


@pytest.mark.parametrize(
    "values, kind",
    [
        (["a", "b"], "classes"),
        ([1, 2], "classes"),
        ([0.5, 2], "numbers"),
        (list(range(40)), "numbers"),
        (["1.0", "2.0"], "classes"),
    ],
)
def test_what_is_predicted_goes_by_the_target(tmp_path: Path, values: list[Any], kind: str) -> None:
    frame = pd.DataFrame(
        {"x": np.random.default_rng(0).normal(size=120), "y": [values[i % len(values)] for i in range(120)]}
    )
    task = made(tmp_path, frame)
    assert (task.loss, task.metric) == (("cross_entropy", "accuracy") if kind == "classes" else ("mse", "r2"))
    other = made(tmp_path, frame, predict="numbers") if not isinstance(values[0], str) else task
    assert other.loss == "mse" or isinstance(values[0], str)


def test_numbers_come_out_in_their_own_units_and_learn_in_none(tmp_path: Path) -> None:
    """Training is the same whatever the unit: cents or millions."""
    frame = houses()
    frame["price"] = 3e5 + 4e4 * (frame["area"].fillna(100) - 100) / 20
    found = {}
    for unit in (1.0, 1e-6, 1e6):
        scaled = frame.assign(price=frame["price"] * unit).drop(columns="label")
        task = made(tmp_path, scaled, label_column="price", epochs=20, loss="mse")
        assert task.baseline is not None
        package = Package(task.build())
        for step in task.baseline.steps:
            package = applied(step, package, toy.context(task))
        out = predict(package.module, task.splits().valid)[:, 0]
        y = task.splits().valid.all_targets()
        assert 1 - ((out - y) ** 2).mean() / y.var() > 0.8
        found[unit] = out / unit
    assert np.allclose(found[1.0], found[1e6], rtol=2e-3) and np.allclose(found[1.0], found[1e-6], rtol=2e-3)


@pytest.mark.parametrize("power, loss", [(2, torch.nn.functional.mse_loss), (1, torch.nn.functional.l1_loss)])
def test_gradients_are_those_of_standardised_numbers(power: int, loss: Any) -> None:
    x = torch.randn(8, 1, requires_grad=True)
    z = torch.randn(8, 1)
    units = Units(250.0, 4000.0, power).train()
    loss(units(x), z * 250 + 4000).backward()
    mine = x.grad.clone()  # type: ignore[union-attr]
    x.grad = None
    loss(x, z).backward()
    assert torch.allclose(mine, x.grad, rtol=1e-3, atol=1e-6)  # type: ignore[arg-type]
    assert torch.equal(units(x), x * 250 + 4000)


def test_standardised_numbers_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([5, -3, 1e6], [1, 0.01, 1e5], (50, 3))
    missing = (rng.random((50, 1)) < 0.3).astype(float)
    front = Standardise(x.mean(0), [*x.std(0)[:2], 0.0], 1)
    given = np.concatenate([x, missing], 1).astype(np.float32)
    given[missing[:, 0] > 0, 0] = 1e30
    out = front(torch.from_numpy(given)).numpy()
    expected = (x - x.mean(0)) / x.std(0)
    assert np.allclose(out[:, 0], np.where(missing[:, 0] > 0, 0, expected[:, 0]), atol=1e-4)
    assert (
        np.allclose(out[:, 1], expected[:, 1], atol=1e-2)
        and not out[:, 2].any()
        and np.array_equal(out[:, 3:], missing)
    )
    assert float(front(torch.full((1, 4), 1e20))[0, 1]) == FAR
    whole = Front([0.0], [1.0], 0, [(3, 2), (5, 4)])(torch.ones(2, 1), torch.tensor([[0, 4], [2, 0]]))
    assert whole.shape == (2, 7)
    table = Front([], [], 0, [(3, 2)])
    assert torch.equal(table(torch.tensor([[3], [-1], [0]])), table(torch.tensor([[0]] * 3)))


@pytest.mark.parametrize(
    "change, options, said",
    [
        ({"label": [None, *["a", "b"] * 30]}, {}, r"no value in column 'label'"),
        ({"label": [f"{i} things" for i in range(61)]}, {}, "does not look like classes"),
        ({"price": [1.5] * 61}, {"label_column": "price", "predict": "numbers"}, "always the same"),
        ({"price": ["dear", *range(60)]}, {"label_column": "price", "predict": "numbers"}, "no number"),
        ({"area": ["12 m", *range(0, 180, 3)]}, {}, "row 1: '12 m'"),
        ({"area": ["inf", *range(0, 180, 3)]}, {}, "row 1: 'inf'"),
        ({"area": ["1e39", *range(0, 180, 3)]}, {}, "row 1: '1e39'"),
        ({}, {"label_column": "colur"}, "no column 'colur'"),
        ({}, {"ignore": "aera"}, "ignore=aera"),
        ({}, {"ignore": "area,price"}, "no column to learn from"),
        ({}, {"loss": "hinge"}, "no such loss"),
        ({}, {"predict": "words"}, "what is to be predicted"),
        ({}, {"widest": 0}, "no width"),
    ],
)
def test_what_cannot_be_learned_from_is_named(
    tmp_path: Path, change: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"area": rng.normal(size=61), "price": rng.normal(size=61), "label": ["a", "b"] * 30 + ["a"]})
    with pytest.raises(TaskError, match=said):
        made(tmp_path, frame.assign(**change), **options).splits()


@pytest.mark.parametrize(
    "text, said",
    [
        ("a;label\n1;x\n2;y\n", "not separated by commas"),
        ("a,a,label\n1,2,x\n", "the same name"),
        ("label\nx\ny\n", "no column to learn"),
    ],
)
def test_files_that_are_no_table_are_refused_as_for_texts(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TaskError, match=said):
        make_task("tabular", data=tmp_path / "t.csv")
    (tmp_path / "latin.csv").write_bytes("größe,label\n1,x\n".encode("latin-1"))
    with pytest.raises(TaskError, match="UTF-8"):
        make_task("tabular", data=tmp_path / "latin.csv")


def test_a_class_of_one_row_and_rows_that_are_there_twice(tmp_path: Path) -> None:
    frame = pd.concat([houses()[["area", "label"]]] * 2, ignore_index=True)
    frame.loc[len(frame)] = {"area": 1.0, "label": "only"}
    splits = made(tmp_path, frame).splits()
    assert splits.report["classes"]["2"] == {"train": 1, "valid": 0, "test": 0}
    assert splits.report["duplicates"]["copies"] >= 100
    seen = [{bytes(v) for b, _ in p.batches() for v in b["numbers"]} for p in (splits.train, splits.valid, splits.test)]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_groups_stay_whole(tmp_path: Path) -> None:
    frame = houses()[["area", "label"]].assign(who=[f"p{i % 12}" for i in range(120)])
    splits = made(tmp_path, frame, group_column="who").splits()
    sides = [{int(i) % 12 for i in p.index} for p in (splits.train, splits.valid, splits.test)]  # type: ignore[attr-defined]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_a_net_is_called_with_what_it_takes(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NET)
    task = made(tmp_path, ignore="price", model=f"{tmp_path / 'nets.py'}:net", epochs=0)
    module = task.build()
    tables = sum(table.embedding_dim for table in module.front.tables)
    assert module.net.in_features == 2 + 1 + tables and module.net.out_features == 2 and task.baseline is None
    assert made(tmp_path, model=f"{tmp_path / 'nets.py'}:classes", epochs=0).build()
    with pytest.raises(TaskError, match="wrong arguments"):
        made(tmp_path, model=f"{tmp_path / 'nets.py'}:odd")


def test_a_search_stands_behind_the_columns(tmp_path: Path) -> None:
    for options in ({"ignore": "price"}, {"label_column": "price"}):
        task = made(tmp_path, **options)
        net = recipes.search(task).steps[0].net
        assert isinstance(net, Columns) and isinstance(net.net, Mlp)
        fixed = recipes.fixed(task, recipes.search(task)).steps[0].net
        inputs = [torch.from_numpy(v) for v in task.example().values()]
        assert fixed.build()(*inputs).shape == task.build()(*inputs).shape
        assert (fixed.power, fixed.classes) == ((0, 2) if "ignore" in options else (2, 1))


def test_cells_are_read_alike_whatever_wrote_them() -> None:
    assert [text_of(v) for v in (1.0, "1", 1, None, float("nan"), " NA ", "x ", True)] == [
        "1",
        "1",
        "1",
        None,
        None,
        None,
        "x",
        "true",
    ]
    assert [number_of(v) for v in ("1e3", " 2 ", "x", None, True, "nan", "1_000")] == [
        1000,
        2,
        None,
        None,
        None,
        None,
        None,
    ]
    assert day("1970-01-02") == 1 and day("1970-01-01T12:00:00+00:00") == 0.5 and day("2 May") is None
    assert day(pd.Timestamp("1970-01-03")) == 2


def test_a_category_is_the_same_whatever_wrote_it(tmp_path: Path) -> None:
    """Training read floats and booleans, predict reads text; and the other way round."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"code": rng.integers(1, 4, 200).astype(float), "yes": rng.random(200) > 0.5})
    frame.loc[::17, "code"] = np.nan
    frame["big"] = rng.choice([1e17, 3e22], 200)
    frame["label"] = rng.choice(["a", "b"], 200)
    frame.to_parquet(tmp_path / "t.parquet")
    tasks = [
        make_task("tabular", data=tmp_path / "t.parquet", categorical="code,big"),
        make_task("tabular", data=written(tmp_path / "t.csv", frame), categorical="code,big"),
    ]
    assert "1.0" in (tmp_path / "t.csv").read_text() and "True" in (tmp_path / "t.csv").read_text()
    assert how(tasks[0]) == how(tasks[1])
    rows = frame.to_dict("records")
    for task in tasks:
        columns_of = how(task)
        found = [
            columns({c["name"]: [write(row[c["name"]]) for row in rows] for c in columns_of}, columns_of)["categories"]
            for write in (lambda v: v, str, lambda v: "" if v != v else str(int(v)) if v not in (True, False) else v)
        ]
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
        assert (found[0][1:17] > 0).all() and (found[0][0] == 0).sum() == 1


@pytest.mark.parametrize(
    "cells, text",
    [
        ([7.0, "7.0", "7", 7, "7.", np.float32(7)], "7"),
        ([True, "true", "TRUE", np.True_], "true"),
        ([0.0, -0.0, "-0.0", "0"], "0"),
        ([1e22, "1e+22", 10**22], "10000000000000000000000"),
        (["07"], "07"),
        (["1e5"], "1e5"),
        ([7.5, "7.5"], "7.5"),
        ([None, float("nan"), "", "NA"], None),
    ],
)
def test_cells_that_are_one_category(cells: list[Any], text: str | None) -> None:
    assert [text_of(cell) for cell in cells] == [text] * len(cells)


def test_numbers_far_from_zero_keep_their_differences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 1200
    frame = pd.DataFrame(
        {
            "ts": 1_700_000_000 + rng.integers(0, 600, n),
            "id": 9_000_000_000_000_000 + rng.integers(0, 100, n),
            "when": pd.date_range("2024-01-01", periods=n, freq="37s").strftime("%Y-%m-%dT%H:%M:%S"),
            "tiny": rng.normal(size=n) * 1e-40,
            "plain": rng.normal(size=n),
        }
    )
    frame["y"] = np.sin(frame["ts"] / 40) * 5 + rng.normal(size=n) * 0.1
    task = make_task("tabular", data=written(tmp_path / "t.csv", frame), label_column="y")
    x, _ = task.splits().train.batch(np.arange(400))
    of = {c["name"]: i for i, c in enumerate(how(task))}
    rows = frame.iloc[task.splits().train.index[:400]]  # type: ignore[attr-defined]
    for name in ("ts", "id", "when", "tiny", "plain"):
        assert len(np.unique(x["numbers"][:, of[name]])) == rows[name].nunique(), name
    assert "origin" not in how(task)[of["plain"]] and how(task)[of["ts"]]["unit"] == pytest.approx(173, abs=6)
    inside = task.build().front.numbers(torch.from_numpy(x["numbers"])).detach().numpy()
    z = (rows["ts"] - how(task)[of["ts"]]["origin"]) / how(task)[of["ts"]]["unit"]
    assert np.allclose(inside[:, of["ts"]], z, atol=1e-5) and np.isfinite(inside).all()
    (boosting,) = yardsticks(task)
    assert boosting.metric.value > 0.9


def test_an_old_folder_s_columns_are_read_as_they_were() -> None:
    old = [{"name": "x", "type": "number", "missing": False, "fill": 2.0}]
    old += [{"name": "c", "type": "category", "values": ["7.0", "True", "7"]}]
    found = columns({"x": ["1.5", 3], "c": [7.0, True]}, old)
    assert found["numbers"].tolist() == [[1.5], [3.0]] and found["categories"].tolist() == [[1], [2]]


def test_a_target_far_from_zero_is_learned_as_a_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=200)})
    frame["y"] = 1e12 + 1e3 * frame["a"]
    task = make_task("tabular", data=written(tmp_path / "t.csv", frame), label_column="y")
    y = task.splits().train.all_targets()
    assert len(np.unique(y)) == len(y) and abs(y).max() < 1e4 and y.dtype == np.float32
    assert any("predict" in note for note in task.notes) and task.deploy is not None
    said = task.deploy(tmp_path)
    spec = {"prepare": said, "output": {"means": "numbers"}}
    rows = task.splits().train.index  # type: ignore[attr-defined]
    answer = answers(y[:1, None], spec)[0]["output"][0]
    assert answer == pytest.approx(frame["y"][rows[0]], abs=0.01)
    with pytest.raises(TaskError, match="percentage"):
        make_task("tabular", data=tmp_path / "t.csv", label_column="y", metric="mape")
    frame["y"] = 1e-60 * frame["a"]
    with pytest.raises(TaskError, match="cannot tell"):
        make_task("tabular", data=written(tmp_path / "t.csv", frame), label_column="y")
