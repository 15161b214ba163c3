"""Layers that are nothing but one operator's call in a program, made again."""

from __future__ import annotations

import itertools
import keyword
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import TaskError

Made = tuple[nn.Module, fx.Node, list[Any]] | None  # the layer, the node of its weight, what it is given


_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout")
_PATH = re.compile(r"\w+(\.\w+)*", re.ASCII)
_EVAL = "net.eval() before torch.export.export"


def operator_name(node: fx.Node) -> str:
    """`conv2d` of aten.conv2d.default; "" of what is no operator of PyTorch's."""
    packet = getattr(node.target, "overloadpacket", None)
    return packet.__name__ if packet is not None else ""


def make_layers(module: fx.GraphModule, what: str) -> None:
    """Put layers in the place of calls of operators, in place. what: the program, for errors.
    TaskError for one that was exported in training mode."""
    for node in list(module.graph.nodes):
        if node.op == "get_attr" and not node.users:
            node.graph.erase_node(node)
    for node in list(module.graph.nodes):
        if operator_name(node) in _DROPOUTS and _arguments(node)["train"]:
            raise TaskError("this program was exported in training mode: it drops numbers", got=what, fix=_EVAL)
        make = _LAYERS.get(operator_name(node)) if node.op == "call_function" else None
        if make is not None:
            _layer(module, node, make, what)


def _layer(module: fx.GraphModule, node: fx.Node, make: Callable[..., Any], what: str) -> None:
    """Put a layer in the place of an operator's call, if all weights that it is given are
    parameters as they are. In place."""
    asked = _arguments(node)
    made = make(module, node, asked, what)
    if made is None:
        return
    layer, weight, inputs = made
    path = _placed(module, node, layer, _path(node, layer) or str(weight.target).rpartition(".")[0] or "layer")
    with node.graph.inserting_before(node):
        call = node.graph.call_module(path, tuple(inputs))
    call.meta = dict(node.meta)
    if isinstance(layer, nn.LSTM):  # gives (out, (h, c)), where the operator gives three
        for user in list(node.users):
            if user.target is operator.getitem and user.args[1] != 0:
                with node.graph.inserting_before(user):
                    state = node.graph.call_function(operator.getitem, (call, 1))
                user.args = (state, int(user.args[1]) - 1)  # type: ignore[arg-type]
    node.replace_all_uses_with(call, delete_user_cb=lambda user: node in user.all_input_nodes)
    read = [n for n in node.all_input_nodes if n.op == "get_attr"]
    node.graph.erase_node(node)
    for n in read:  # the layer may have taken the place of what held it
        if not n.users:
            node.graph.erase_node(n)


def _arguments(node: fx.Node) -> dict[str, Any]:
    """What the operator is given, by its own names, defaults too."""
    schema = node.target._schema  # type: ignore[union-attr]
    asked = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    asked |= {a.name: v for a, v in zip(schema.arguments, node.args, strict=False)}
    return asked | dict(node.kwargs)


