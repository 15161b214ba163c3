"""A task whose loss, metric, targets and outputs do not fit is refused with what would."""

import numpy as np
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.errors import TaskError
from featherweight.study.fitting import check_fit

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(0, 1, 90).astype(np.float32)
CLASSES = np.arange(90) % 3
BITS = (RNG.random((90, 3)) < 0.5).astype(np.float32)


def task(targets, outputs, **more):
    inputs = RNG.normal(0, 1, (90, 6)).astype(np.float32)
    data = lambda: fw.split(fw.ArraySplit({"x": inputs}, targets), stratify=False)  # noqa: E731
    return fw.Task(name="fit", model=lambda: nn.Linear(6, outputs), data=data, **more)


def bce(outputs, targets):
    return nn.functional.binary_cross_entropy_with_logits(outputs, targets)


def share(outputs, targets):
    return ((outputs > 0) == (targets > 0.5)).mean(1)


@pytest.mark.parametrize(
    ("made", "fix"),
    [
        (task(FLOATS, 1), "loss='mse', metric='mse'"),
        (task(FLOATS * 0 + 1.5, 3), "loss='mse', metric='mse'"),
        (task(FLOATS, 1, loss="mse"), "loss='mse', metric='mse'"),
        (task(FLOATS, 1, loss=nn.functional.mse_loss, metric="mse"), "loss='mse', metric='mse'"),
        (task(CLASSES, 3, loss="mse"), "loss='cross_entropy', metric='accuracy'"),
        (task(CLASSES, 3, metric="mse"), "loss='cross_entropy', metric='accuracy'"),
        (task(BITS, 3), "functions of"),
        (task(CLASSES % 2, 1, loss=lambda o, t: nn.functional.cross_entropy(o, t)), "one output a class"),
        (task(CLASSES, 3, loss=lambda o, t: (o.mean(1) - t) ** 2), "return one number"),
        (task(CLASSES, 3, loss=lambda o, t: float(o.mean())), "return one number"),
    ],
)
def test_a_misfit_is_refused_with_what_fits(made, fix):
    with pytest.raises(TaskError, match="task 'fit': ") as e:
        check_fit(made)
    assert fix in e.value.fix and "targets" in e.value.got


def test_without_a_model_the_targets_are_asked():
    made = task(FLOATS, 1)
    made.model = None
    with pytest.raises(TaskError, match="class numbers"):
        check_fit(made)
    made.loss = "mse"
    check_fit(made)


@pytest.mark.parametrize(
    "made",
    [
        task(CLASSES, 3),
        task(CLASSES.astype(np.float32), 3),
        task(CLASSES > 0, 2),
        task(FLOATS, 1, loss="mse", metric="mse"),
        task(BITS, 3, loss=bce, metric=share),
        task(CLASSES, 3, loss=nn.CrossEntropyLoss(weight=torch.ones(3))),
    ],
)
def test_what_fits_is_let_through(made):
    state = torch.get_rng_state()
    check_fit(made)
    assert torch.equal(state, torch.get_rng_state())


def test_a_study_says_it_before_anything_runs(tmp_path):
    with pytest.raises(TaskError, match="class numbers"):
        fw.optimize(task(FLOATS, 1), out=tmp_path / "out", budget=fw.Budget(trials=1))
    assert not (tmp_path / "out").exists()


def misspelt(outputs, targets):
    return {"accuracy": 1.0}["acuracy"]


def transposed(outputs, targets):
    return (outputs.argmax(1)[:, None] == targets).mean(0)[:5]


@pytest.mark.parametrize(("judge", "said"), [(misspelt, "KeyError: 'acuracy'"), (transposed, r"shape (5,)")])
def test_a_metric_that_fails_is_found_before_anything_is_trained(judge, said):
    with pytest.raises(TaskError, match=f"the metric '{judge.__name__}' does not fit") as e:
        check_fit(task(CLASSES, 3, metric=judge))
    assert said in e.value.got and "one value a sample" in e.value.allowed


def test_a_metric_without_a_value_for_an_untrained_model_is_none_that_fails():
    def precision(outputs, targets):
        said = outputs[:, 0] > 1e9
        return float((said & (targets == 0)).sum()) / int(said.sum())

    def odd(outputs, targets):
        return np.full(len(targets), np.nan)

    for judge in (precision, odd):
        check_fit(task(CLASSES, 3, metric=judge))


def test_a_metric_that_needs_every_class_is_asked_about_all_of_valid():
    targets = np.zeros(2000, int)
    targets[-300:] = 1

    def auc(outputs, targets):
        if len(set(targets.tolist())) < 2:
            raise ValueError("only one class")
        return 0.5

    splits = fw.Splits(*(fw.ArraySplit({"x": np.zeros((2000, 6), np.float32)}, targets) for _ in range(3)))
    made = fw.Task(name="fit", model=lambda: nn.Linear(6, 2), data=lambda: splits, metric=auc)
    check_fit(made)
    made.metric = lambda o, t: auc(o, t * 0)
    with pytest.raises(TaskError, match="only one class|does not fit"):
        check_fit(made)


def test_a_loss_that_leaves_out_another_number_is_told_which():
    made = task(np.where(np.arange(90) % 2, -100, CLASSES), 3, loss=lambda o, t: _strict(o, t), metric=share)
    with pytest.raises(TaskError, match="the loss does not take") as e:
        check_fit(made)
    assert "leave out -100" in e.value.fix


def _strict(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, ignore_index=255)
