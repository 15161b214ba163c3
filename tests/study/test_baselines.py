"""What stops a study before its first trial: an original that is worth nothing, a floor that is
none."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.errors import FeatherweightError, InputError
from featherweight.recipe import Candidate, decode
from featherweight.records import Quality
from featherweight.space import Space
from featherweight.study.baselines import baseline_candidates, check_original
from featherweight.study.config import Settings
from featherweight.study.guessing import guess
from featherweight.study.request import configure

ROWS = 300


def score(outputs, targets):
    return (outputs.argmax(1) == targets).astype(float)


def one_by_one(outputs, targets):
    return nn.functional.binary_cross_entropy_with_logits(outputs, targets.reshape(outputs.shape).float())


def hits(outputs, targets):
    return ((outputs > 0) == (targets.reshape(outputs.shape) > 0.5)).mean(1)


def task(targets, outputs, **more):
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype("float32")
    return fw.Task(
        "guess", model=lambda: nn.Linear(6, outputs), data=lambda: fw.split(fw.ArraySplit({"x": x}, targets)), **more
    )


CLASSES = np.array([0] * 180 + [1] * 60 + [2] * 60)
LABELS = (np.arange(ROWS * 4).reshape(ROWS, 4) % 10 < [2, 2, 8, 8]).astype("float32")
NUMBERS = np.linspace(-1, 3, ROWS).astype("float32")


@pytest.mark.parametrize(
    ("made", "value", "what"),
    [
        (task(CLASSES, 3), 0.6, "commonest class"),
        (task(CLASSES, 3, metric=score), 0.6, "commonest class"),
        (task(CLASSES, 3, metric="nll"), -(0.6 * np.log(0.6) + 0.4 * np.log(0.2)), "commonest class"),
        (task(CLASSES % 2, 1, loss=one_by_one, metric=hits), 0.8, "commoner answer"),
        (task(LABELS, 4, loss=one_by_one, metric=hits), 0.8, "commoner answer"),
        (task(NUMBERS, 1, loss="mse", metric="mse"), float(NUMBERS.var()), "mean of the training targets"),
        (task(np.stack([NUMBERS, -NUMBERS], 1), 2, loss="mse", metric="mae"), 1.0, "median of the training targets"),
    ],
)
def test_the_best_answer_that_looks_at_nothing(made, value, what):
    got, said = guess(made)
    assert got == pytest.approx(value, abs=0.25 if made.loss == "mse" else 0.03) and what in said


def at_places(targets, module, inputs=None, **more):
    x = np.random.default_rng(0).normal(size=(ROWS, 3, 4)).astype("float32") if inputs is None else inputs
    return fw.Task("guess", model=module, data=lambda: fw.split(fw.ArraySplit({"x": x}, targets)), **more)


def marks(share, left_out):
    rng = np.random.default_rng(1)
    yes = (rng.random((ROWS, 4)) < share).astype("float32")
    return np.where(rng.random((ROWS, 4)) < left_out, -100, yes).astype("float32")


@pytest.mark.parametrize("loss", ["bce", "log_loss"])
@pytest.mark.parametrize("axis", [1, 0])
def test_what_does_not_count_is_no_part_of_the_commoner_answer(loss, axis):
    """Half of the places are left out: a mean with their -100 would be below 0."""
    module = (lambda: nn.Conv1d(3, 1, 1)) if axis == 1 else (lambda: nn.Sequential(nn.Conv1d(3, 1, 1), nn.Flatten(1)))
    made = at_places(marks(0.8, 0.5), module, loss=loss, metric="iou@0.5", class_axis=axis)
    y = made.splits().valid.all_targets()
    assert guess(made)[0] == pytest.approx((y == 1).sum() / (y >= 0).sum())
    never = at_places(
        np.where(np.arange(4) == 2, -100, marks(0.8, 0.5)), module, loss=loss, metric="iou@0.5", class_axis=axis
    )
    assert guess(never)[0] > 0.7


def test_the_commonest_class_at_places_of_a_softmax():
    rng = np.random.default_rng(2)
    targets = np.where(rng.random((ROWS, 4)) < 0.7, 2, rng.integers(0, 3, (ROWS, 4)))
    made = at_places(
        targets, lambda: nn.Sequential(nn.Conv1d(3, 3, 1), nn.Softmax(1)), loss="log_loss", metric="pixel_accuracy"
    )
    assert guess(made)[0] == pytest.approx((made.splits().valid.all_targets() == 2).mean())


def test_the_least_absolute_error_is_the_medians():
    targets = (np.random.default_rng(3).exponential(size=ROWS) ** 2 * 100).astype("float32")
    for loss in ("mae", "mse"):
        made = task(targets, 1, loss=loss, metric="mae")
        splits = made.splits()
        far = np.abs(splits.valid.all_targets() - np.median(splits.train.all_targets())).mean()
        assert guess(made) == (pytest.approx(far, rel=1e-5), "always the median of the training targets")


@pytest.mark.parametrize("metric", ["cer", "wer"])
@pytest.mark.parametrize("axis", [1, -1])
def test_no_label_at_all_is_the_mark_of_what_is_read_from_frames(metric, axis):
    targets = np.where(np.arange(ROWS)[:, None] % 3 > [0, 1], [1, 2], 0)
    module = (lambda: nn.Conv1d(3, 4, 1)) if axis == 1 else (lambda: nn.Linear(4, 4))
    splits = lambda: fw.split(  # noqa: E731
        fw.ArraySplit(
            {"x": np.random.default_rng(0).normal(size=(ROWS, 3, 4)).astype("float32")}, targets, classes="-a |"
        )
    )
    made = fw.Task("guess", model=module, data=splits, loss="ctc", metric=metric, class_axis=axis)
    value, what = guess(made)
    assert value == 1 and "no label at all" in what
    with pytest.raises(FeatherweightError, match="no better than guessing") as e:
        check_original(jobs(1.0, higher=False, name=metric), lambda: guess(made))
    assert "longer" in e.value.fix
    check_original(jobs(0.9, higher=False, name=metric), lambda: guess(made))


def test_the_answer_that_an_original_gives_on_the_mean():
    """Of logits without labels; not the logarithm of their mean."""
    targets = np.random.default_rng(4).normal(size=(ROWS, 3)).astype("float32") + np.array([-2, 0, 1], "float32")
    made = task(targets, 3, loss="kl", metric="agreement")
    assert guess(made)[0] == pytest.approx((made.splits().valid.all_targets().argmax(1) == 2).mean())


def test_a_metric_that_takes_no_such_answer_sets_no_mark():
    def strict(outputs, targets):
        if len(np.unique(outputs)) < 10:
            raise ValueError("all the same")
        return score(outputs, targets)

    assert guess(task(CLASSES, 3, metric=strict)) is None
    assert guess(task(NUMBERS, 3, loss=lambda z, y: (z.mean(1) - y).square().mean())) is None


def jobs(value, limits=(), higher=True, force=False, trials=0, name="hits", recipe=None, task=None, ci95=None):
    config = SimpleNamespace(
        constraints=limits,
        force=force,
        baseline=None,
        recipe=fw.Recipe(recipe or fw.Quantize()).to_json(),
        task=task,
    )
    entry = SimpleNamespace(metric=Quality(name, value, ci95, 60, higher))
    return SimpleNamespace(
        config=config, log=SimpleNamespace(state=SimpleNamespace(trials=[0] * trials, baseline=entry))
    )


def test_an_original_no_better_than_guessing_ends_the_study_before_the_search():
    refused = pytest.raises(FeatherweightError, match=r"no better than guessing[\s\S]*0.6[\s\S]*--force")
    for value, higher in ((0.6, True), (0.5, True), (0.6, False), (0.7, False)):
        with refused:
            check_original(jobs(value, higher=higher), lambda: (0.6, "always the commonest class"))
        check_original(jobs(value, higher=higher, force=True), lambda: (0.6, ""))
        check_original(jobs(value, higher=higher, trials=1), lambda: (0.6, ""))  # somebody insisted before
        check_original(jobs(value, higher=higher), lambda: None)
        check_original(jobs(value, higher=higher, recipe=fw.Train()), lambda: (0.6, ""))
    check_original(jobs(0.61), lambda: (0.6, ""))
    check_original(jobs(0.59, higher=False), lambda: (0.6, ""))


def test_better_by_less_than_chance_is_no_better():
    guessed = lambda: (0.3071, "always the commonest class")  # noqa: E731
    with pytest.raises(FeatherweightError, match=r"no better than guessing[\s\S]*chance moves it by 0.05"):
        check_original(jobs(0.3073, ci95=(0.2073, 0.4073)), guessed)
    with pytest.raises(FeatherweightError, match="no better than guessing"):
        check_original(jobs(0.3069, higher=False, ci95=(0.2, 0.4)), guessed)
    check_original(jobs(0.3073, ci95=(0.3072, 0.3074)), guessed)
    check_original(jobs(0.42, ci95=(0.32, 0.52)), guessed)


def test_a_kind_is_trained_longer_by_its_option():
    kind = {"kind": "tabular", "options": {"data": "t.csv", "epochs": 3}}
    for task, says in ((kind, "--task-option epochs=N"), ("task.py", "Task\\(baseline="), (None, "Task\\(baseline=")):
        with pytest.raises(FeatherweightError, match=says):
            check_original(jobs(0.5, task=task), lambda: (0.6, "always the commonest class"))


def test_a_floor_that_makes_no_sense_for_the_originals_value_is_refused():
    for limit, value, higher, fix in (
        (fw.max_drop(5), 0.9, True, "5pt"),
        (fw.max_drop("1pt"), 90.0, True, "the metric's own unit"),
        (fw.max_drop("1%"), 0.3, False, "the metric's own unit"),
    ):
        with pytest.raises(InputError, match=f"makes no sense for hits[\\s\\S]*{fix}"):
            check_original(jobs(value, [limit], higher), lambda: None)
    check_original(jobs(90.0, [fw.max_drop(5)]), lambda: None)
    check_original(jobs(0.9, [fw.max_drop("5%")]), lambda: None)
    check_original(jobs(0.3, [fw.max_drop(5)], higher=False), lambda: None)


@pytest.mark.parametrize(
    ("metric", "limit", "says"),
    [
        ("acuracy", fw.max_drop(0.01), "no such metric[\\s\\S]*accuracy\\?"),
        ("f1_makro", fw.max_drop(0.01), "f1_macro\\?"),
        ("accuracy", fw.max_drop(5), "makes no sense for accuracy[\\s\\S]*between 0 and 1[\\s\\S]*5pt"),
        ("macro_f1", fw.min_metric(80), "min_metric=0.8"),
    ],
)
def test_metrics_and_floors_that_do_not_go_together_are_refused_before_anything_runs(metric, limit, says):
    with pytest.raises(InputError, match=says):
        configure(task(CLASSES, 3, metric=metric), Settings(budget=fw.Budget(trials=1), constraints=(limit,)))


def test_a_study_of_a_useless_original(tmp_path, one_baseline):
    """Its labels have nothing to do with its inputs, and it always says class 1."""

    def net():
        made = nn.Linear(6, 3)
        torch.nn.init.zeros_(made.weight)
        made.bias.data = torch.tensor([0.0, 1.0, 0.0])
        return made

    made = task(CLASSES, 3)
    made.model, made.recipe = net, fw.Recipe(fw.Quantize(scheme=fw.Choice("int8-static", "int8-dynamic")))
    settings = {
        "out": tmp_path,
        "budget": fw.Budget(trials=1),
        "measure_seconds": 0.1,
        "constraints": [fw.max_drop(0.99)],
    }
    for _ in range(2):  # the same call again is no way around
        with pytest.raises(FeatherweightError, match="no better than guessing"):
            fw.optimize(made, **settings)
    assert len(fw.optimize(made, force=True, **settings).state.trials) == 1
    assert len(fw.optimize(made, **settings).state.trials) == 1  # it went on


def test_dynamic_int8_is_a_baseline_where_it_may_be_chosen():
    def labels(recipe):
        made = configure(task(CLASSES, 3), Settings(budget=fw.Budget(trials=1), recipe=recipe))
        return [
            label for label, _, _ in baseline_candidates(made, Space(Candidate(recipe, decode(made.target.choice))))
        ]

    assert "plain dynamic int8" in labels(fw.Recipe(fw.Quantize(scheme=fw.Choice("int8-dynamic", "int8-static"))))
    assert "plain dynamic int8" not in labels(fw.Recipe(fw.Quantize(scheme=fw.Choice("weight-only", "int8-static"))))


@pytest.mark.usefixtures("one_baseline")
def test_a_drop_of_an_error_in_percent_is_a_share_of_the_originals(tmp_path):
    from torch import nn

    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    y = 100 + 10 * x[:, 0]
    study = fw.optimize(
        nn.Linear(4, 1),
        (x, y),
        fw.Quantize(),
        metric="mae",
        baseline=1,
        trials=1,
        out=tmp_path,
        force=True,
        verbose=False,
    )
    own = study.state.baseline.metric.value
    (limit,) = study.front_json()["constraints"]
    assert own > 50 and limit["bound"] == pytest.approx(own / 100) and not limit["relative"]
    assert study.state.begun.constraints[0].relative
    again = fw.Study.open(tmp_path)
    assert again.front_json()["constraints"] == [limit]
