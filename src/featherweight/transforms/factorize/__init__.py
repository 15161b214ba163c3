"""Factorize: replace layers by two or three thinner ones of low rank.

Notation: W [O, I] a layer's weight, X [I, N] its inputs on training samples, r rank. The maths is
in `models.lowrank`: SVD, its activation-aware form (SVD-LLM, Wang et al. 2024, arXiv:2403.07378)
and Tucker-2 of convolutions (Kim et al. 2016, arXiv:1511.06530).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...machine import machine
from ...recipe import Made, Mark, Shape, Transform
from ...space import Choice, Float, Int, param
from ..base import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...models.lowrank import LowRank
    from ...models.package import Package
    from .ranks import Bench, Run

_TRIED = 9  # ranks that are timed: those that save 10, 20, .. 90 % of the parameters
# share of the energy below which a loss counts as this much:
# so small a loss is no reason for a larger rank
_LOST = 1e-3


@dataclass(frozen=True)
class Factorize(Transform):
    """Replace Linear and convolution layers by low-rank ones,
    where that saves parameters and multiply-accumulates.

    The output layer, grouped convolutions, shared layers, those whose weight the model's code reads
    and those that would save nothing are left whole and named in the note. A rank is a multiple of
    `round_to`, at least one; by `ratio` the next one below, by `energy` the next one above what is
    asked. By `latency` nine ranks a layer are timed on `on`; of those that are measured faster it
    takes the one with the most milliseconds saved per share of energy lost; a layer with no faster
    rank is left whole. InputError if `skip` names no layer, or if the model does not run with its
    new layers.
    """

    version = 4

    says = "Replace layers by pairs of thinner ones (low-rank factorization)"

    @property
    def makes(self) -> frozenset[Mark]:
        return frozenset({Made.LOW_RANK_LAYERS})

    @property
    def refuses(self) -> dict[Mark, str]:
        return {
            Made.INTEGER_WEIGHTS: "layers must be factorized before their weights are bound to an integer grid",
            Made.ZERO_WEIGHTS: "the factors of a sparse layer are dense, so its zeros would be lost",
            Made.LOW_RANK_LAYERS: "the layers are factorized already",
        }

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS if self.rank_by == "ratio" else Shape.WEIGHTS

    @property
    def depends(self) -> str:
        """Measured ranks belong to a processor and to a runtime's version."""
        if self.rank_by != "latency":
            return ""
        here = machine()
        return f"{here['cpu']} {here['versions'].get(self.on.partition(':')[0])}"

    form: str = param(
        "svd",
        search=Choice("svd", "activation"),
        legal=Choice("svd", "activation"),
        doc="whose error is least: the weight's (svd), or the layer's output's on training samples (activation)",
    )
    rank_by: str = param(
        "ratio",
        search=Choice("ratio", "energy"),
        legal=Choice("ratio", "energy", "latency"),
        doc="how ranks are chosen; `latency` measures",
    )
    ratio: float = param(
        0.5, search=Float(0.1, 0.8), legal=Float(0.0, 1.0), doc="share of each layer's parameters to save"
    )
    energy: float = param(
        0.95, search=Float(0.7, 0.999), legal=Float(0.0, 1.0), doc="share of the squared singular values to keep"
    )
    on: str = param("onnxruntime", doc="the target that ranks are timed on")
    round_to: int = param(8, search=Choice(1, 4, 8, 16), legal=Int(1, 1024), doc="ranks are multiples of this")
    convolutions: str = param(
        "tucker2",
        search=Choice("tucker2", "none"),
        legal=Choice("tucker2", "none"),
        doc="what becomes of convolutions with a kernel beyond 1x1",
    )
    samples: int = param(128, legal=Int(1, 1_000_000), doc="training samples that the activation form looks at")
    skip: tuple[str, ...] = param((), doc="layers (module paths) left whole, with all inside them")

    @property
    def idle(self) -> bool:
        return self.rank_by == "ratio" and self.ratio == 0

    def apply(self, model: Package, context: Context) -> Package:
        from ...models.zeros import holding
        from .ranks import Bench, form, grams_of, groups, layers, observe, read_elsewhere, whole_layers

        if self.idle:
            return model.noted(step="factorize", layers={}, whole={})
        from ...models.attention import apart
        from ...models.lowrank import decompose, whitening
        from ...models.surgery import edit

        model = apart(model, lambda: context.few(model.module))
        module, bench = model.copied().eval(), Bench(self.on)
        samples = {k: v.cpu() for k, v in context.calibration(self.samples if self.form == "activation" else 1).items()}
        one = tuple(v[:1] for v in samples.values())
        whole = whole_layers(module, one, self.skip, self.convolutions)
        runs = observe(module, [p for p, m in layers(module) if p not in whole], one)
        whole |= {p: "it is not called in a forward pass" for p, run in runs.items() if run.n_out == 0}
        read = read_elsewhere(module, [p for p in runs if p not in whole], one)
        whole |= dict.fromkeys(read, "the model's code reads its weight, or how wide it is")
        edits, done = [], {}
        for group in groups(module, [p for p in runs if p not in whole]):
            grams = grams_of(model.module, group, samples) if self.form == "activation" else {}
            for path in group:
                layer: Any = module.get_submodule(path)
                gram = grams.pop(path, None)
                weight = layer.weight.to(context.device)
                low = decompose(weight, None if gram is None else whitening(gram.to(context.device)))
                ranks, said = self._ranks(low, layer, runs[path], bench)
                if ranks is None:
                    whole[path] = said
                    continue
                edits.append({"edit": "factorize", "path": path, "form": form(layer), "ranks": list(ranks)})
                edit(module, edits[-1])
                _fill(module.get_submodule(path), layer, low.factors(ranks))
                done[path] = {"form": form(layer), "ranks": list(ranks), "kept": low.kept(ranks), **said}
        _check(model.module, module, one)
        sparse = holding(module, model.sparse)  # of layers that are left whole
        return (
            model.edited(module=module, sparse=sparse)
            .restructured(*edits)
            .noted(step="factorize", layers=done, whole=whole)
        )

    def _ranks(self, low: LowRank, layer: Any, run: Run, bench: Bench) -> tuple[Any, Any]:
        """(ranks, what the note says of them), or (None, why the layer is left whole)."""
        if self.rank_by == "latency":
            return self._timed(low, layer, run, bench)
        if self.rank_by == "energy":
            wanted = low.ranks_keeping(self.energy)
            ranks = tuple(
                _multiple(math.ceil(r / self.round_to), self.round_to, most)
                for r, most in zip(wanted, low.full, strict=True)
            )
        else:
            ranks = self._below(low, self.ratio)
        problem = _saves(low, layer, ranks, run)
        return (None, problem) if problem else (ranks, {"params": [layer.weight.numel(), sum(low.sizes(ranks))]})

    def _below(self, low: LowRank, ratio: float) -> tuple[int, ...]:
        wanted = low.ranks_saving(ratio)
        return tuple(
            _multiple(math.floor(r / self.round_to + 1e-9), self.round_to, most)
            for r, most in zip(wanted, low.full, strict=True)
        )

    def _timed(self, low: LowRank, layer: Any, run: Run, bench: Bench) -> tuple[Any, Any]:
        from ...models.surgery import factorized
        from .ranks import form

        tried = dict.fromkeys(self._below(low, (i + 1) / (_TRIED + 1)) for i in range(_TRIED))
        best, value, said = None, 0.0, {}
        for ranks in tried:
            if _saves(low, layer, ranks, run):
                continue
            parts = factorized(layer, form(layer), ranks)
            _fill(parts, layer, low.factors(ranks))
            won, before, after = bench.race(layer, parts, run.shape)
            each = (before - after) / max(1 - low.kept(ranks), _LOST)
            if won and each > value:
                best, value, said = ranks, each, {"ms": [before, after]}
        return (None, f"no rank is measured faster on {self.on}") if best is None else (best, said)


