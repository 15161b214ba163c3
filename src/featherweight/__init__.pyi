# Written by scripts/stub.py; a test says when it is out of date.

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from . import pareto as pareto
from . import recipes as recipes
from . import registry as registry
from .engine.weights import load_model as load_model
from .errors import FeatherweightError as FeatherweightError
from .limits import Budget as Budget
from .limits import Constraint as Constraint
from .limits import max_drop as max_drop
from .limits import max_latency as max_latency
from .limits import max_macs as max_macs
from .limits import max_memory as max_memory
from .limits import max_params as max_params
from .limits import max_size as max_size
from .limits import min_metric as min_metric
from .nets.cell import Cell as Cell
from .nets.columns import Columns as Columns
from .nets.conv_net import ConvNet as ConvNet
from .nets.encoder import Encoder as Encoder
from .nets.log_mel import LogMel as LogMel
from .nets.mlp import Mlp as Mlp
from .nets.recurrent_net import RecurrentNet as RecurrentNet
from .nets.series_net import SeriesNet as SeriesNet
from .nets.standardised import Standardised as Standardised
from .optuna_sampler import OptunaSampler as OptunaSampler
from .recipe import Made as Made
from .recipe import Mark as Mark
from .recipe import Recipe as Recipe
from .recipe import Shape as Shape
from .recipe import Transform as Transform
from .space import Choice as Choice
from .space import Domain
from .space import Float as Float
from .space import Int as Int
from .space import Maybe as Maybe
from .space import Order as Order
from .study.study import Study as Study
from .targets.base import Target as Target
from .task.data import ArraySplit as ArraySplit
from .task.data import LazySplit as LazySplit
from .task.data import Split as Split
from .task.data import Splits as Splits
from .task.load import load_task as load_task
from .task.splitting import presplit as presplit
from .task.splitting import split as split
from .task.task import Task as Task
from .transforms.adapt_batch_norms import AdaptBatchNorms as AdaptBatchNorms
from .transforms.build import Build as Build
from .transforms.cut_randomly import CutRandomly as CutRandomly
from .transforms.distill import Distill as Distill
from .transforms.distill_blocks import DistillBlocks as DistillBlocks
from .transforms.drop_blocks import DropBlocks as DropBlocks
from .transforms.factorize import Factorize as Factorize
from .transforms.fold_batch_norms import FoldBatchNorms as FoldBatchNorms
from .transforms.gate import Gate as Gate
from .transforms.merge_tokens import MergeTokens as MergeTokens
from .transforms.mixed_precision import MixedPrecision as MixedPrecision
from .transforms.prune import Prune as Prune
from .transforms.qat import Qat as Qat
from .transforms.quantize import Quantize as Quantize
from .transforms.replace_activations import ReplaceActivations as ReplaceActivations
from .transforms.resize import Resize as Resize
from .transforms.train import Train as Train
from .transforms.trim_vocabulary import TrimVocabulary as TrimVocabulary
from .transforms.truncate import Truncate as Truncate
from .warm.guess import Guess as Guess

__version__: str

def optimize(
    task: Task | nn.Module | Callable[[], nn.Module] | str | Path,
    data: Any = None,
    recipe: Recipe | Transform | Sequence[Transform | Domain] | None = None,
    *,
    loss: str | Callable[[Any, Any], Any] | None = None,
    metric: str | Callable[[Any, Any], Any] | None = None,
    baseline: Recipe | Transform | int | None = None,
    label: str | None = None,
    output: str | int | None = None,
    classes: Sequence[str] | None = None,
    class_axis: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    verbose: bool | None = None,
    max_drop: str | float | None = None,
    min_metric: float | None = None,
    max_latency: str | float | None = None,
    max_size: str | float | None = None,
    max_memory: str | float | None = None,
    max_params: str | float | None = None,
    max_macs: str | float | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    trial_minutes: float | None = None,
    trial_memory_gb: float | None = None,
    enough: float | None = None,
    stall: int | None = None,
    least_gain: float | None = None,
    constraints: Sequence[Constraint] | Constraint = (),
    confidence: float = 0.5,
    polish: float = 0.3333333333333333,
    minimize: Sequence[str] | str | None = None,
    strategy: str = "adaptive",
    stopper: str | dict[str, Any] | None = None,
    guesses: Sequence[Guess] = (),
    earlier: Sequence[str | Path] = (),
    target: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    budget: Budget | float | None = None,
    seed: int = 0,
    workers: int | None = None,
    reuse: bool = True,
    force: bool = False,
    device: str = "cpu",
    measure_seconds: float = 2.0,
) -> Study:
    """Search a recipe for the candidates that meet the limits, and the best of them.

        fw.optimize(net, (X, y), max_drop="1%", max_latency="0.5x", minutes=10)
        fw.optimize("task.py", max_size="300KB", trials=40)

    task: a `Task`, a task file ("FILE.py:NAME"), or a model: a module with its weights, or a class
    or function that makes one. data: of a model, (inputs, targets) or inputs alone, a Dataset, a
    DataLoader, a Hugging Face dataset, a DataFrame, a Split, or these by "train", "valid" and
    "test". recipe: the space, a recipe or steps (default: the task's own, or
    `recipes.default(task)`).

    Of a model and data: loss, metric: names, functions or torch's losses (default: what suits
    targets and outputs; without targets the model's own behaviour is kept); baseline: how the
    model is trained first, a `Train`, a recipe or epochs (None: its weights are ready); label: the
    column or key of the targets; output: which of the model's outputs counts; classes: their
    names; class_axis: the axis of outputs that has them, where there is an answer at each place
    (pixels, tokens), 1 or -1, or 0 if one number there says yes or no (None: as targets and inputs
    show); name: of the task.

    `out` is the study's folder (default: runs/NAME): the same call again goes on where it was.
    on_event: hears all that happens. verbose: show it, as a live view in a terminal or a notebook
    and as lines elsewhere (None: if nobody listens); with False, warnings go to Python's log, the
    verdict, too, if nothing was certified, and at level INFO what is measured
    (`logging.getLogger("featherweight")`).
    Raises InputError, TaskError, RecipeError or TargetError before anything runs, if the request
    cannot be met.

    Limits and ends of the search may be given by name: max_drop="1%", max_latency="0.5x",
    minutes=10 (`limits`).

        constraints: what must hold; `optimize` without a floor lets the metric drop by 0.01
            (of errors: by 1 %)
        confidence: a candidate counts as within the floor if it will be certified on test
            with at least this chance
        polish: share of the budget that is kept to train the finalists longer (0: none)
        minimize: objectives: latency, size, memory, params, macs, error. Default: latency and
            size; of a search the error, and without constraints also the latency
        strategy: what proposes candidates
        stopper: what ends weak trials while they train: asha, hyperband, successive_halving,
            median; settings in brackets: asha(eta=2)
        guesses: fillings, also of some holes only, to begin with
        earlier: folders of studies of the same space to learn from
        target: what the model will run on: onnxruntime, openvino:bf16, several separated by
            commas (a hole), or auto (all that run here)
        threads: of one inference of the artifact
        batch: samples in one inference of the artifact
        budget: what the search may spend
        seed: the same seed proposes the same candidates
        workers: trials at a time [default: one per two cores]
        reuse: steps that were computed before come from the store
        force: search even if the original is no better than guessing
        device: where models are trained: cpu, or cuda
        measure_seconds: of timing a candidate, at most
    """

