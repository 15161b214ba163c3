"""The terms of a distillation that look inside both models:
features, attention and relations between samples.

Notation: a *pair* is (student path, teacher path) of layers that do the same work;
C_s, C_t their channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ...errors import InputError
from ...models.matching import channels_first, matched
from ...models.package import Package
from ...models.taps import Taps, attention_paths, called, first_tensor, last_linear, queries_keys_values
from ...models.tokens import merges_inside
from ...train.losses import attention_loss, hint_loss, relational_loss, self_relation_loss


@dataclass(frozen=True)
class Weights:
    """features, attention, relations: the weight of each term, 0: left out."""

    features: float
    attention: float
    relations: float

    @property
    def wanted(self) -> bool:
        return max(self.features, self.attention, self.relations) > 0


class Hints:
    """Between one student and one teacher: which layers are read, what projects one on the other,
    and the loss of a batch.

    `projections` is to be trained along with the student and thrown away. Nothing of the teacher is
    changed. InputError if no layers match, or if the attention term finds neither convolutions nor
    self-attention.
    """

    def __init__(
        self,
        student: Package,
        teacher: Package,
        weights: Weights,
        layers: Sequence[str],
        example: Sequence[Tensor],
        generator: torch.Generator,
        mask: int | None = None,
    ) -> None:
        """student: of the module that is trained; layers: the student's, () for the ends of its
        stages; example: inputs [n, ...] in order; mask: which of the inputs is the attention
        mask [B, L]."""
        self.weights, self.mask, self.teacher, self.student = weights, mask, teacher.module, student.module
        self.pairs: list[tuple[str, str]] = []
        self.attention: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.penultimate: tuple[str | None, str | None] = (None, None)
        if weights.features or weights.attention:
            same_net = student.net == teacher.net
            self.pairs = matched(
                self.student,
                self.teacher,
                layers,
                student_edits=student.edits,
                teacher_edits=teacher.edits,
                same_net=same_net,
                called=(called(self.student, example), called(self.teacher, example)),
            )
        if weights.attention:
            self.attention = (
                attention_paths(self.student, self.pairs[-1][0]),
                attention_paths(self.teacher, self.pairs[-1][1]),
            )
        if weights.relations:
            self.penultimate = (last_linear(self.student, example), last_linear(self.teacher, example))
        self.projections = nn.ModuleDict()
        self._look(example, generator)

    def _look(self, example: Sequence[Tensor], generator: torch.Generator) -> None:
        """One pass of both, to see the shapes: makes the projections,
        and finds what cannot be compared."""
        with torch.no_grad(), self.tap_student() as s, self.tap_teacher() as t:
            self.student(*example)
            self.teacher(*example)
            self.pairs = self._in_place(self._features(s, t))
            features = self._features(s, t)
            lengths = {len(x) for x in self._relations(s, t)} if self.weights.attention else set()
        if len(lengths) > 1:
            raise InputError(
                "the attention term compares the relations of as many tokens",
                got=f"{' and '.join(map(str, sorted(lengths)))} tokens in the last pair",
                fix="set attention=0, or put the step that leaves fewer tokens behind this one",
            )
        for i, (fs, ft) in enumerate(features):
            if fs.ndim != ft.ndim:
                raise InputError(
                    "matched layers give different kinds of outputs",
                    got=f"{self.pairs[i]}: {list(fs.shape)}, {list(ft.shape)}",
                )
            if self.weights.features and fs.shape[1] != ft.shape[1]:
                self.projections[str(i)] = projection(fs.shape[1], ft.shape[1], generator)
        if self.weights.attention and not all(self.attention) and not self._maps(features):
            raise InputError(
                "the attention term compares feature maps of convolutions, or self-attention",
                got=f"{[f'{p} {list(f.shape)}' for (p, _), (f, _) in zip(self.pairs, features, strict=True)]}",
                fix="set attention=0, or name layers of such a kind in `layers`",
            )

    def _in_place(self, features: list[tuple[Tensor, Tensor]]) -> list[tuple[str, str]]:
        """The pairs but those of layers with merged tokens, which stand at other places. InputError
        if none is left."""
        kept = [
            pair
            for pair, (fs, ft) in zip(self.pairs, features, strict=True)
            if fs.shape[2:] == ft.shape[2:] or not merges_inside(self.student, pair[0])
        ]
        if self.pairs and not kept:
            raise InputError(
                "all layers that could be compared have merged tokens, which stand at other places",
                got=", ".join(a for a, _ in self.pairs[:5]),
                fix="set features=0 and attention=0, or merge tokens after this step",
            )
        return kept

    def _relations(self, s: Taps, t: Taps) -> list[Tensor]:
        """Queries [B, L, D] of the last pair, the student's and the teacher's, if there are any."""
        if not all(self.attention):
            return []
        return [
            queries_keys_values(m, taps, paths)[0].transpose(0, 1)
            for m, taps, paths in ((self.student, s, self.attention[0]), (self.teacher, t, self.attention[1]))
        ]

    def tap_student(self) -> Taps:
        return Taps(self.student, self._paths(0))

    def tap_teacher(self) -> Taps:
        return Taps(self.teacher, self._paths(1))

    def _paths(self, side: int) -> list[str]:
        last = self.penultimate[side]
        return [*(pair[side] for pair in self.pairs), *self.attention[side], *([last] if last is not None else [])]

    def _features(self, s: Taps, t: Taps) -> list[tuple[Tensor, Tensor]]:
        """For every pair: ([B, C_s, *positions], [B, C_t, *positions]) of the last pass."""
        return [
            (
                channels_first(self.student.get_submodule(a), s.output(a)).float(),
                channels_first(self.teacher.get_submodule(b), t.output(b)).float().detach(),
            )
            for a, b in self.pairs
        ]

    def _maps(self, features: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """The pairs that are feature maps: they have positions, and come from convolutions."""

        def convolves(path: str) -> bool:
            return any(isinstance(m, _ConvNd) for m in self.student.get_submodule(path).modules())

        return [f for f, (a, _) in zip(features, self.pairs, strict=True) if f[0].ndim > 2 and convolves(a)]

    def loss(self, s: Taps, t: Taps, student_out: Tensor, teacher_out: Tensor) -> Tensor:
        """The weighted sum of the terms, of the last pass of both models: a scalar. Its gradient
        reaches the student and the projections only."""
        total = student_out.new_zeros(())
        features = self._features(s, t)
        if self.weights.features:
            for i, (fs, ft) in enumerate(features):
                fs = self.projections[str(i)](fs) if str(i) in self.projections else fs
                # FitNets eq. 3, the mean over pairs
                total = total + self.weights.features / len(features) * hint_loss(*pooled(fs, ft))
        if self.weights.attention and all(self.attention):
            total = total + self.weights.attention * self._self_attention(s, t)
        elif self.weights.attention:
            for fs, ft in self._maps(features):  # attention transfer eq. 2: the sum over pairs
                total = total + self.weights.attention * attention_loss(*pooled(fs, ft))
        if self.weights.relations:
            ours, theirs = self._penultimate(s, 0, student_out), self._penultimate(t, 1, teacher_out)
            total = total + self.weights.relations * relational_loss(ours.float(), theirs.float().detach())
        return total

    def _self_attention(self, s: Taps, t: Taps) -> Tensor:
        """The sum of the self-relation losses of queries, keys and values of the last pair
        (MiniLMv2, section 3.1)."""
        ours = queries_keys_values(self.student, s, self.attention[0])
        theirs = queries_keys_values(self.teacher, t, self.attention[1])
        mask = s.inputs[self.mask] if self.mask is not None else None
        total = ours[0].new_zeros(())
        for a, b in zip(ours, theirs, strict=True):
            total = total + self_relation_loss(a.float(), b.float().detach(), mask)
        return total

    def _penultimate(self, taps: Taps, side: int, out: Tensor) -> Tensor:
        """What the last linear layer was given [B, ...]; the outputs if the model has none."""
        path = self.penultimate[side]
        found = first_tensor(taps.calls[path][0]) if path is not None else None
        return found if found is not None and len(found) == len(out) else out.reshape(len(out), -1)


def projection(inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    """A learned linear map of the channel axis, [B, inputs, *positions] ->
    [B, outputs, *positions]: FitNets' regressor r as a 1x1 convolution."""

    class Projection(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn((outputs, inputs), generator=generator) / inputs**0.5)
            self.bias = nn.Parameter(torch.zeros(outputs))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)

    return Projection()


def pooled(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Both [B, C, *positions] averaged to the smaller number of positions along each axis;
    as they are if they agree."""
    if s.shape[2:] == t.shape[2:]:
        return s, t
    size = [min(a, b) for a, b in zip(s.shape[2:], t.shape[2:], strict=True)]
    pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(size)]
    return pool(s, size), pool(t, size)
