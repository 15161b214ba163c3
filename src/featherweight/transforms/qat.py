"""Qat: quantization-aware training. The model is trained with its weights and activations rounded
as int8 arithmetic will round them.

Method: LSQ (Esser et al. 2020, arXiv:1902.08153), see `models.quant.lsq`. Batch norms keep running
while the first half of the steps is trained, and are frozen (running statistics) for the second, so
that the trained model is the one that is exported (Krishnamoorthi 2018, arXiv:1806.08342,
section 3.2.2). With one weight scale a channel, folding a norm into its convolution only rescales
rows of the grid. With one a tensor it would leave the grid, so there norms are folded first and
their scales stay frozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..plan import LayerPlan, Plan
from ..recipe import Made, Mark
from ..space import Choice, Float, Int, param
from .base import Context, Trained, fitted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package
    from ..train.loop import Objective


@dataclass(frozen=True)
class Qat(Trained):
    """Train with int8 arithmetic simulated, then leave every weight on its grid and name the grids
    in the plan (scheme int8-static).

    Layers that no calibration sample reaches, whose weight belongs to another layer too, or that
    `skip` names stay in floating point; an output layer tied with an embedding table is stored with
    as many bits as the table.
    """

    says = "Train the model with its 8-bit rounding, so that it learns to live with it"

    version = 2

    epochs: int = param(
        3,
        search=Int(1, 12, log=True),
        legal=Int(0, 100_000),
        doc="passes over the training split; 0: calibrate and round only",
    )
    lr: float = param(1e-4, search=Float(1e-5, 1e-2, log=True), legal=Float(0.0, 100.0), doc="peak learning rate")
    bits: int = param(8, legal=Choice(8), doc="of weights and activations; runtimes compute with 8")
    granularity: str = param(
        "channel",
        search=Choice("channel", "tensor"),
        legal=Choice("channel", "tensor"),
        doc="one weight scale per channel, or per tensor",
    )
    activations: str = param(
        "u8",
        search=Choice("u8", "s8"),
        legal=Choice("u8", "s8"),
        doc="unsigned (asymmetric) or signed (symmetric) activations",
    )
    start: str = param(
        "minmax",
        legal=Choice("minmax", "lsq"),
        doc="first weight steps: of the smallest grid that holds them, or LSQ's formula",
    )
    calibrate: str = param(
        "minmax",
        search=Choice("minmax", "percentile", "mse"),
        legal=Choice("minmax", "percentile", "mse"),
        doc="how the activation ranges that training starts from are chosen",
    )
    samples: int = param(
        256, search=Choice(64, 256, 512), legal=Int(1, 1_000_000), doc="training samples that set these ranges"
    )
    embeddings: int = param(
        8, legal=Choice(4, 8, 16, 32), doc="bits of embedding tables, which are rounded afterwards, not trained so"
    )
    skip: tuple[str, ...] = param((), doc="layers (module paths) left in floating point")
    alpha: float = param(
        0.0, search=Float(0.0, 1.0), legal=Float(0.0, 1.0), doc="share of a teacher's term in the loss; 0: none"
    )
    form: str = param(
        "kl",
        search=Choice("kl", "mse"),
        legal=Choice("kl", "mse", "softmax", "bernoulli"),
        doc="distance between outputs, as of distill",
    )
    temperature: float = param(
        2.0, search=Float(1.0, 8.0, log=True), legal=Float(1e-3, 1e3), doc="softens both outputs (softmax, bernoulli)"
    )
    teacher: Any = param(None, doc="a recipe whose model is the teacher; none: the baseline")

    @property
    def makes(self) -> frozenset[Mark]:
        return frozenset({Made.INTEGER_WEIGHTS})

    @property
    def pauses(self) -> bool:
        return False

    @property
    def depends(self) -> str:
        from ..machine import saturates

        return f"saturates={saturates()}"

    def plan(self, seed: int = 0) -> Plan:
        """The plan without layers; `seed` picks the calibration samples. A target can be asked
        about it before anything runs."""
        return Plan(
            scheme="int8-static",
            bits=self.bits,
            granularity=self.granularity,
            group=0,
            symmetric=True,
            embeddings=self.embeddings,
            activations=self.activations,
            calibrate=self.calibrate,
            samples=self.samples,
            seed=seed,
        )

    def apply(self, model: Package, context: Context) -> Package:
        from ..machine import saturates
        from ..models.quant.activations import chunks, input_grids, same_inputs
        from ..models.quant.layers import floating, grid_of
        from ..models.quant.lsq import absorb_norms, attach, detach, trained_name
        from ..train.loop import Settings, fit

        module = model.copied().eval().to(context.device)
        batches = chunks(context.calibration(self.samples))
        left = self._left(module)
        paths = [path for path in _layers(module) if path not in left]
        norms = absorb_norms(module, paths, batches[0]) if self.granularity == "tensor" else []
        inputs = input_grids(module, paths, batches, self.activations, self.calibrate)
        left |= {path: "no calibration sample reaches it" for path in paths if path not in inputs}
        paths = [path for path in paths if path in inputs]
        if not paths:
            raise InputError(
                "there is nothing to quantize in this model",
                got=left,
                allowed="Linear layers and convolutions that are not skipped",
            )
        # Where 8-bit products saturate, weights get 7-bit codes, stored in 8 bits.
        grid = grid_of(LayerPlan(self.bits, self.granularity), True, saturates())
        attach(module, same_inputs(module, paths, batches[0]), grid, inputs, self.start)
        settings = Settings(
            self.epochs,
            self.lr,
            self.batch_size,
            self.optimizer,
            self.schedule,
            self.weight_decay,
            self.momentum,
            self.warmup,
        )
        sparse = [
            trained_name(name.removesuffix(".weight")) if name.removesuffix(".weight") in paths else name
            for name in model.sparse
        ]
        train = context.splits.train
        steps = self.epochs * -(-len(train) // self.batch_size)
        with _frozen(module, steps // 2, norms):
            loss = fit(
                module,
                train,
                self._objective(context, model.module),
                settings,
                seed=context.seed,
                device=context.device,
                report=context.report,
                sparse=sparse,
            )
        module.to("cpu").eval()
        scales = detach(module, paths)
        plan = replace(self.plan(context.seed), layers=self._entries(module, paths), skip=floating(module) or None)
        return model.edited(module=module, plan=plan, scales=scales).noted(
            step=self.kind,
            epochs=self.epochs,
            final_loss=loss,
            layers=len(paths),
            weight_bits=grid.bits,
            left=left,
            folded=norms,
        )

    def _left(self, module: nn.Module) -> dict[str, str]:
        """{path: why} of the layers that are not trained so."""
        from ..models.computed import WHY, computed

        found = _layers(module)
        unknown = sorted(
            s for s in self.skip if not any(p == s or p.startswith(s + ".") for p in dict(module.named_modules()))
        )
        if unknown:
            raise InputError("there are no such layers to skip", got=unknown, allowed=list(found)[:40])
        owners = Counter(id(p) for m in module.modules() for p in m._parameters.values() if p is not None)
        left = {p: "skipped" for p in found if any(p == s or p.startswith(s + ".") for s in self.skip)}
        shared = {p: "its weight belongs to another layer too" for p, m in found.items() if owners[id(m.weight)] > 1}
        return {p: WHY for p, m in found.items() if computed(m)} | shared | left

    def _entries(self, module: nn.Module, paths: list[str]) -> dict[str, LayerPlan]:
        """`layers` of the plan: 8 bits for what was trained so, 32 for other layers; embedding
        tables, with what is tied to them, as the field says, one scale a row."""
        from ..models.quant.fake import computes, quantizable
        from ..models.quant.layers import sharing

        users = sharing(module)

        def bits(path: str, layer: nn.Module) -> int:
            skipped = any(p == s or p.startswith(s + ".") for p in users[path] for s in self.skip)
            if not computes(layer) and not skipped:
                return self.embeddings
            return 8 if path in paths else 32

        return {
            path: LayerPlan(bits(path, m), self.granularity if computes(m) else "channel")
            for path, m in quantizable(module).items()
        }

    def _objective(self, context: Context, before: nn.Module) -> Objective:
        """The task's loss, or its blend with the distance to a teacher, as Distill has it."""
        task_loss = context.task.loss_fn
        if self.alpha == 0:
            return lambda out, y, _: task_loss(out, y)
        import torch

        from ..train.losses import soft_loss

        teacher = torch.from_numpy(context.teacher_outputs(self.teacher))  # [N, C]
        form, _ = fitted(self.form, before, context)

        def objective(out: Tensor, y: Tensor, index: Any) -> Tensor:
            soft = soft_loss(out, teacher[index].to(out.device), form, self.temperature, context.task.axis_of_classes)
            return soft if self.alpha == 1.0 else (1 - self.alpha) * task_loss(out, y) + self.alpha * soft

        return objective


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    """Every layer that multiplies, those that share a weight too."""
    from ..models.quant.fake import computes, quantizable
    from ..models.quant.layers import sharing

    listed = quantizable(module)
    found = {p: module.get_submodule(p) for path, paths in sharing(module).items() if path in listed for p in paths}
    return {path: m for path, m in found.items() if computes(m)}


@contextmanager
def _frozen(module: nn.Module, after: int, folded: list[str]) -> Iterator[None]:
    """While it lasts, batch norms stop following the batches once the module has been trained for
    `after` steps; those of `folded` at once, and their scales are not trained."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from ..models.hooks import watched

    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    at_once: list[Any] = [module.get_submodule(path) for path in folded]
    trained = [(m.weight, m.weight.requires_grad) for m in at_once if m.weight is not None]
    steps = 0

    def step(_: nn.Module, __: Any) -> None:
        nonlocal steps
        if module.training:
            for norm in norms if steps >= after else at_once:
                norm.eval()
            steps += 1

    try:
        for weight, _ in trained:
            weight.requires_grad_(False)
        with watched(module, before={"": step}):
            yield
    finally:
        for weight, before in trained:
            weight.requires_grad_(before)
