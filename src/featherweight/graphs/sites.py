"""Where the layers of a module are in its ONNX graph, and what a plan wants of each.

Notation: w the module's weight [O, I, *k]; v the weight in the file, brought to the same shape;
f [O] row factors with v = f w: an exporter folds a batch norm that follows a convolution into it,
f = gamma / sqrt(var + eps) (Jacob et al. 2018, arXiv:1712.05877, equation 14).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TargetError
from ..plan import LayerPlan, required
from .entrance import entrance
from .export import layers as module_paths
from .export import path_of
from .merging import merging

if TYPE_CHECKING:
    from torch import nn

    from ..models.package import Package

WEIGHT_INPUT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "Gather": 0}
SAME = 1e-4  # largest deviation of v from f w, relative to the largest |v|: float32 folding


@dataclass(frozen=True)
class Site:
    """A node that multiplies by (or looks up in) a constant weight. path: its layer, "" if no layer
    of the plan is known for it;
    transposed: the initializer is v transposed; factor: f, where the layer is known."""

    path: str
    node: str
    op: str
    weight: str
    transposed: bool
    setting: LayerPlan
    factor: np.ndarray | None = None

    def oriented(self, array: np.ndarray) -> np.ndarray:
        """The initializer as v [O, I, *k], or back."""
        return np.ascontiguousarray(array.T) if self.transposed else array


def wanted(package: Package) -> dict[str, LayerPlan]:
    """What the plan wants of every Linear, convolution and Embedding of the module, by path; of
    layers that share a weight, what it says of one."""
    from ..models.quant.layers import sharing

    plan = required(package.plan)
    if plan.layers is not None:
        missing = [path for path in plan.layers if not _has(package.module, path)]
        if missing:
            raise TargetError(
                "these layers of the plan are not in the model",
                got=missing,
                fix="make the plan after the last structural step",
            )
        every = sharing(package.module)
        shared = {p: plan.layers[path] for path, paths in every.items() if path in plan.layers for p in paths}
        return shared | dict(plan.layers)
    table = replace(plan.whole, bits=plan.embeddings, granularity="channel")
    out: dict[str, LayerPlan] = {}
    for path, module in package.module.named_modules():
        if (kind := _kind(module)) is not None:
            skipped = any(path == s or path.startswith(s + ".") for s in plan.skipped)
            out[path] = LayerPlan(32) if skipped else table if kind == "embedding" else plan.whole
    return out


def sites(graph: Any, package: Package) -> list[Site]:
    """Every node of `graph` with a constant weight of at least two axes, with its layer where one
    is recognised; but for what changes the model's inputs before its first layer.

    A layer is recognised by the node's name and a weight that is f times its own, else by an equal
    weight (attention layers use their projections' weights without calling them).
    """
    from onnx import numpy_helper

    tensors = {w.name: w for w in graph.initializer}
    names, settings = module_paths(graph), wanted(package)
    plan, before = required(package.plan), {*entrance(graph, package), *merging(graph, package)}
    skip = [*plan.skipped, *(path for path, layer in settings.items() if layer.bits == 32)]
    out = []
    for node in graph.node:
        at = WEIGHT_INPUT.get(node.op_type)
        if (
            at is None
            or node.name in before
            or len(node.input) <= at
            or node.input[at] not in tensors
            or not _usable(node, tensors[node.input[at]])
        ):
            continue
        paths = names[node.name]
        transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transB", 0))
        value = numpy_helper.to_array(tensors[node.input[at]])
        value = value.T if transposed else value
        inside = any(p == s or p.startswith(s + ".") for p in paths for s in skip)
        rest = LayerPlan(32) if inside or node.op_type == "Gather" else plan.whole
        site = Site("", node.name, node.op_type, node.input[at], transposed, rest)
        out.append(_recognised(site, value, paths, settings, package.module))
    return out


def _recognised(
    site: Site, value: np.ndarray, paths: set[str], settings: dict[str, LayerPlan], module: nn.Module
) -> Site:
    """The site with its path, setting and factor, if one of the layers is behind it."""
    named = [path for path in settings if any(p == path or p.startswith(path + ".") for p in paths)]
    own = path_of(site.node).split(".")
    # Exporters share equal weights under one layer's name, so where the node itself
    # lies counts first.
    for path in sorted(settings, key=lambda p: (-_common(p.split("."), own), p not in named)):
        layer: Any = module.get_submodule(path)
        if (_kind(layer) == "embedding") != (site.op == "Gather") or tuple(layer.weight.shape) != value.shape:
            continue
        w = layer.weight.detach().cpu().float().numpy()
        factor = row_factor(w, value) if path in named else np.ones(len(w)) if np.array_equal(w, value) else None
        if factor is not None:
            return replace(site, path=path, setting=settings[path], factor=factor)
    if len(named) == 1:  # the layer is known, what became of its weight is not
        return replace(site, path=named[0], setting=settings[named[0]])
    return site


def _common(a: list[str], b: list[str]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def row_factor(w: np.ndarray, v: np.ndarray) -> np.ndarray | None:
    """f [O] with v = f w up to rounding, least squares a row: f_o = <v_o, w_o> / <w_o, w_o>; 1 for
    rows that are equal or zero. None if there is no such f."""
    a, b = w.reshape(len(w), -1).astype(np.float64), v.reshape(len(v), -1).astype(np.float64)
    if np.array_equal(a, b):
        return np.ones(len(w))
    square = (a * a).sum(1)
    f = np.divide((a * b).sum(1), square, out=np.ones(len(a)), where=square > 0)
    error = np.abs(b - f[:, None] * a).max(initial=0.0)
    return f if error <= SAME * max(np.abs(b).max(initial=0.0), 1e-30) else None


def unshare(model: Any, found: list[Site], key: dict[str, Any]) -> list[Site]:
    """Give nodes that share a weight but want different things of it (`key` by node name; or one
    its rows, the other its columns) copies of their own. In place; the new sites."""
    tensors = {w.name: w for w in model.graph.initializer}
    nodes = {n.name: n for n in model.graph.node}
    owner: dict[str, list[tuple[tuple[Any, bool], str]]] = {}
    out = []
    for site in found:
        taken = owner.setdefault(site.weight, [])
        wants = (key[site.node], site.transposed)
        name = next((n for k, n in taken if k == wants), None)
        if name is None:
            name = site.weight if not taken else f"{site.weight}_of_{len(taken)}"
            taken.append((wants, name))
            if name != site.weight:
                copy = type(tensors[site.weight])()
                copy.CopyFrom(tensors[site.weight])
                copy.name = name
                model.graph.initializer.append(copy)
        nodes[site.node].input[WEIGHT_INPUT[site.op]] = name
        out.append(replace(site, weight=name))
    return out


def resolve_identities(graph: Any) -> None:
    """Readers of a copied constant (Identity of an initializer, as exporters write shared weights)
    read the constant. In place."""
    names = {w.name for w in graph.initializer}
    outputs = {o.name for o in graph.output}
    same: dict[str, str] = {}
    for node in list(graph.node):
        if (
            node.op_type == "Identity"
            and node.output[0] not in outputs
            and same.get(node.input[0], node.input[0]) in names
        ):
            same[node.output[0]] = same.get(node.input[0], node.input[0])
            graph.node.remove(node)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in same:
                node.input[i] = same[name]


def drop_unused(graph: Any) -> None:
    """Remove initializers that nothing reads. In place."""
    used = {i for node in graph.node for i in node.input} | {o.name for o in graph.output}
    kept = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _kind(module: nn.Module) -> str | None:
    from torch import nn as tnn
    from torch.nn.modules.conv import _ConvNd

    if isinstance(module, tnn.Embedding):
        return "embedding"
    return "linear" if isinstance(module, tnn.Linear) else "convolution" if isinstance(module, _ConvNd) else None


def _has(module: nn.Module, path: str) -> bool:
    try:
        return _kind(module.get_submodule(path)) is not None
    except AttributeError:
        return False


def _usable(node: Any, tensor: Any) -> bool:
    """A float32 weight of at least two axes in a product without transposed or scaled factors, or a
    table read along its first axis."""
    if tensor.data_type != 1 or len(tensor.dims) < 2:
        return False
    if node.op_type == "Gemm":
        return not _attribute(node, "transA", 0) and _attribute(node, "alpha", 1.0) == 1.0
    if node.op_type in ("MatMul", "Gather"):
        return len(tensor.dims) == 2 and not _attribute(node, "axis", 0)
    return True


def _attribute(node: Any, name: str, default: float) -> float:
    for a in node.attribute:
        if a.name == name:
            return float(a.f) if a.type == 1 else float(a.i)
    return default
