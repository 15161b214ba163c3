"""What a model is for: its builder, data, loss and metric; and how a task is loaded from a file.

A task file is the user's own code and is executed. torch is imported only when a model is built.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TaskError, Whole
from ..plain import check_unicode
from ..recipe import Recipe
from ..seeding import derive
from .data import Inputs, Split, Splits
from .files import code_text, name_of, source_digest, user_code, where
from .splitting import given, split

if TYPE_CHECKING:
    import torch
    from torch import nn

# by name, as `task.losses` has them: what outputs and targets are
LOSSES = {
    "cross_entropy": "logits [n, classes], class numbers [n]; at places: [n, classes, ...], [n, ...]",
    "bce": "logits, as many targets of 0 and 1",
    "log_loss": "probabilities, class numbers [n] or as many targets between 0 and 1",
    "mse": "numbers, as many targets",
    "mae": "numbers, as many targets",
    "huber": "numbers, as many targets",
    "kl": "logits [n, classes], or one of yes, targets that are logits, too",
    "cosine": "vectors [n, numbers], as many targets",
    "ctc": "logits [n, classes, frames] with 0 for blank, labels [n, most], 0 or less after the last",
    "contrastive": "embeddings [n, numbers], class numbers [n]",
}
CLASSES = ("cross_entropy", "log_loss")  # whose targets may be class numbers


@dataclass(eq=False)
class Task:
    """What the model is for.

    name: part of the fingerprint and of the seed of the initial weights; model: makes the module,
    the same architecture each time (None: there is none yet, `search` finds one); data: makes the
    data, a `Split` (which is then cut by `split(data, seed=split_seed)`) or `Splits`;
    loss: a name (`LOSSES`; "cross_entropy": logits [n, classes], integer targets [n]), or
    fn(outputs, targets) -> scalar tensor; metric: a name, a function or a Metric, resolved by
    `featherweight.measure`; baseline: how the baseline is trained from what `model` makes
    (None: its weights are ready); recipe: the search space if the caller gives none;
    ref: how another process loads this task (JSON); sources: files whose contents identify it;
    notes: what is to be said of the data to who uses them; prepared: how the model's inputs are
    made from what people have, for who runs what is exported (a sentence or more); identity: texts
    that tell it from others of its kind, where no source does; deploy: writes what makes inputs of
    what people have (a tokenizer) into a folder, and says how that is done (`deploy.predict.read`;
    None: inputs come as arrays); class_axis: of outputs with an answer at each place of a sample
    (pixels, tokens, frames), which axis has the classes: 1, as torch has it, [n, classes, ...],
    -1, [n, ..., classes], or 0, none: one number at each place says yes or no (None: 1); front:
    what a net that a search builds stands in, (kind, fields) of a description in `nets` (None:
    nothing).
    """

    name: str
    model: Callable[[], nn.Module] | None
    data: Callable[[], Split | Splits]
    loss: str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = "cross_entropy"
    metric: Any = "accuracy"
    baseline: Recipe | None = None
    recipe: Recipe | None = None
    split_seed: int = 0
    ref: dict[str, Any] | None = None
    sources: tuple[str | Path, ...] = ()
    notes: tuple[str, ...] = ()
    prepared: str = ""
    identity: tuple[str, ...] = ()
    deploy: Callable[[Path], dict[str, Any]] | None = None
    class_axis: int | None = None
    front: Callable[[], tuple[str, dict[str, Any]] | None] | None = None

    def __post_init__(self) -> None:
        self._splits: Splits | None = None
        self._checked = False
        check_unicode("the name of the task", self.name)
        if not isinstance(self.name, str) or not self.name:
            raise TaskError("a task needs a name", got=repr(self.name), allowed="a text that is not empty")
        for what in ("model", "data"):
            if not callable(getattr(self, what)) and not (what == "model" and self.model is None):
                raise TaskError(
                    f"Task.{what} has to be a function without arguments",
                    got=type(getattr(self, what)).__name__,
                    fix=f"{what}=lambda: ...",
                )
        if hasattr(self.model, "state_dict") and not isinstance(self.model, type):  # a module is callable, too
            raise TaskError(
                "Task.model has to be a function that makes the model, and this is a model",
                got=type(self.model).__name__,
                fix="model=lambda: copy.deepcopy(net), or a function that builds it and loads its weights",
            )
        if not callable(self.loss) and self.loss not in LOSSES:
            near = get_close_matches(str(self.loss), LOSSES, cutoff=0.5)
            raise TaskError(
                "no such loss",
                got=repr(self.loss),
                allowed=f"{', '.join(LOSSES)}, or a function of (outputs, targets)",
                fix=f"{' or '.join(near)}?" if near else None,
            )
        if self.class_axis not in (None, 1, -1, 0):
            raise TaskError(
                "no such axis of classes",
                got=self.class_axis,
                allowed="1 or -1: the second or the last; 0: there is none",
            )
        if self.class_axis == 0 and self.loss in ("cross_entropy", "ctc", "contrastive"):
            raise TaskError(
                f"{self.loss} is of several classes",
                got="class_axis=0: one number at each place",
                fix="class_axis=1 or -1",
            )
        for what in ("baseline", "recipe"):
            if not isinstance(getattr(self, what), Recipe | None):
                raise TaskError(
                    f"Task.{what} has to be a recipe", got=type(getattr(self, what)).__name__, fix=f"{what}=Recipe(...)"
                )
        if self.model is None and self.baseline is not None:
            raise TaskError(
                "a task without a model has no baseline of its own",
                got=str(self.baseline),
                fix="leave the baseline out",
            )
        if self.baseline is not None and not self.baseline.is_filled:
            raise TaskError(
                "the baseline's recipe has holes",
                got=str(self.baseline),
                fix="give each field a value: the baseline is one model",
            )

    def splits(self) -> Splits:
        """train, valid and test. Made at the first call, then kept."""
        if self._splits is None:
            with user_code(f"the data of task {self.name!r} cannot be made", self._file):
                made = self.data()
            if not isinstance(made, Split | Splits):
                raise TaskError(
                    f"Task.data of {self.name!r} gave the wrong type",
                    got=type(made).__name__,
                    allowed="Split (ArraySplit, LazySplit, ...) or Splits",
                )
            if isinstance(made, Split):
                made = split(made, seed=self.split_seed)
            elif not made.fingerprint:  # a Splits that the user put together
                made = given(made.train, made.valid, made.test)
            self._splits = made
        return self._splits

    def example(self) -> Inputs:
        """One training sample: inputs by name, each [1, ...]."""
        return self.splits().train.batch(np.array([0]))[0]

    def build(self) -> nn.Module:
        """What `model` makes, in eval mode, with initial weights that depend on the
        task's name only.

        The first call checks that it is a module which takes the example's inputs by position
        and gives [batch] or [batch, outputs]; TaskError if not. The global random state is
        left as it was.
        """
        import torch
        from torch import nn

        if self.model is None:
            raise TaskError(
                f"task {self.name!r} has no model",
                fix="search for one: fw.search(task, ..) or `featherweight search`; or give Task(model=..)",
            )
        with (
            torch.random.fork_rng(devices=[]),
            user_code(f"the model of task {self.name!r} cannot be built", self._file),
        ):
            torch.default_generator.manual_seed(derive(0, "build", self.name))
            module = self.model()
        if not isinstance(module, nn.Module):
            raise TaskError(
                f"Task.model of {self.name!r} gave the wrong type", got=type(module).__name__, allowed="torch.nn.Module"
            )
        module.eval()
        if not self._checked:
            self._check(module)
            self._checked = True
        return module

    def _check(self, module: nn.Module) -> None:
        """TaskError if the module does not fit the data. Two samples where there are two,
        so that the batch axis shows."""
        import torch

        from .tensors import as_tensor

        train = self.splits().train
        inputs, targets = train.batch(np.arange(min(2, len(train))))
        got = {name: f"{v.dtype}{list(v.shape)}" for name, v in inputs.items()}
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                out = module(*[as_tensor(v) for v in inputs.values()])
        except Exception as e:  # whatever the user's forward raises
            shapes = re.search(r"channel|shape|size|dimension", str(e))
            raise TaskError(
                f"the model of task {self.name!r} does not run on a training batch",
                got=Whole(f"inputs {got}; {where(e, self._file)}"),
                allowed="forward takes the inputs by position, in the order of their names in the data",
                fix="make the model for inputs of these shapes, or the inputs of those that it takes"
                if shapes
                else "give images and features as float32 and token ids as int64",
            ) from e
        if not isinstance(out, torch.Tensor) or out.ndim < 1 or out.shape[0] != len(targets):
            shape = list(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise TaskError(
                f"the model of task {self.name!r} has the wrong output",
                got=f"{shape} for {len(targets)} samples",
                allowed="one tensor, [batch], [batch, outputs] or, with an answer at each place, [batch, classes, ...]",
            )
        known = [int(k) for k in self.splits().report.get("classes") or ()]
        if self.loss == "cross_entropy" and known and (out.ndim != 2 or min(known) < 0 or max(known) >= out.shape[1]):
            raise TaskError(
                f"the model of task {self.name!r} has no output for every class",
                allowed="labels 0 to outputs - 1",
                got=f"output {list(out.shape)}, labels {min(known)} to {max(known)}",
                fix="widen the last layer, or number the labels from 0",
            )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of name, sources (names and what they say, see `source_digest`), data, loss and
        metric. Without sources: of the built model and the bytecode of loss and metric instead."""
        h = hashlib.sha256()
        sources = sorted({(Path(s).name, source_digest(Path(s))) for s in self.sources})
        parts = [
            self.name,
            self.splits().fingerprint,
            name_of(self.loss),
            name_of(self.metric),
            *[f"{n}={d}" for n, d in sources],
            *([] if self.class_axis is None else [f"class_axis={self.class_axis}"]),
        ]
        for text in self.identity:
            h.update(text.encode())
        if not sources:
            if self.model is not None:
                import torch

                module = self.build()
                h.update(str(module).encode())
                for key, value in module.state_dict().items():
                    data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                    h.update(f"{key}:{value.dtype}{list(value.shape)}".encode() + data)
            for function in (self.loss, self.metric):
                h.update(code_text(getattr(function, "__code__", None)).encode())
        h.update("\x1f".join(parts).encode())
        return h.hexdigest()

    @property
    def outputs(self) -> int:
        """Numbers that a model has to give for a sample: as many as there are classes, for
        cross-entropy; else as the targets have.

        TaskError if the loss is a function and there is no model to ask."""
        if self.model is not None:
            import torch

            from .tensors import as_tensor

            with torch.no_grad():
                return int(self.build()(*[as_tensor(v) for v in self.example().values()]).reshape(1, -1).shape[1])
        target = np.asarray(self.splits().train.batch(np.array([0]))[1])
        if self.loss in CLASSES and target.ndim == 1:
            known = [int(k) for k in self.splits().report.get("classes") or ()]
            if known:
                return max(known) + 1
            return 1 + max(int(targets.max()) for _, targets in self.splits().train.batches())
        if self.loss in (*CLASSES, "ctc", "contrastive"):
            raise TaskError(
                f"how many outputs a model of task {self.name!r} needs cannot be seen from its data",
                got=f"the loss {self.loss!r}, targets {list(target.shape[1:])} a sample",
                allowed="a class number or numbers a sample: the nets of a search give one answer a sample",
                fix="give Task(model=..)",
            )
        if not callable(self.loss):
            return int(target.reshape(1, -1).shape[1])
        raise TaskError(
            f"how many outputs a model of task {self.name!r} needs cannot be seen from its loss, a function",
            fix="give Task(model=..), or search a recipe that begins with Build(..)",
        )

    @property
    def loss_fn(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """fn(outputs, targets) -> scalar tensor, the mean over the batch."""
        if callable(self.loss):
            return self.loss
        from .losses import BY_NAME, classes_second, one_number

        named = BY_NAME[self.loss]
        turned = {-1: classes_second, 0: one_number}.get(self.axis_of_classes)
        return named if turned is None else partial(turned, named)

    @property
    def axis_of_classes(self) -> int:
        """Of outputs [n, ...]: the axis of their classes; 0 if there is none."""
        return 1 if self.class_axis is None else self.class_axis

    @property
    def _file(self) -> Path | None:
        file = (self.ref or {}).get("file")
        return Path(file) if file else None
