"""What transforms share: what they are given besides the model,
and the settings of those that train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import FeatherweightError, InputError
from ..recipe import Made, Mark, Recipe, Shape, Transform
from ..seeding import derive
from ..space import Choice, Float, Int, param

# samples, numbers in all of them, and multiply-accumulates for all of them, that are cheap to run
FEW, SMALL, CHEAP = 16, 8192, 4e9
MANY = 64  # samples, at most, where a model's code looks at values

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from ..models.package import Package
    from ..task.data import Splits
    from ..task.task import Task
    from ..train.checkpoint import Rungs
    from ..train.loop import Objective, Settings


_ASKED = 64  # training samples on which a loss is asked what its outputs stand for


@dataclass(frozen=True)
class Trained(Transform):
    """Abstract: what every transform that runs the training loop can be told about it."""

    @property
    def refuses(self) -> dict[Mark, str]:
        return {
            Made.INTEGER_WEIGHTS: "weights are already bound to an integer grid, and training would move them off it"
        }

    @property
    def shape(self) -> Shape:
        return Shape.KEEPS

    @property
    def pauses(self) -> bool:
        """Can a stopper make it wait at a rung, and does it go on from there? True of what hands
        the context's rungs to the training loop."""
        return True

    epochs: int = param(5, search=Int(1, 12, log=True), legal=Int(0, 100_000), doc="passes over the training split")
    lr: float = param(1e-3, search=Float(1e-4, 1e-1, log=True), legal=Float(0.0, 100.0), doc="peak learning rate")
    batch_size: int = param(64, search=Choice(32, 64, 128, 256), legal=Int(1, 2**20), doc="samples a step")
    optimizer: str = param(
        "adamw", search=Choice("sgd", "adam", "adamw"), legal=Choice("sgd", "adam", "adamw"), doc="update rule"
    )
    schedule: str = param(
        "cosine",
        search=Choice("constant", "linear", "cosine"),
        legal=Choice("constant", "linear", "cosine"),
        doc="learning rate over time",
    )
    weight_decay: float = param(
        0.0, search=Float(1e-6, 1e-1, log=True), legal=Float(0.0, 10.0), doc="decay of weight matrices"
    )
    momentum: float = param(0.9, search=Float(0.8, 0.99), legal=Float(0.0, 0.9999), doc="of SGD")
    warmup: float = param(
        0.0, search=Float(0.0, 0.2), legal=Float(0.0, 1.0), doc="fraction of the steps with a rising learning rate"
    )

    def training(self) -> Settings:
        """The fields that the training loop takes."""
        from ..train.loop import Settings

        return Settings(
            self.epochs,
            self.lr,
            self.batch_size,
            self.optimizer,
            self.schedule,
            self.weight_decay,
            self.momentum,
            self.warmup,
        )

    def fit(self, model: Package, context: Context, objective: Objective) -> Package:
        """A copy of the model, trained on the training split to lower `objective`. The zeros of its
        sparse parameters stay zero.

        It tells its score at the context's rungs, if it has some, and raises
        `train.checkpoint.Paused` where it is told to wait."""
        from ..train.loop import fit

        module = model.copied()
        loss = fit(
            module,
            context.splits.train,
            objective,
            self.training(),
            seed=context.seed,
            device=context.device,
            report=context.report,
            sparse=model.sparse,
            rungs=context.rungs,
        )
        return model.edited(module=module).noted(step=self.kind, epochs=self.epochs, final_loss=loss)


def fitted(form: str, module: nn.Module, context: Context) -> tuple[str, str]:
    """(the form of `train.forms.FORMS` that a field `form` stands for, why). "kl" asks what the
    outputs of `module` stand for, by the task's loss on training samples. InputError if the form
    that was asked for does not fit, or none can be told."""
    import numpy as np
    import torch

    from ..train.forms import fitting_form
    from ..train.loop import tensors

    train = context.splits.train
    inputs, targets = tensors(train, np.arange(min(_ASKED, len(train))), "cpu")
    with torch.no_grad():
        shape = module(*[v[:2] for v in inputs]).shape[1:]
    if form == "softmax" and (not shape or shape[-1 if context.task.class_axis == -1 else 0] < 2):
        raise InputError(
            "the softmax form compares distributions over classes",
            got=f"outputs {list(shape)} a sample",
            fix="set form='kl', which finds what fits, or form='mse'",
        )
    if form != "kl":
        return form, "it was asked for"
    return fitting_form(context.task.loss, shape, targets, context.task.axis_of_classes)