def _multiple(n: int, round_to: int, most: int) -> int:
    """n times `round_to`, at least one time, at most the full rank."""
    return min(max(n, 1) * round_to, most)


def _saves(low: LowRank, layer: Any, ranks: tuple[int, ...], run: Run) -> str | None:
    """None if these ranks save parameters and multiply-accumulates, else which they do not."""
    from .ranks import form

    sizes = low.sizes(ranks)
    # of an image's three channels, say
    if any(r >= most for r, most in zip(ranks, low.full, strict=True)):
        return f"rank {list(ranks)} is a full rank"
    if sum(sizes) >= layer.weight.numel():
        return f"rank {list(ranks)} saves no parameters"
    # a 1x1 convolution's stride is in its first part
    first = sizes[0] * (run.n_in if form(layer) == "tucker2" else run.n_out)
    if first + sum(sizes[1:]) * run.n_out >= layer.weight.numel() * run.n_out:
        return f"rank {list(ranks)} saves no multiply-accumulates"
    return None


def _fill(parts: nn.Module, layer: Any, factors: tuple[Tensor, ...]) -> None:
    """The factors as the weights of the parts, and the layer's bias as that of
    the last. In place."""
    import torch

    made: list[Any] = list(parts.children())
    with torch.no_grad():
        for part, factor in zip(made, factors, strict=True):
            part.weight.copy_(factor.reshape(part.weight.shape))
        if layer.bias is not None:
            made[-1].bias.copy_(layer.bias)


def _check(before: nn.Module, after: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """InputError if the model does not run with its new layers, or gives another shape."""
    import torch

    try:
        with torch.no_grad():
            same = after(*inputs).shape == before(*inputs).shape
        got = "another shape of output"
    except Exception as e:
        # whatever a model's own code raises when a layer is not the one that it knows
        same, got = False, f"{type(e).__name__}: {e}"
    if not same:
        raise InputError(
            "the model does not run with factorized layers",
            got=got,
            fix="name the layers whose weights the model's code reads in factorize.skip",
        )
