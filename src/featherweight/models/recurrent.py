"""Recurrent layers (nn.LSTM, nn.GRU, nn.RNN) as coupled channels: which numbers belong to a hidden
unit, and which to an input.

All layers and both directions of such a module have one hidden size, so unit h of each of them is
one channel: they can only go together. Unit h is row h of every gate, column h of what reads the
unit inside (the recurrent matrices, the input matrices of the layers above), and a column of
whatever reads the module's output. A unit that nobody reads is a unit that is not there.

Notation: H hidden units, g gates, D directions, I inputs, T moments, N samples. Matrices are
[g H, I] (input) and [g H, H] (recurrent); the output has D H channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .groups import Group, Member

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_KINDS = (nn.LSTM, nn.GRU, nn.RNN)
_RUN: dict[str, Any] = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}


@dataclass(frozen=True)
class Matrix:
    """One weight matrix of a recurrent layer, seen as a layer of its own: rows are gates' rows.

    name: of the parameter; number: of the layer inside the module, from 0; way: 0 forwards, 1
    backwards; inner: is it the recurrent one?"""

    layer: nn.RNNBase
    name: str
    number: int
    way: int
    inner: bool

    @property
    def weight(self) -> Tensor:
        return getattr(self.layer, self.name)  # type: ignore[no-any-return]

    @property
    def reads_units(self) -> bool:
        """Are its columns hidden units (of its own layer, or of the one below)?"""
        return self.inner or self.number > 0


def whole(layer: nn.RNNBase) -> str | None:
    """Why the units of this layer cannot be cut, whatever it is given; None if they can."""
    if layer.proj_size:
        return "it is an LSTM with projections (proj_size)"
    if parametrize.is_parametrized(layer) or set(layer._parameters) != set(layer._flat_weights_names):
        return f"a {layer.mode} whose weights are computed from other parameters is coupled to it"
    return None if type(layer) in _KINDS else f"a {type(layer).__name__} is coupled to it"


def unfit(args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    """Why a layer that is called so is left whole; None if it is not."""
    given = [*args, *kwargs.values()]
    if any(isinstance(x, nn.utils.rnn.PackedSequence) for x in given):
        return "it reads packed sequences"
    if sum(x is not None for x in given) > 1:
        return "it is given initial states"
    return None


def ways(layer: nn.RNNBase) -> int:
    return 2 if layer.bidirectional else 1


def width(layer: nn.RNNBase) -> int:
    """Channels of what the layer gives, D H."""
    return ways(layer) * layer.hidden_size


def matrices(layer: nn.RNNBase) -> Iterator[Matrix]:
    for number in range(layer.num_layers):
        for way in range(ways(layer)):
            end = f"_l{number}{'_reverse' if way else ''}"
            yield Matrix(layer, f"weight_ih{end}", number, way, False)
            yield Matrix(layer, f"weight_hh{end}", number, way, True)


def matrix(layer: nn.RNNBase, name: str) -> Matrix | None:
    """The one of this name, if there is one."""
    return next((m for m in matrices(layer) if m.name == name), None)


def units(layer: nn.RNNBase, positions: Iterable[int]) -> set[int]:
    """The hidden units behind these channels of the layer's output."""
    return {p % layer.hidden_size for p in positions}


def reads(layer: nn.RNNBase, axis: int, positions: Iterable[int]) -> Iterator[tuple[str, Tensor]]:
    """(parameter, columns of it) by which the layer itself reads these channels: of its output
    (axis 0), or of its input (1)."""
    gone = torch.tensor(sorted(units(layer, positions) if axis == 0 else positions), dtype=torch.long)
    for m in matrices(layer):
        if m.reads_units == (axis == 0):
            blocks = m.weight.shape[1] // layer.hidden_size if axis == 0 else 1
            yield m.name, torch.cat([gone + b * layer.hidden_size for b in range(blocks)])


def cuts(layer: nn.RNNBase, axis: int, gone: Iterable[int]) -> Iterator[tuple[str, int, list[int]]]:
    """(parameter, axis of it, what stays) if these channels go: of its output (axis 0), or of its
    input (1)."""
    for name, columns in reads(layer, axis, gone):
        drop = set(columns.tolist())
        yield name, 1, [i for i in range(getattr(layer, name).shape[1]) if i not in drop]
    if axis == 0:
        lost, h = units(layer, gone), layer.hidden_size
        rows = [i for i in range(GATES[layer.mode] * h) if i % h not in lost]
        for name in layer._flat_weights_names:
            yield name, 0, rows


def add_matrix_scores(total: Tensor, group: Group, path: str, m: Matrix, score: Tensor) -> None:
    """As `cutting.add_scores`, of one matrix of the recurrent layer at `path`. total [U], in place;
    score: [g H, I], or [g H]."""
    unit = torch.empty(group.channels, dtype=torch.long)
    for u, channels in enumerate(group.units):
        unit[list(channels)] = u
    h = m.layer.hidden_size
    for member in group.members:
        if member.path != path:
            continue
        if member.axis == 0:
            rows = score if score.ndim == 1 else score.sum(1)
            sums = rows.view(-1, h).sum(0)  # over the gates
            if score.ndim == 2 and m.reads_units:
                sums = sums + score.sum(0).view(-1, h).sum(0)  # over the directions that it reads
            _add(total, unit, member, sums, h)
        elif score.ndim == 2 and not m.reads_units:
            _add(total, unit, member, score.sum(0), score.shape[1])


def _add(total: Tensor, unit: Tensor, member: Member, sums: Tensor, width: int) -> None:
    """sums [width]; a second direction's channels are the first one's units, which count once."""
    pairs = [(p, c) for p, c in zip(member.position, member.channel, strict=True) if p < width]
    at, of = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    total.index_add_(0, unit[of], sums[at].to(total))


@torch.no_grad()
def inside(layer: nn.RNNBase, x: Tensor) -> Iterator[tuple[Matrix, Tensor, Tensor]]:
    """(matrix, the rows that meet it [N T, I], the units that it makes [N, H], as means over time)
    for an input [N, T, I] or [T, N, I], as the layer has it, or [T, I]: layer after layer, in eval
    mode."""
    x = x.unsqueeze(0) if x.ndim == 2 else x if layer.batch_first else x.transpose(0, 1)  # [N, T, I]
    every = list(matrices(layer))
    h, both = layer.hidden_size, ways(layer)
    for number in range(layer.num_layers):
        mine = [m for m in every if m.number == number]
        ends = [m.name.removeprefix("weight_ih") for m in mine if not m.inner]
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if layer.bias else 2]
        weights = [getattr(layer, kind + end) for end in ends for kind in kinds]
        zero = x.new_zeros(both, len(x), h)
        state = (zero, zero) if layer.mode == "LSTM" else zero
        y = _RUN[layer.mode](x, state, weights, layer.bias, 1, 0.0, False, layer.bidirectional, True)[0]  # [N, T, D H]
        for m in mine:
            made = y[..., m.way * h : (m.way + 1) * h]
            # what was made a moment before (on the way back: later); nothing at first
            past = F.pad(made[:, 1:], (0, 0, 0, 1)) if m.way else F.pad(made[:, :-1], (0, 0, 1, 0))
            rows = past if m.inner else x
            yield m, rows.reshape(-1, rows.shape[-1]), made.mean(1)
        x = y
