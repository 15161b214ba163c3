"""Models as people have them: a module with its weights, a class or function that makes one, or
the name of one in a file."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
from ..files import load_file, parse_ref
from ._batches import Wanted
from ._onnx import Onnx, onnx_of
from ._targets import probabilities

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ._exported import Exported

ALLOWED = (
    "a torch.nn.Module, a class or function without arguments that makes one, 'FILE.py:NAME', an .onnx file, or a .pt2 "
    "file of torch.export"
)
FILES = (".onnx", ".pt2")
_OUTPUTS = ("logits", "out", "output", "outputs", "pred", "predictions", "last_hidden_state")
_FAR = (1000.0, -1000.0)  # what inputs are multiplied by, to see whether outputs keep to 0 and 1
_OTHERS = {
    "keras": "a Keras model",
    "tensorflow": "a TensorFlow model",
    "sklearn": "a scikit-learn model",
    "xgboost": "a model of XGBoost",
    "lightgbm": "a model of LightGBM",
    "jax": "a model of JAX",
    "flax": "a model of Flax",
    "onnx": "an ONNX model",
    "onnxruntime": "a session of ONNX Runtime",
}


@dataclass(frozen=True)
class Model:
    """make: makes the module; comes: does it come with weights (a module), or is it made anew; own:
    the module itself, where there is one; name: for the task; wanted: what its forward takes; file:
    the file that it was made of."""

    make: Callable[[], nn.Module]
    comes: bool
    name: str
    own: nn.Module
    wanted: Wanted
    file: Onnx | Exported | None = None


class Copies:
    """Makes copies of a module that has its weights, on the CPU."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self) -> nn.Module:
        made = copy.deepcopy(self.module).cpu()
        frozen = not any(p.requires_grad for p in made.parameters())
        for p in made.parameters():
            p.grad = None
            if frozen and p.is_floating_point():  # all of them, to be asked only: it is to be trained now
                p.requires_grad_(True)
        return made


class FromFile:
    """Makes the module of an .onnx or .pt2 file: what travels to other processes is its path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> nn.Module:
        return file_of(self.path).module


def file_of(path: Path) -> Onnx | Exported:
    """What is in an .onnx or .pt2 file. TaskError if that cannot be read or has no form in
    PyTorch."""
    if path.suffix == ".onnx":
        return onnx_of(path)
    from ._exported import exported_of

    return exported_of(path)


class Adapted:
    """Makes `Adapter`s around what `make` makes."""

    def __init__(self, make: Callable[[], nn.Module], names: tuple[str, ...] | None, output: str | int | None) -> None:
        self.make, self.names, self.output = make, names, output

    def __call__(self) -> nn.Module:
        from ._adapter import Adapter

        return Adapter(self.make(), self.names, self.output)


def model_of(given: Any) -> Model:
    """What was given as a model. TaskError for what is none, with what would be."""
    if isinstance(given, (str, Path)) and Path(given).suffix in FILES:
        found = file_of(Path(given).resolve())
        name = Path(given).stem
        return Model(FromFile(found.path), True, name, found.module, Wanted(found.inputs, len(found.inputs)), found)
    if isinstance(given, (str, Path)):
        if ".py" not in str(given):
            raise TaskError("this is no model that can be read", got=str(given), allowed=ALLOWED)
        file, name = parse_ref(str(given), "net")
        made = getattr(load_file(file), name, None)
        if made is None:
            raise TaskError(f"{file.name} has no {name!r}", got=str(given), allowed=ALLOWED)
        return model_of(made)
    from torch import jit, nn

    package = type(given).__module__.partition(".")[0]
    if isinstance(given, nn.Module) and isinstance(given, jit.ScriptModule):
        raise TaskError(
            "a scripted or traced module cannot be cut, trained or copied as one",
            got=type(given).__name__,
            fix="give the module that it was made from",
        )
    if isinstance(given, nn.Module):
        own = _float32(_unwrapped(given))
        if any(p.is_meta for p in own.parameters()):
            raise TaskError("the model has no weights: its parameters are on the meta device", got=type(own).__name__)
        return Model(Copies(own), True, type(own).__name__, own, Wanted.of(own.forward))
    if package in _OTHERS:
        raise TaskError(f"this is {_OTHERS[package]}", got=type(given).__name__, allowed=ALLOWED)
    if isinstance(given, Mapping):
        tensors = any(type(v).__module__.startswith("torch") for v in given.values())
        raise TaskError(
            "these are weights without the model that they belong to" if tensors else "this is no model",
            got=f"{type(given).__name__} of {', '.join(map(str, list(given)[:3]))}, ..",
            allowed=ALLOWED,
            fix="net = Net(); net.load_state_dict(weights), and give the net" if tensors else None,
        )
    if not callable(given):
        raise TaskError("this is no model", got=repr(given)[:200], allowed=ALLOWED)
    needed = _arguments(given)
    name = getattr(given, "__name__", type(given).__name__)
    if needed:
        raise TaskError(
            f"{name} cannot be called without arguments",
            got=f"it needs {', '.join(needed)}",
            fix=f"lambda: {name}({', '.join(f'{n}=..' for n in needed)})",
        )
    from torch import default_generator, random

    with random.fork_rng(devices=[]):
        default_generator.manual_seed(0)
        try:
            made = given()
        except Exception as e:  # whatever the user's code raises
            raise TaskError(f"{name}() fails", got=f"{type(e).__name__}: {e}", allowed=ALLOWED) from e
    if not isinstance(made, nn.Module):
        raise TaskError(f"{name}() makes no model", got=type(made).__name__, allowed=ALLOWED)
    name = type(made).__name__ if name == "<lambda>" else name
    return Model(given, False, name, made, Wanted.of(made.forward))


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside what DataParallel, DistributedDataParallel and torch.compile put around
    it."""
    while True:
        name = type(module).__name__
        if name in ("DataParallel", "DistributedDataParallel"):
            module = module.module  # type: ignore[assignment]
        elif name == "OptimizedModule" and hasattr(module, "_orig_mod"):
            module = module._orig_mod  # type: ignore[assignment]
        else:
            return module