def search(
    task: Task | nn.Module | Callable[[], nn.Module] | str | Path | None = None,
    data: Any = None,
    recipe: Recipe | Transform | Sequence[Transform | Domain] | None = None,
    *,
    loss: str | Callable[[Any, Any], Any] | None = None,
    metric: str | Callable[[Any, Any], Any] | None = None,
    baseline: Recipe | Transform | int | None = None,
    label: str | None = None,
    output: str | int | None = None,
    classes: Sequence[str] | None = None,
    class_axis: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    verbose: bool | None = None,
    max_drop: str | float | None = None,
    min_metric: float | None = None,
    max_latency: str | float | None = None,
    max_size: str | float | None = None,
    max_memory: str | float | None = None,
    max_params: str | float | None = None,
    max_macs: str | float | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    trial_minutes: float | None = None,
    trial_memory_gb: float | None = None,
    enough: float | None = None,
    stall: int | None = None,
    least_gain: float | None = None,
    compress: bool = False,
    constraints: Sequence[Constraint] | Constraint = (),
    confidence: float = 0.5,
    polish: float = 0.3333333333333333,
    minimize: Sequence[str] | str | None = None,
    strategy: str = "adaptive",
    stopper: str | dict[str, Any] | None = None,
    proxy: str | None = None,
    supernet: str | None = None,
    guesses: Sequence[Guess] = (),
    earlier: Sequence[str | Path] = (),
    target: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    budget: Budget | float | None = None,
    seed: int = 0,
    workers: int | None = None,
    reuse: bool = True,
    force: bool = False,
    device: str = "cpu",
    measure_seconds: float = 2.0,
) -> Study:
    """Search architecture and training together: `recipe` begins with `Build(net)`, whose
    fields may be holes (default: `recipes.search(task)`, a net that suits the data). The task
    needs no model: `fw.search(data=(X, y), minutes=10)`.

    Limits that a description settles (parameters, multiply-accumulates, fields that do not fit) are
    checked before anything is built, the others (latency, size, memory) on the untrained net before
    it is trained. The baseline is the task's own model, or, if it has none, a fixed sensible net
    with the longest training of the recipe; all else is as for `optimize`.

        compress: the default recipe also prunes and quantizes
        constraints: what must hold; `optimize` without a floor lets the metric drop by 0.01
            (of errors: by 1 %)
        confidence: a candidate counts as within the floor if it will be certified on test
            with at least this chance
        polish: share of the budget that is kept to train the finalists longer (0: none)
        minimize: objectives: latency, size, memory, params, macs, error. Default: latency and
            size; of a search the error, and without constraints also the latency
        strategy: what proposes candidates
        stopper: what ends weak trials while they train: asha, hyperband, successive_halving,
            median; settings in brackets: asha(eta=2)
        proxy: naswot:0.25 trains only nets that this score puts among the best quarter of
            random ones [default share: half]
        supernet: darts, gumbel or oneshot: one net that holds all of the space is trained
            first, and its ranking is tried first
        guesses: fillings, also of some holes only, to begin with
        earlier: folders of studies of the same space to learn from
        target: what the model will run on: onnxruntime, openvino:bf16, several separated by
            commas (a hole), or auto (all that run here)
        threads: of one inference of the artifact
        batch: samples in one inference of the artifact
        budget: what the search may spend
        seed: the same seed proposes the same candidates
        workers: trials at a time [default: one per two cores]
        reuse: steps that were computed before come from the store
        force: search even if the original is no better than guessing
        device: where models are trained: cpu, or cuda
        measure_seconds: of timing a candidate, at most
    """
