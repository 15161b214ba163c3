"""What every transform has to do: leave its input alone, give the same model for the same seed, and
survive saving and JSON.

Use it in the tests of a plug-in, with a small task of your own:
`check_transform(MyTransform(), task)`. AssertionError says what went wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plan import Plan
from ..recipe import Made, Recipe, Shape, Transform, stated
from ..seeding import generator
from ..space import Space
from ..transforms.base import Context

if TYPE_CHECKING:
    from torch import nn

    from ..task.task import Task


def check_transform(transform: Transform, task: Task, seed: int = 0) -> None:
    """All checks of one filled transform on the model and data of `task`."""
    check_fields(type(transform))
    check_round_trip(transform)
    check_application(transform, task, seed)
    check_zeros(transform, task, seed)
    check_shape(transform, task, seed)


def check_fields(kind: type[Transform]) -> None:
    """The ranges that the class declares can be opened, drawn from and filled,
    and every draw is a legal value."""
    opened = Recipe(kind.space())
    space = Space(opened)
    assert all(f.metadata.get("doc") for f in dataclasses.fields(kind)), f"{kind.__name__}: a field has no doc"  # type: ignore[arg-type]
    for i in range(20):
        filling = space.sample(generator(0, i))
        filled = opened.fill(filling)
        assert filled.is_filled and filled.hash, f"{kind.__name__}: {filling} does not fill it"


def check_round_trip(transform: Transform) -> None:
    """JSON gives back an equal transform with an equal hash; and its preconditions are words of the
    vocabulary (RecipeError if not)."""
    recipe = Recipe(transform)
    recipe.check()
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe and again.hash == recipe.hash, f"{transform.kind} does not survive JSON"


def check_application(transform: Transform, task: Task, seed: int) -> None:
    """Applied twice with one seed it gives the same model, in eval mode on the CPU, that reloads to
    the same outputs; its input stays as it was."""
    import torch

    from ..models.package import Package
    from ..models.zeros import Zeros

    before = task.build()
    untouched = copy.deepcopy(before.state_dict())
    first, second = (_apply(transform, task, Package(before), seed) for _ in range(2))
    assert all(torch.equal(v, untouched[k]) for k, v in before.state_dict().items()), (
        f"{transform.kind} changed the model it was given"
    )
    assert not before.training, f"{transform.kind} left the model it was given in training mode"
    assert not first.module.training, f"{transform.kind} gives a model in training mode"
    assert {p.device.type for p in first.module.parameters()} == {"cpu"}, (
        f"{transform.kind} gives a model that is not on the CPU"
    )
    one, two = _outputs(first.module, task), _outputs(second.module, task)
    assert torch.equal(one, two), f"{transform.kind} gives another model for the same seed"
    assert one.shape == _outputs(before, task).shape, f"{transform.kind} changes the shape of the output"
    if transform.idle:
        assert torch.equal(one, _outputs(before, task)), f"{transform.kind} says that it is idle, and changes the model"
    assert len(first.notes) == 1 and first.notes[0].get("step") == transform.kind, (
        f"{transform.kind} leaves no note of what it did"
    )
    wrong = Zeros(None).wrong(first)
    assert not wrong, f"{transform.kind} claims zeros that are not there: {wrong}"
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder), task.build)
        loaded = Package.load(Path(folder), task.build)
    assert torch.equal(_outputs(loaded.module, task), one), (
        f"what {transform.kind} makes does not reload to the same function"
    )
    for name in ("net", "edits", "sparse", "plan", "scales"):
        kept, made = getattr(loaded, name), getattr(first, name)
        same = (
            all(torch.equal(kept[k], v) for k, v in made.items()) and len(kept) == len(made)
            if name == "scales"
            else _data(kept) == _data(made)
        )
        assert same, f"what {transform.kind} makes loses its {name} when saved"


def check_zeros(transform: Transform, task: Task, seed: int) -> None:
    """Of a model half of whose weights are zero, each zero stays zero, or is claimed no more in
    `Package.sparse`; and what is claimed has zeros.

    Nothing to see of a transform that refuses such a model."""
    import torch

    from ..models.package import Package
    from ..models.zeros import Zeros

    if Made.ZERO_WEIGHTS in transform.refuses:
        return
    module, rng = task.build(), torch.Generator().manual_seed(0)
    names = [name for name, p in module.named_parameters() if p.ndim > 1]
    with torch.no_grad():
        for name in names:
            weight = module.get_parameter(name)
            weight.mul_(torch.rand(weight.shape, generator=rng) < 0.5)
    before = Package(module, sparse=tuple(names))
    zeros = Zeros(before)
    wrong = zeros.wrong(_apply(transform, task, before, seed))
    assert not wrong, f"{transform.kind} claims zeros of a sparse model that are not there: {wrong}"


def check_shape(transform: Transform, task: Task, seed: int) -> None:
    """What the transform states of the structure (`Transform.shape`) is so, in numbers: parameters,
    their sizes and multiply-accumulates, of what it makes of two models that differ in their
    weights only, with two seeds; where it states the number formats, too, those of its plan."""
    from ..models.package import Package

    shape = stated(transform)
    assert shape is not None, (
        f"{transform.kind} does not say what it does to a model's structure, so no limit would be checked before "
        "training where it is used: give it a property `shape` with one of "
        f"{', '.join(f'Shape.{s.name}' for s in Shape)} (featherweight.recipe)"
    )
    if shape is Shape.WEIGHTS:
        return
    before = [Package(task.build()), Package(_other_weights(task.build()))]
    after = [_apply(transform, task, package, seed + i) for i, package in enumerate(before)]
    if shape is not Shape.FIELDS:
        for old, new in zip(before, after, strict=True):
            problem = _differs(_structure(old.module, task), _structure(new.module, task))
            assert not problem, f"{transform.kind} states Shape.{shape.name}, but changes the structure: {problem}"
    problem = _differs(_structure(after[0].module, task), _structure(after[1].module, task))
    assert not problem, (
        f"{transform.kind} states Shape.{shape.name}, but the structure that it leaves follows from weights or "
        f"chance: {problem}"
    )
    problem = _differs(*(_formats(package.plan.to_json() if package.plan else {}) for package in after))
    assert shape is Shape.FORMATS or not problem, (
        f"{transform.kind} states Shape.{shape.name}, but the number formats that it plans follow from weights or "
        f"chance: {problem}"
    )


def _other_weights(module: nn.Module) -> nn.Module:
    """The same structure with other weights of the same order."""
    import torch

    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            mixed = p.flatten()[torch.randperm(p.numel(), generator=rng)].reshape(p.shape)
            p.copy_(mixed * (0.5 + torch.rand(p.shape, generator=rng)))
    return module


def _structure(module: nn.Module, task: Task) -> dict[str, Any]:
    """The size of each parameter, how many numbers they are,
    and the multiply-accumulates of one sample."""
    import torch

    from ..measure.ops import macs, params

    example = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in task.example().items()}
    counts: dict[str, Any] = {"parameters": params(module), "multiply-accumulates": macs(module, example)}
    return counts | {name: list(p.shape) for name, p in module.named_parameters()}


def _formats(plan: dict[str, Any]) -> dict[str, Any]:
    """What a plan says of each layer, and of all."""
    layers: dict[str, Any] = plan.get("layers", {})
    return {k: v for k, v in plan.items() if k not in ("seed", "layers")} | layers


def _differs(one: dict[str, Any], two: dict[str, Any]) -> str:
    """Up to five differences of two structures, as text."""
    odd = [
        f"{k} {one.get(k, 'not there')} and {two.get(k, 'not there')}"
        for k in {**one, **two}
        if one.get(k) != two.get(k)
    ]
    return ", ".join(odd[:5])


def _data(value: Any) -> Any:
    return json.loads(json.dumps(value.to_json() if isinstance(value, Plan) else value))


def _apply(transform: Transform, task: Task, package: Any, seed: int) -> Any:
    from ..train.loop import predict

    splits = task.splits()

    def outputs(recipe: Recipe | None) -> Any:
        return predict(package.module, splits.train)

    return transform.apply(
        package, Context(task, splits, seed, teacher=lambda _: package, teacher_outputs=outputs, report=lambda _: None)
    )


def _outputs(module: nn.Module, task: Task) -> Any:
    import torch

    from ..train.loop import tensors

    inputs, _ = tensors(task.splits().valid, np.arange(min(8, len(task.splits().valid))), "cpu")
    with torch.inference_mode():
        return module(*inputs)