def _float32(module: nn.Module) -> nn.Module:
    """The module, or a copy in float32 of one in another precision: what is trained, exported and
    certified is in float32."""
    import torch

    tensors = [*module.parameters(), *module.buffers()]
    odd = any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors)
    return copy.deepcopy(module).cpu().float() if odd else module


def _arguments(make: Callable[..., Any]) -> list[str]:
    try:
        known = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in known if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def arranged(names: tuple[str, ...], wanted: Wanted) -> tuple[tuple[str, ...], bool]:
    """(the inputs in the order in which forward gets them, by name?). names: as the data have
    them; "" for the only one, and numbers for those that have only a place."""
    if names == ("",):
        return names, False
    if all(n.isdigit() for n in names):
        return names, False
    known = [n for n in wanted.names if n in names]
    others = [n for n in names if n not in known]
    if others and known and not wanted.any:
        raise TaskError(
            "the model takes no such inputs",
            got=", ".join(others),
            allowed=", ".join(wanted.names),
            fix="name the inputs as the arguments of the model's forward, and the targets `labels`",
        )
    order = (*known, *others)
    return order, bool(known) and order != wanted.names[: len(order)]


def called_by(names: tuple[str, ...], wanted: Wanted) -> tuple[str, ...]:
    """What the inputs are called in files: their names, or those of forward's arguments."""
    own = [n if n and not n.isdigit() else None for n in names]
    spare = [n for n in wanted.names if n not in own]
    out = []
    for place, name in enumerate(own):
        out.append(name or (spare[place] if place < len(spare) else f"input{place}" if len(own) > 1 else "input"))
    return tuple(out)


def tried(
    model: Model, names: tuple[str, ...], by_name: bool, inputs: Mapping[str, np.ndarray], output: str | int | None
) -> tuple[Model, torch.Tensor, str | int | None, dict[str, Any]]:
    """(the model, wrapped if it has to be; what it gives for a few samples; which of its outputs
    that is; the types that the inputs were given in). TaskError if it does not run, or gives
    several tensors and none was named."""
    import torch

    from ._adapter import outputs_of, picked

    out, kinds = _run(model, names, by_name, inputs)
    if model.file is not None:
        model.file.check({n: v.astype(kinds.get(n, v.dtype)) for n, v in inputs.items()}, names, out)
        if isinstance(output, str) and output in model.file.outputs and not isinstance(out, torch.Tensor):
            output = model.file.outputs.index(output)
    several = outputs_of(out)
    if not several and not isinstance(out, torch.Tensor):
        raise TaskError("the model gives no tensor", got=type(out).__name__)
    chosen: str | int | None = None
    if several:
        chosen = _chosen(several, output)
        out = picked(out, chosen)
    if isinstance(out, torch.Tensor) and (out.dtype == torch.bool or out.is_complex()):
        raise TaskError(
            "the model gives no real numbers", got=str(out.dtype), fix="let it give the scores that these are made of"
        )
    if not several and output is not None:
        raise TaskError("the model gives one tensor", got=f"output={output!r}", fix="leave output out")
    if by_name or chosen is not None:
        make: Callable[[], nn.Module] = Adapted(model.make, names if by_name else None, chosen)
        model = replace(model, make=make)
    return model, out, chosen, kinds


