"""One set of weights for all fillings of an architecture description:
the supernet of one-shot search.

A layer's parameter is a corner of the shared one of the same name and kind: the first channels out
and in, the middle of a kernel (Cai et al. 2020, Once-for-all, arXiv:1908.09791, section 3.3). Kinds
(convolutions depthwise, 1x1 and wider; by number of axes) have weights of their own. A filling's
path is thus the net that the description itself builds: nothing is masked, and any family of nets
can be shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..space import Filling
from ..space.space import Space, key

Norm = nn.modules.batchnorm._BatchNorm


class SharedNet(nn.Module):
    """The weights that `fillings` of `net` (a description with holes) need, each as large as the
    largest of them needs it.

    Batch normalisation uses the statistics of the batch, in training and evaluation alike:
    a supernet has no running statistics that would fit each of its paths (Guo et al. 2020, SPOS,
    arXiv:1904.00420, section 3.4, computes them anew for each). Initial values come from torch's
    default generator.
    """

    def __init__(self, net: Any, fillings: Sequence[Filling]) -> None:
        super().__init__()
        space = Space(net)
        # by key; not registered: their parameters have no values
        self.paths: dict[str, nn.Module] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        owners: dict[str, nn.Module] = {}
        for filling in fillings:
            with torch.random.fork_rng(devices=[]):
                template = batch_statistics(space.fill(filling).module())
            for name, p in template.named_parameters():
                shared = _shared_name(name, p.shape)
                known = shapes.get(shared, tuple(p.shape))
                shapes[shared] = tuple(max(a, b) for a, b in zip(known, p.shape, strict=True))
                owners[shared] = _owner(template, name)
            self.paths[key(filling)] = _emptied(template)
        self.shared = nn.ParameterDict(
            {_safe(n): nn.Parameter(_initial(owners[n], n, shape)) for n, shape in sorted(shapes.items())}
        )

    def forward(self, filling: Filling, *inputs: Tensor) -> Tensor:
        """What the path of one of the `fillings` gives for the inputs."""
        template = self.paths[key(filling)].train(self.training)
        values: dict[str, Tensor] = {n: b.to(inputs[0].device) for n, b in template.named_buffers()}
        for name, p in template.named_parameters():
            values[name] = corner(self.shared[_safe(_shared_name(name, p.shape))], p.shape)
        out: Tensor = torch.func.functional_call(template, values, inputs)
        return out


def corner(w: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of `w` that a layer of this shape uses: the first of axes 0 and 1,
    the middle of the axes of the kernel."""
    slices = []
    for axis, (have, want) in enumerate(zip(w.shape, shape, strict=True)):
        start = (have - want) // 2 if axis >= 2 else 0
        slices.append(slice(start, start + want))
    return w[tuple(slices)]


def batch_statistics(module: nn.Module) -> nn.Module:
    """The module, its batch normalisation without running statistics. In place."""
    for m in module.modules():
        if isinstance(m, Norm):
            m.track_running_stats = False
            m.running_mean = m.running_var = m.num_batches_tracked = None
    return module


def _shared_name(name: str, shape: Sequence[int]) -> str:
    if len(shape) < 3:
        return f"{name}/{len(shape)}"
    kernel = "point" if all(n == 1 for n in shape[2:]) else "wide"
    return f"{name}/{len(shape)}/{'depthwise' if shape[1] == 1 else 'dense'}/{kernel}"


def _safe(name: str) -> str:
    return name.replace(".", ":")  # a ParameterDict allows no dots


def _owner(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])


def _initial(owner: nn.Module, name: str, shape: tuple[int, ...]) -> Tensor:
    """Normalisation starts as the identity, embeddings as N(0, 0.02^2), biases at 0, the rest with
    torch's variance 1 / (3 fan_in)."""
    last = name.partition("/")[0].rpartition(".")[2]
    if isinstance(owner, (Norm, nn.GroupNorm, nn.LayerNorm)):
        return torch.ones(shape) if last == "weight" else torch.zeros(shape)
    if isinstance(owner, nn.Embedding):
        return torch.randn(shape) * 0.02
    if len(shape) < 2:
        return torch.zeros(shape)
    fan_in = torch.Size(shape[1:]).numel()
    values: Tensor = torch.randn(shape) / (3 * fan_in) ** 0.5
    return values


def _emptied(module: nn.Module) -> nn.Module:
    """The module, its parameters without memory. In place."""
    for m in module.modules():
        parameters: Mapping[str, nn.Parameter | None] = dict(m._parameters)
        for name, p in parameters.items():
            if p is not None:
                m._parameters[name] = nn.Parameter(
                    torch.empty(p.shape, dtype=p.dtype, device="meta"), requires_grad=p.requires_grad
                )
    return module