@dataclass(frozen=True)
class Context:
    """task and splits: what the model is for (a transform learns and calibrates on `splits.train`
    only; a gate, which is a search, may look at `splits.valid`; none at `splits.test`); seed:
    of this very step;
    teacher: a recipe (None: the baseline) -> its model, which is not to be changed;
    teacher_outputs: a recipe (None: the baseline) -> its model's outputs [N, ...] on the
    training split, float32;
    report: takes progress ({"step": .., "epoch": .., "of": .., "loss": ..});
    rungs: where this step, a training, may have to pause (None: nowhere)."""

    task: Task
    splits: Splits
    seed: int
    teacher: Callable[[Recipe | None], Package]
    teacher_outputs: Callable[[Recipe | None], np.ndarray]
    report: Callable[[dict[str, Any]], None]
    device: str = "cpu"
    rungs: Rungs | None = None

    def child(self, *labels: Any) -> Context:
        """The context of a step inside a step: the same, with a seed of its own and no rungs."""
        return replace(self, seed=derive(self.seed, *labels), rungs=None)

    def calibration(self, n: int) -> dict[str, torch.Tensor]:
        """`n` random training samples as input tensors [n, ...] by name."""
        from ..task.data import calibration_rows
        from ..task.tensors import as_tensor

        train = self.splits.train
        inputs, _ = train.batch(calibration_rows(train, n, self.seed))
        return {name: as_tensor(v, self.device) for name, v in inputs.items()}

    def few(self, module: nn.Module) -> tuple[torch.Tensor, ...]:
        """Training samples to follow and try a model with, in order, on the CPU: two, or more if
        they are small and the model, which is in eval mode, is cheap to run on them. Of a model
        whose code looks at values, 16 to 64: some rows may go a way of their own."""
        import torch

        from ..measure.ops import layer_macs
        from ..models.looking import looks_at_values

        rows = [v.cpu() for v in self.calibration(MANY).values()]
        each = max(1, sum(v.numel() for v in rows) // max(1, len(rows[0])))
        with torch.no_grad():
            macs = max(1.0, sum(layer_macs(module, [v[:1] for v in rows]).values()))
        n = max(2, min(FEW, SMALL // each, int(CHEAP // macs)))
        if looks_at_values(module, tuple(v[:n] for v in rows)):
            n = max(FEW, min(MANY, int(FEW * CHEAP // macs)))
        return tuple(v[:n] for v in rows)


def applied(step: Transform, model: Package | None, context: Context) -> Package:
    """What the step makes of the model. FeatherweightError, by the step's name,
    if it claims zeros that are not there.

    It is the step's defect: it alone knows whether it meant to keep the zeros, and taking the
    claim back for it would hand out a model that lacks what the recipe promises, and measure it
    as if it had."""
    from ..models.hooks import slow_attention
    from ..models.zeros import Zeros

    zeros = Zeros(model)
    with slow_attention():  # of which some steps would see nothing, and others shapes that are none
        made = step.apply(model, context)
    wrong = zeros.wrong(made)
    if wrong:
        raise FeatherweightError(
            f"{step.kind} gives a model that claims zeros which are not there",
            got="; ".join(f"{name}: {why}" for name, why in list(wrong.items())[:5])
            + ("; .." if len(wrong) > 5 else ""),
            allowed="parameters in Package.sparse have zeros, and those of before stay zero",
            fix=(
                f"in {type(step).__name__}.apply keep the zeros, or claim them no more: "
                "model.edited(sparse=models.zeros.holding(..))"
            ),
        )
    return made  # type: ignore[no-any-return]