def far_out(
    model: Model,
    names: tuple[str, ...],
    inputs: Mapping[str, np.ndarray],
    kinds: Mapping[str, Any],
    out: torch.Tensor,
) -> torch.Tensor:
    """`out`, what the model gives for a few samples, with what it gives for inputs far beyond them
    behind it, if all of it is between 0 and 1: a sigmoid or a softmax keeps to that, logits that
    happen to be small do not. As it is where inputs have no fractions, or it gives no numbers
    there."""
    import torch

    from ..tensors import as_tensor

    given = {n: inputs[n].astype(kinds[n]) if n in kinds else inputs[n] for n in names}
    if not probabilities(out) or not any(v.dtype.kind == "f" for v in given.values()):
        return out
    module, parts = model.make(), [out]
    for factor in _FAR:
        tensors = [as_tensor(v * np.float32(factor) if v.dtype.kind == "f" else v) for v in given.values()]
        try:
            with evaluated(module), torch.random.fork_rng(devices=[]):
                parts.append(module(*tensors).to(out.device))
        except Exception:  # whatever the user's forward raises: it was not made for them
            return out
    found = torch.cat(parts)
    return found if bool(torch.isfinite(found).all()) else out


def alone(model: Model, names: tuple[str, ...], inputs: Mapping[str, np.ndarray], out: torch.Tensor) -> None:
    """TaskError if each sample looks like a batch: given by itself, without an axis before it, and
    turned about along its first, the model says of it, turned, what it says of it among others."""
    import torch

    try:
        found, _ = _run(model, names, False, {n: inputs[n][0][::-1].copy() for n in names})
    except TaskError:  # a sample is no batch
        return
    turned = found.flip(0) if isinstance(found, torch.Tensor) and found.ndim else found
    if isinstance(turned, torch.Tensor) and turned.shape == out.shape[1:] and torch.allclose(turned, out[0], atol=1e-5):
        raise TaskError(
            "each of these samples looks like a batch of samples",
            got=f"outputs {list(out.shape)} for {len(out)} of them, and the same for one by itself",
            allowed="samples one by one, or a DataLoader",
            fix="if they come from list(loader), give the loader itself; if they are sequences, give them as arrays",
        )


def _chosen(several: Mapping[str | int, torch.Tensor], output: str | int | None) -> str | int:
    if output is not None:
        if output not in several:
            raise TaskError("the model has no such output", got=repr(output), allowed=_listed(several))
        return output
    if len(several) == 1:
        return next(iter(several))
    named = [n for n in _OUTPUTS if n in several]
    if named and named[0] == "logits":
        return "logits"
    raise TaskError(
        "the model gives several tensors",
        got=_listed(several),
        fix=f"name the one that counts: output={[*named, *several][0]!r}",
    )


def _listed(several: Mapping[str | int, torch.Tensor]) -> str:
    return ", ".join(f"{k!r} {list(v.shape)}" for k, v in several.items())


def _run(
    model: Model, names: tuple[str, ...], by_name: bool, inputs: Mapping[str, np.ndarray]
) -> tuple[Any, dict[str, Any]]:
    """(what the model gives, the types of whole-number inputs that it wants as numbers with
    fractions). TaskError with torch's reason if it takes neither."""
    import torch

    from ..tensors import as_tensor

    def given(kinds: Mapping[str, Any]) -> Any:
        tensors = [as_tensor(inputs[n].astype(kinds[n]) if n in kinds else inputs[n]) for n in names]
        device = next((p.device for p in model.own.parameters()), torch.device("cpu"))
        tensors = [t.to(device) for t in tensors]
        with evaluated(model.own), torch.random.fork_rng(devices=[]):
            return model.own(**dict(zip(names, tensors, strict=True))) if by_name else model.own(*tensors)

    small = {n: np.int64 for n, v in inputs.items() if v.dtype.kind in "iu" and v.dtype not in (np.uint8, np.int64)}
    counts = {n: np.float32 for n, v in inputs.items() if v.dtype.kind in "iub" and v.dtype != np.uint8}
    ids = {n: np.int32 for n, v in inputs.items() if v.dtype.kind in "iu" and v.dtype != np.uint8}
    fault: Exception | None = None
    for kinds in ({}, *(k for k in (small, counts, ids) if k)):
        try:
            return given(kinds), kinds
        except Exception as e:  # whatever the user's forward raises
            fault = fault or e
    got = ", ".join(f"{n or 'input'} {v.dtype}{list(v.shape)}" for n, v in inputs.items())
    pictures = [v for v in inputs.values() if v.dtype == np.uint8]
    last = [v for v in inputs.values() if v.ndim == 4 and v.shape[-1] in (1, 3, 4) and v.shape[1] not in (1, 3, 4)]
    fix = (
        "give images as the model was trained on them: float32, scaled"
        if pictures
        else "give images with their channels first: images.transpose(0, 3, 1, 2)"
        if last
        else "give the inputs as the model was trained on them"
    )
    raise TaskError(
        "the model does not take these inputs",
        got=f"{got}: {type(fault).__name__}: {str(fault)[:300]}",
        allowed=f"forward({', '.join(model.wanted.names)})" if model.wanted.names else None,
        fix=fix,
    ) from fault


@contextlib.contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """In eval mode and without gradients; each submodule's own mode is put back."""
    import torch

    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in before:
            m.training = training
