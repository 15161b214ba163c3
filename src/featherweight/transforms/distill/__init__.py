"""Distill: train the model to give what one or more teachers give, at its outputs and inside.

Notation: s student logits [B, C], t teacher logits [B, C], T temperature, a share of the soft term.
Loss: (1 - a) task loss + a soft(s, t; T) + features * hint + attention * attention
transfer + relations * RKD; the formulas and their sources are in `train.losses`. Self-distillation:
Furlanello et al. 2018 (arXiv:1805.04770). Data-free: `models.synthesize`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...recipe import Recipe
from ...seeding import derive
from ...space import Choice, Domain, Float, Int, param
from ...task.data import ArraySplit, Split
from ...task.files import name_of, parse_ref
from ...task.load import load_task
from ...task.task import Task
from ..base import Context, Trained, fitted

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.package import Package
    from .hints import Weights

_WEIGHT = Float(0.0, 1e6)


@dataclass(frozen=True)
class Distill(Trained):
    """Train on (1 - alpha) * task loss + alpha * distance to the teachers' outputs + the weighted
    terms that look inside.

    teacher: none (the baseline), a recipe, "self" (the model as it comes in), or several of them:
    an ensemble. Terms that look inside are averaged over the teachers. data: other inputs than the
    task's; they have no labels, so alpha has to be 1. InputError says what does not fit: unmatched
    layers, inputs of another kind, a teacher without batch norm for synthetic data.
    """

    says = "Train the smaller model to give the original model's outputs (distillation)"
    teaches = True

    version = 2

    alpha: float = param(0.7, search=Float(0.3, 1.0), legal=Float(0.0, 1.0), doc="share of the teacher's term")
    form: str = param(
        "kl",
        search=Choice("kl", "mse"),
        legal=Choice("kl", "mse", "softmax", "bernoulli"),
        doc=(
            "distance between outputs; kl: between what they stand for, by the task's loss: softmax over classes, "
            "bernoulli for labels by themselves, mse for numbers"
        ),
    )
    temperature: float = param(
        2.0, search=Float(1.0, 8.0, log=True), legal=Float(1e-3, 1e3), doc="softens both outputs (softmax, bernoulli)"
    )
    teacher: Any = param(
        None,
        doc=(
            "a recipe whose model is the teacher; none: the baseline; 'self': the model as it comes; "
            "a list: an ensemble"
        ),
    )
    features: float = param(0.0, legal=_WEIGHT, doc="weight of the distance between matched layers' features (FitNets)")
    attention: float = param(
        0.0, legal=_WEIGHT, doc="weight of attention transfer (convolutions) or self-attention relations (transformers)"
    )
    relations: float = param(
        0.0, legal=_WEIGHT, doc="weight of distances and angles between the samples of a batch (RKD)"
    )
    layers: tuple[str, ...] = param(
        (), doc="the student's layers that features and attention are read at; none: the ends of its stages"
    )
    data: str = param(
        "", doc="inputs to train on: '' the task's, 'synthetic' made from the teacher, or FILE.py:NAME, another task's"
    )
    synthetic: int = param(1024, legal=Int(1, 10_000_000), doc="how many samples to synthesise")
    synthesis_steps: int = param(200, legal=Int(1, 1_000_000), doc="optimisation steps a batch of synthetic samples")

    def __post_init__(self) -> None:
        super().__post_init__()
        several = self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)
        wrong = [t for t in several if t is not None and t != "self" and not isinstance(t, (Recipe, Domain))]
        if wrong or not several:
            raise InputError(
                "this is no teacher",
                got=repr(wrong or self.teacher)[:200],
                allowed="none, a recipe, 'self', or a list of these",
            )
        if isinstance(self.data, str) and self.data and self.alpha != 1.0:
            raise InputError(
                "other inputs than the task's have no labels",
                got=f"data={self.data!r}, alpha={self.alpha}",
                fix="set alpha=1.0",
            )

    @property
    def depends(self) -> str:
        return _task(self.data).fingerprint if self.data not in ("", "synthetic") else ""

    @property
    def teachers(self) -> tuple[Any, ...]:
        """Recipes, None for the baseline, "self" for the model as it comes in."""
        return self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)

    def apply(self, model: Package, context: Context) -> Package:
        from .hints import Weights

        form, why = fitted(self.form, model.module, context) if self.alpha > 0 else ("mse", "")
        told = {"form": form, "because": why} if self.alpha > 0 else {}
        split = self._split(model, context, form)
        weights = Weights(self.features, self.attention, self.relations)
        if weights.wanted:
            return self._inside(model, context, split, weights, form).told(**told)
        if self.alpha == 0.0:
            return self.fit(model, context, lambda out, y, _: context.task.loss_fn(out, y))
        teacher = self._outputs(model, context, split, form)  # [N, C]

        def objective(out: Tensor, y: Tensor, index: Any) -> Tensor:
            return self._outer(out, teacher[index].to(out.device), y, context, form)

        own = replace(context, splits=replace(context.splits, train=split))
        return self.fit(model, own, objective).told(**told)

    def _outer(self, out: Tensor, teacher: Tensor, y: Tensor, context: Context, form: str) -> Tensor:
        """(1 - a) task loss + a soft loss (Hinton et al. 2015, section 2)."""
        from ...train.losses import soft_loss

        soft = soft_loss(out, teacher, form, self.temperature, context.task.axis_of_classes)
        return soft if self.alpha == 1.0 else (1 - self.alpha) * context.task.loss_fn(out, y) + self.alpha * soft

    def _package(self, teacher: Any, model: Package, context: Context) -> Package:
        return model if teacher == "self" else context.teacher(teacher)

    def _outputs(self, model: Package, context: Context, split: Split, form: str) -> Tensor:
        """The teachers' joint logits [N, C] on the split; those on the task's own are stored once
        for all candidates."""
        import torch

        from ...train.loop import predict
        from ...train.losses import ensemble_logits

        outputs = []
        for t in self.teachers:
            stored = t != "self" and not self.data
            out = (
                context.teacher_outputs(t)
                if stored
                else predict(self._package(t, model, context).module, split, context.device)
            )
            outputs.append(torch.from_numpy(out))
        return ensemble_logits(outputs, form, self.temperature, context.task.axis_of_classes)

    def _inside(self, model: Package, context: Context, split: Split, weights: Weights, form: str) -> Package:
        """Training with terms that look inside: the teachers run on every batch that the
        student runs on."""
        import torch

        from ...train.loop import fit, tensors
        from ...train.losses import ensemble_logits
        from .hints import Hints

        student = model.edited(module=model.copied())
        teachers = [self._package(t, model, context) for t in self.teachers]
        example, _ = tensors(split, np.arange(min(2, len(split))), "cpu")
        names = list(split.batch(np.arange(1))[0])
        mask = names.index("attention_mask") if "attention_mask" in names else None
        generator = torch.Generator().manual_seed(derive(context.seed, "projections") % 2**63)
        hints = [Hints(student, t, weights, self.layers, example, generator, mask) for t in teachers]
        extra = torch.nn.ModuleList([h.projections for h in hints])
        with ExitStack() as stack:
            for t in teachers:
                t.module.to(context.device)
                stack.callback(t.module.to, "cpu")
            taps = [(stack.enter_context(h.tap_student()), stack.enter_context(h.tap_teacher())) for h in hints]

            def objective(out: Tensor, y: Tensor, _: Any) -> Tensor:
                given, total = [], out.new_zeros(())
                for h, (s, t) in zip(hints, taps, strict=True):
                    with torch.no_grad():
                        given.append(h.teacher(*s.inputs))
                    total = total + h.loss(s, t, out, given[-1]) / len(hints)
                if self.alpha == 0.0:
                    return total + context.task.loss_fn(out, y)
                joint = ensemble_logits(given, form, self.temperature, context.task.axis_of_classes)
                return total + self._outer(out, joint, y, context, form)

            loss = fit(
                student.module,
                split,
                objective,
                self.training(),
                seed=context.seed,
                device=context.device,
                report=context.report,
                sparse=model.sparse,
                extra=extra,
                rungs=context.rungs,
            )
        return student.noted(
            step=self.kind, epochs=self.epochs, final_loss=loss, layers=[list(p) for p in hints[0].pairs]
        )

    def _split(self, model: Package, context: Context, form: str) -> Split:
        """The inputs to train on, with targets that only count for the task's own."""
        own = context.splits.train
        if not self.data:
            return own
        if self.data == "synthetic":
            return self._synthetic(model, context, form)
        other = _task(self.data).splits().train
        ours, theirs = (
            {name: f"{v.dtype}{list(v.shape[1:])}" for name, v in s.batch(np.arange(1))[0].items()} if len(s) else {}
            for s in (own, other)
        )
        if list(ours.items()) != list(theirs.items()):
            raise InputError(
                f"the inputs of {self.data} are not those of this task", got=theirs or "no samples", allowed=ours
            )
        return other

    def _synthetic(self, model: Package, context: Context, form: str) -> Split:
        """Inputs made from the (first) teacher; of the task's own samples only the name, type and
        shape of the input are used."""
        from ...models.synthesize import synthesize

        example = context.splits.train.batch(np.arange(1))[0]
        name, like = next(iter(example.items()))
        if len(example) != 1 or like.dtype.kind != "f" or like.ndim < 2:
            raise InputError(
                "inputs like these cannot be synthesised",
                got={n: f"{v.dtype}{list(v.shape[1:])}" for n, v in example.items()},
                allowed="one floating-point input, [channels, ...]: gradients reach no token ids",
                fix="give real inputs: data='' or data='FILE.py:NAME'",
            )
        if form != "softmax" and fitted("kl", model.module, context)[0] != "softmax":
            raise InputError(
                "synthetic inputs are made for classes",
                got=f"a task with the loss {name_of(context.task.loss)!r}, whose outputs are no classes",
                allowed="a classification task",
            )
        teacher = self._package(self.teachers[0], model, context).module
        x, y = synthesize(
            teacher,
            like.shape[1:],
            self.synthetic,
            seed=context.seed,
            steps=self.synthesis_steps,
            device=context.device,
        )
        return ArraySplit({name: x.astype(like.dtype)}, y)


def _task(ref: str) -> Task:
    """The task that `data` names. Its file is executed once for every change of it."""
    path, _ = parse_ref(ref, "task")
    return _loaded(ref, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _loaded(ref: str, _stamp: int) -> Task:
    return load_task(ref)