def _held(module: fx.GraphModule, node: Any) -> Tensor | None:
    """The parameter or buffer that a node reads; None if it is computed."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found: Any = module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found if isinstance(found, Tensor) else None


def _path(node: fx.Node, layer: nn.Module) -> str:
    """Where the layer stood that made this call, as far as the program tells; "" if it does not: a
    tied weight has the name of one of its layers."""
    path, kind = list((node.meta.get("nn_module_stack") or {"": ("", "")}).values())[-1]
    kind = kind if isinstance(kind, str) else kind.__name__
    return path if kind.rpartition(".")[2] == type(layer).__name__ and _PATH.fullmatch(path) else ""


def _placed(module: fx.GraphModule, node: fx.Node, layer: nn.Module, path: str) -> str:
    """The path at which the layer stands now: this one, or one beside it where something else
    stands there already."""
    if _parent(module, path) is None or any(keyword.iskeyword(part) for part in path.split(".")):
        path = "layer"
    for n in itertools.count():
        new = path if n == 0 else f"{path}_layer" if n == 1 else f"{path}_layer_{n}"
        name = new.rpartition(".")[2]
        parent = _parent(module, new)
        if _same(parent._modules.get(name), layer):  # type: ignore[union-attr]
            return new
        if not hasattr(parent, name) or _hollow(module, node, layer, new):
            break
    module.add_submodule(new, layer)
    return new


def _parent(module: fx.GraphModule, path: str) -> nn.Module | None:
    """What holds the module at a path, or would if it stood there; None if nothing can."""
    here: nn.Module = module
    for part in path.split(".")[:-1]:
        inner = here._modules.get(part)
        if hasattr(here, part) if inner is None else not _is_bare(inner):
            return None
        here = nn.Module() if inner is None else inner
    return here


def _is_bare(module: nn.Module | None) -> bool:
    """Is it nothing but a holder of tensors and modules?"""
    return type(module) is nn.Module or type(module).__name__ in ("InterpreterModule", "_Container")


def _hollow(module: fx.GraphModule, node: fx.Node, layer: nn.Module, path: str) -> bool:
    """May the layer that is made of this node take the place of what stands there: is nothing read
    from that but the layer's own tensors, under the layer's names or by this node alone?"""
    parent = _parent(module, path)
    there = None if parent is None else parent._modules.get(path.rpartition(".")[2])
    if there is None or not _is_bare(there) or there._modules:
        return False
    mine, held = _tensors(layer), _tensors(there)
    for n in module.graph.nodes:
        above, _, name = str(n.target).rpartition(".")
        if n.op != "get_attr" or above != path or set(n.users) == {node}:
            continue
        if name not in mine or mine[name] is not held.get(name):
            return False
    return True


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in (*layer._parameters.items(), *layer._buffers.items()) if v is not None}


def _same(there: nn.Module | None, layer: nn.Module) -> bool:
    """Does it do the same with the same weights (a layer that is called twice)?"""
    if type(there) is not type(layer) or there.extra_repr() != layer.extra_repr():
        return False
    mine, others = _tensors(layer), _tensors(there)
    for tensors in (mine, others):
        tensors.pop("num_batches_tracked", None)
    return mine.keys() == others.keys() and all(mine[k] is others[k] for k in mine)


def drop_unread(module: fx.GraphModule) -> None:
    """Take out tensors that only layers read now, each under its own name. In place."""
    read = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
    left: list[tuple[str, nn.Module]] = [("", module)]
    while left:
        path, holder = left.pop()
        left += [(f"{path}{name}.", m) for name, m in holder._modules.items() if m is not None and _is_bare(m)]
        for name in _tensors(holder):
            if path + name not in read:
                delattr(holder, name)


def _weighted(layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """The layer with these parameters and buffers."""
    for name, value in tensors.items():
        if value is None or name in layer._buffers:
            if name in layer._buffers:
                layer._buffers[name] = value
        else:
            layer._parameters[name] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, False)
    return layer


def _linear(module: fx.GraphModule, node: fx.Node, asked: dict[str, Any], what: str) -> Made:
    weight, bias = _held(module, asked["weight"]), _held(module, asked["bias"])
    if weight is None or weight.ndim != 2 or (asked["bias"] is not None and bias is None):
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _weighted(layer, weight=weight, bias=bias), asked["weight"], [asked["input"]]


def _conv(module: fx.GraphModule, node: fx.Node, asked: dict[str, Any], what: str) -> Made:
    weight, bias = _held(module, asked["weight"]), _held(module, asked["bias"])
    if weight is None or (asked["bias"] is not None and bias is None):
        return None
    name, d, g = operator_name(node), weight.ndim - 2, asked["groups"]
    turned = name.startswith("conv_transpose")
    kinds: Any = (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d) if turned else (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    )
    each = {
        k: v if isinstance(v, str) else tuple(v) * (d if len(v) == 1 else 1)
        for k, v in asked.items()
        if k in ("stride", "padding", "dilation", "output_padding")
    }
    wide, narrow = weight.shape[0], weight.shape[1] * g
    layer = kinds[d - 1](
        wide if turned else narrow,
        narrow if turned else wide,
        tuple(weight.shape[2:]),
        groups=g,
        bias=bias is not None,
        device="meta",
        **each,
    )
    return _weighted(layer, weight=weight, bias=bias), asked["weight"], [asked["input"]]


def _batch_norm(module: fx.GraphModule, node: fx.Node, asked: dict[str, Any], what: str) -> Made:
    if asked["training"]:
        raise TaskError(
            "this program was exported in training mode: its batch norms take the statistics of the batch",
            got=what,
            fix=_EVAL,
        )
    names = ("weight", "bias", "running_mean", "running_var")
    held = {name: _held(module, asked[name]) for name in names}
    if any(held[name] is None for name in names):
        return None
    value = asked["input"].meta.get("val")
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    if value is None or value.ndim not in kinds:
        return None
    layer = kinds[value.ndim](len(held["weight"]), eps=asked["eps"], momentum=asked["momentum"], device="meta")  # type: ignore[arg-type]
    layer.num_batches_tracked = torch.tensor(0)
    return _weighted(layer, **held), asked["weight"], [asked["input"]]


def _layer_norm(module: fx.GraphModule, node: fx.Node, asked: dict[str, Any], what: str) -> Made:
    weight, bias = _held(module, asked["weight"]), _held(module, asked["bias"])
    if weight is None or (asked["bias"] is not None and bias is None):
        return None
    shape = list(asked["normalized_shape"])
    layer = nn.LayerNorm(shape, eps=asked["eps"], bias=bias is not None, device="meta")
    return _weighted(layer, weight=weight, bias=bias), asked["weight"], [asked["input"]]


def _group_norm(module: fx.GraphModule, node: fx.Node, asked: dict[str, Any], what: str) -> Made:
    weight, bias = _held(module, asked["weight"]), _held(module, asked["bias"])
    if weight is None or bias is None:
        return None
    layer = nn.GroupNorm(asked["num_groups"], len(weight), eps=asked["eps"], device="meta")
    return _weighted(layer, weight=weight, bias=bias), asked["weight"], [asked["input"]]


def _embedding(module: fx.GraphModule, node: fx.Node, asked: dict[str, Any], what: str) -> Made:
    weight = _held(module, asked["weight"])
    if weight is None or asked["sparse"] or asked["scale_grad_by_freq"]:
        return None
    padding = asked["padding_idx"] if asked["padding_idx"] >= 0 else None
    layer = nn.Embedding(weight.shape[0], weight.shape[1], padding_idx=padding, device="meta")
    return _weighted(layer, weight=weight), asked["weight"], [asked["indices"]]


def _recurrent(module: fx.GraphModule, node: fx.Node, asked: dict[str, Any], what: str) -> Made:
    """Only of layers that begin with zeros: those that are given a state stay as they are
    called."""
    states = asked["hx"] if isinstance(asked["hx"], (list, tuple)) else [asked["hx"]]
    params: list[Any] = [_held(module, p) for p in asked.get("params", ())]
    # zeros that something else is given too may be written to
    zero = all(
        isinstance(s, fx.Node) and operator_name(s) == "zeros" and all(operator_name(u) in _RECURRENT for u in s.users)
        for s in states
    )
    if (
        not params
        or not all(isinstance(p, nn.Parameter) for p in params)
        or not zero
        or asked["train"]
        or "batch_sizes" in asked
    ):
        return None
    kind: Any = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}[operator_name(node)]
    first, recurrent = params[:2]
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    if recurrent.shape[1] * gates != recurrent.shape[0]:  # an LSTM with projections
        return None
    more = {"nonlinearity": operator_name(node).removeprefix("rnn_")} if kind is nn.RNN else {}
    layer = kind(
        first.shape[1],
        recurrent.shape[1],
        asked["num_layers"],
        bias=asked["has_biases"],
        batch_first=asked["batch_first"],
        dropout=asked["dropout"] if asked["num_layers"] > 1 else 0.0,
        bidirectional=asked["bidirectional"],
        device="meta",
        **more,
    )
    names = [name for group in layer.all_weights and layer._all_weights for name in group]
    if len(names) != len(params):
        return None
    for name, p in zip(names, params, strict=True):
        layer._parameters[name] = p
    layer._init_flat_weights()
    return layer, asked["params"][0], [asked["input"]]


_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_LAYERS: dict[str, Callable[..., Made]] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    **dict.fromkeys(_RECURRENT, _recurrent),
}
