"""A quantized model simulated in floating point: it computes what its plan will make a runtime
compute, without the runtime.

Simulated are the rounding of weights (all schemes) and of the inputs of Linear layers and
convolutions (`int8-static`: one grid a tensor, from calibration or learned; `int8-dynamic`:
one grid a sample, Linear layers only, which is what ONNX Runtime computes at batch 1 and a little
coarser than runtimes with a grid for each row). Not simulated: the rounding of sums, biases and
attention products, which differs between runtimes.

Notation: w weight [O, ...]; x input [B, ...]; s scale, z zero point.
A plan and its layers are as `plan` describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...plan import LayerPlan
from ..computed import settle
from ..copies import copied
from ..package import Package
from . import grid as grids
from .activations import CODES, InputGrid, chunks, input_grids
from .layers import grid_of, sharing

FLOAT = LayerPlan(32)  # how a plan says that a layer stays as it is


def quantizable(module: nn.Module) -> dict[str, nn.Module]:
    """path -> layer, in the module's order: what a plan lists, every Linear, convolution and
    Embedding with a floating-point weight, those that share one once."""
    found: dict[str, Any] = {path: module.get_submodule(path) for path in sharing(module)}
    return {path: m for path, m in found.items() if m.weight.is_floating_point() and m.weight.numel()}


def computes(layer: nn.Module) -> bool:
    """Does the layer multiply, so that its input can be quantized too? (An
    Embedding only looks up.)"""
    return not isinstance(layer, nn.Embedding)


def rounded(w: Tensor, entry: LayerPlan, integer: bool, saturates: bool) -> Tensor:
    """The weight as the plan's entry stores it, in its own dtype: unchanged at 32 bits, half
    precision at 16, else on its min-max grid (integer, saturates: as in `layers.grid_of`)."""
    if entry.bits == 32:
        return w.detach()
    if entry.bits == 16:
        return w.detach().to(torch.float16).to(w.dtype)
    grid = grid_of(entry, integer, saturates)
    return grids.nearest(w, *grids.fit(w, grid), grid).to(w.dtype)


def by_sample(x: Tensor) -> Tensor:
    """x [B, ...] with each sample rounded on a u8 grid of its own:
    s = (max(x, 0) - min(x, 0)) / 255, z = round(-min(x, 0) / s), as the operator
    DynamicQuantizeLinear of ONNX has it."""
    flat = x.reshape(x.shape[0], -1)
    if not flat.numel():
        return x
    lo, hi = flat.amin(1, keepdim=True).clamp(max=0), flat.amax(1, keepdim=True).clamp(min=0)
    s = ((hi - lo) / 255).clamp(min=grids.SMALLEST)
    z = (-lo / s).round().clamp(0, 255)
    return ((((flat / s).round() + z).clamp(0, 255) - z) * s).reshape(x.shape)


class Simulated:
    """A copy of a model whose layers can be quantized and put back one by one. `module`: the copy,
    in eval mode; the original is only read.

    inputs: the grid of each layer's input, for `int8-static`. on_grid: layers whose weights lie on
    their grid already and are not rounded again. Layers start in floating point.
    """

    def __init__(
        self,
        original: nn.Module,
        scheme: str,
        inputs: dict[str, InputGrid] | None = None,
        saturates: bool = False,
        on_grid: frozenset[str] = frozenset(),
    ) -> None:
        self.module = copied(original).eval()
        self.scheme, self.saturates = scheme, saturates
        self._inputs, self._on_grid = inputs or {}, on_grid
        self._original = quantizable(original)
        self._users = {path: users for path, users in sharing(original).items() if path in self._original}
        self.layers = dict.fromkeys(self._original, FLOAT)
        for path in self._original:
            settle(self.module.get_submodule(path))  # a weight that is set must stay
        for path, users in self._users.items():
            for user in users:
                self.module.get_submodule(user).register_forward_pre_hook(self._hook(path, user))

    def set(self, path: str, entry: LayerPlan) -> None:
        """Give one layer, and those that share its weight, the width (and grid) of a plan's entry;
        InputError if it is no layer that a plan lists."""
        if path not in self._original:
            raise InputError(
                "the plan names a layer that this model has not", got=path, allowed=list(self._original)[:40]
            )
        layers: list[Any] = [self.module.get_submodule(user) for user in self._users[path]]
        # A new parameter, never a change in place: at 32 bits it shares the original's memory.
        new = nn.Parameter(self.rounded(path, entry).to(layers[0].weight.device), requires_grad=False)
        for layer in layers:
            layer.weight = new
        self.layers[path] = entry

    def rounded(self, path: str, entry: LayerPlan) -> Tensor:
        """The weight of one layer as a plan's entry stores it, shaped and typed as it is."""
        w: Any = self._original[path].weight
        if path in self._on_grid or not self._integer(path, entry):
            return w.detach()  # type: ignore[no-any-return]
        integer = self.scheme != "weight-only" and any(
            computes(self.module.get_submodule(user)) for user in self._users[path]
        )
        return rounded(w, entry, integer, self.saturates)

    def apply(self, layers: Mapping[str, LayerPlan]) -> None:
        """Give every layer of a plan's `layers` its entry; the others stay as they are."""
        for path, entry in layers.items():
            if self.layers.get(path) != entry:
                self.set(path, entry)

    def _integer(self, path: str, entry: LayerPlan) -> bool:
        """Is the layer's weight changed at all? Convolutions have no dynamic int8
        (`targets.onnxruntime`)."""
        return not (
            self.scheme == "int8-dynamic"
            and entry.bits == 8
            and not isinstance(self._original[path], (nn.Linear, nn.Embedding))
        )

    def _hook(self, path: str, user: str) -> Any:
        """Rounds the input of the layer `user`, whose entry is `path`."""
        layer = self.module.get_submodule(user)

        def pre(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            entry = self.layers[path]
            if self.scheme == "weight-only" or entry.bits != 8 or not args or not computes(layer):
                return None
            if self.scheme == "int8-dynamic":
                return (by_sample(args[0]), *args[1:]) if self._integer(path, entry) else None
            known = self._inputs.get(user)
            return None if known is None else (known.nearest(args[0]), *args[1:])

        return pre


def simulate(package: Package, calibration: dict[str, Tensor], saturates: bool = False) -> nn.Module:
    """A copy of the package's module that computes as its plan will be computed;
    without a plan, an exact copy.

    calibration: input tensors [n, ...] by name, on the module's device, for the grids that the
    package does not bring (`Package.scales`). InputError if the plan lists no layers, or calibrates
    in a way that is not simulated.
    """
    plan = package.plan
    if plan is None:
        return package.copied().eval()
    if plan.layers is None:
        raise InputError(
            "this plan names no layers yet", got=plan.to_json(), fix="apply the transform that makes the plan"
        )
    layers, found = plan.layers, quantizable(package.module)
    users = sharing(package.module)
    inputs: dict[str, InputGrid] = {}
    if plan.scheme == "int8-static":
        ranges = plan.ranges()
        eight = [
            user
            for path, e in layers.items()
            if e.bits == 8 and path in found
            for user in users[path]
            if computes(package.module.get_submodule(user))
        ]
        learned = [path for path in eight if f"{path}.input.scale" in package.scales]
        inputs = {path: learned_grid(package.scales, path, ranges.activations) for path in learned}
        rest = [path for path in eight if path not in inputs]
        if rest:
            batches = chunks({k: v[: ranges.samples] for k, v in calibration.items()})
            inputs |= input_grids(package.module, rest, batches, ranges.activations, ranges.calibrate)
    on_grid = frozenset(path for path in layers if f"{path}.weight.scale" in package.scales)
    out = Simulated(package.module, plan.scheme, inputs, saturates, on_grid)
    out.apply({path: e for path, e in layers.items() if path in found})
    return out.module


def learned_grid(scales: dict[str, Tensor], path: str, activations: str) -> InputGrid:
    """The grid of a layer's input that a package brings: PATH.input.scale and, unless it is 0,
    PATH.input.zero."""
    low, high = CODES[activations]
    zero = scales.get(f"{path}.input.zero")
    return InputGrid(float(scales[f"{path}.input.scale"]), 0 if zero is None else int(zero), low, high)
