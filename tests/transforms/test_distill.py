"""Distill in its forms, and DistillBlocks."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError, TaskError
from featherweight.models.package import Package
from featherweight.models.surgery import edit
from featherweight.recipe import Recipe
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.train.loop import predict
from featherweight.train.losses import self_relation_loss
from featherweight.transforms.distill import Distill
from featherweight.transforms.distill.hints import Hints, Weights, pooled, projection
from featherweight.transforms.distill_blocks import DistillBlocks, Span, spans
from featherweight.transforms.train import Train
from tests import toy

SHORT = {"epochs": 6, "lr": 3e-3, "batch_size": 16}


class Encoder(nn.Module):
    """Blocks of width 32 over 8 tokens; `inner` is the width of their feed-forward layers."""

    def __init__(self, width=32, inner=32, layers=3):
        super().__init__()
        self.inp = nn.Linear(8, width)
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(width, 2, inner, dropout=0.0, batch_first=True) for _ in range(layers)]
        )
        self.out = nn.Linear(width, 4)

    def forward(self, image):
        h = self.inp(image[:, 0])
        for b in self.blocks:
            h = b(h)
        return self.out(h.mean(1))


@pytest.fixture(scope="module")
def trained():
    t = toy.task()
    return t, Train(**{**SHORT, "epochs": 5}).apply(Package(t.build()), toy.context(t))


def small(t):
    """What pruning leaves: the task's layers under the same paths, half as wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Package(toy.residual(8).eval())


def agreement(one, other, split):
    return float((predict(one.module, split).argmax(1) == predict(other.module, split).argmax(1)).mean())


def same(one, other):
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


@pytest.mark.parametrize("form", ["kl", "mse"])
def test_a_student_learns_the_teacher_without_labels(trained, form):
    t, teacher = trained
    outputs = predict(teacher.module, t.splits().train)
    done = Distill(alpha=1.0, form=form, **SHORT).apply(small(t), toy.context(t, teacher=outputs))
    assert agreement(done, teacher, t.splits().valid) > 0.9


@pytest.mark.parametrize("term", ["features", "attention", "relations"])
def test_every_term_that_looks_inside_is_lowered_and_the_teacher_untouched(trained, term):
    t, teacher = trained
    before = copy.deepcopy(teacher.module)
    student, context = small(t), toy.context(t, model=teacher)
    step = Distill(alpha=1.0, **{**SHORT, "epochs": 8}, **{term: 1.0})
    done = step.apply(student, context)

    def value(package):
        x = torch.from_numpy(t.splits().valid.batch(np.arange(16))[0]["image"])
        hints = Hints(
            package,
            teacher,
            Weights(0.0, float(term == "attention"), float(term == "relations")),
            (),
            [x],
            torch.Generator(),
        )
        with torch.no_grad(), hints.tap_student() as s, hints.tap_teacher() as tt:
            return hints.loss(s, tt, package.module(x), teacher.module(x)).item()

    if term != "features":  # whose projections are thrown away
        assert value(done) < value(student)
    assert agreement(done, teacher, t.splits().valid) > 0.8
    assert same(teacher.module, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for p in (done, teacher) for m in p.module.modules())
    assert done.notes[-1]["layers"] == ([] if term == "relations" else [["3", "3"], ["4", "4"], ["5", "5"]])
    assert done.module.state_dict().keys() == student.module.state_dict().keys()


def test_features_alone_bring_the_student_to_the_teacher(trained):
    """With alpha = 0 and labels that say nothing, what is learned comes from the hints."""
    t, teacher = trained
    student = Package(copy.deepcopy(teacher.module))
    rng = torch.Generator().manual_seed(0)
    for m in (student.module[4], student.module[5]):
        for p in m.parameters():
            nn.init.normal_(p, 0, 0.1, generator=rng)
    t2 = toy.task(loss=lambda out, y: out.sum() * 0)
    assert agreement(student, teacher, t.splits().valid) < 0.9
    done = Distill(alpha=0.0, features=10.0, **{**SHORT, "epochs": 12}).apply(student, toy.context(t2, model=teacher))
    assert agreement(done, teacher, t.splits().valid) > 0.9


def hints_of(student, teacher, x, layers=(), features=0.0, attention=0.0, relations=0.0, mask=None):
    generator = torch.Generator().manual_seed(0)
    return Hints(
        Package(student), Package(teacher), Weights(features, attention, relations), layers, [x], generator, mask
    )


@pytest.mark.parametrize("term", ["features", "attention", "relations"])
@pytest.mark.parametrize("make", [toy.residual, Encoder])
def test_a_student_equal_to_its_teacher_has_no_loss(make, term):
    net, x = make().eval(), torch.randn(6, 1, 8, 8)
    twin = copy.deepcopy(net)
    hints = hints_of(net, twin, x, **{term: 1.0})
    assert len(hints.projections) == 0
    with hints.tap_student() as s, hints.tap_teacher() as t:
        loss = hints.loss(s, t, net(x), twin(x))
    assert loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("term", ["features", "attention", "relations"])
@pytest.mark.parametrize("make", [lambda w: toy.residual(w // 4), lambda w: Encoder(w)])
def test_the_gradient_reaches_the_student_and_the_projections_only(make, term):
    torch.manual_seed(0)
    net, other, x = make(32), make(64).eval(), torch.randn(6, 1, 8, 8)
    hints = hints_of(net, other, x, **{term: 1.0})
    assert len(hints.projections) == (3 if term == "features" else 0)
    with hints.tap_student() as s, hints.tap_teacher() as t:
        hints.loss(s, t, net(x), other(x)).backward()
    assert all(p.grad is None for p in other.parameters())
    assert sum(float(p.grad.abs().sum()) for p in net.parameters() if p.grad is not None) > 0
    assert all(p.grad is not None for p in hints.projections.parameters())


def test_self_attention_relations_are_those_of_the_last_matched_block():
    torch.manual_seed(0)
    net, other, x = Encoder(32).eval(), Encoder(64, layers=6).eval(), torch.randn(3, 1, 8, 8)
    hints = Hints(Package(net, {"a": {}}), Package(other), Weights(0.0, 1.0, 0.0), (), [x], torch.Generator())
    assert hints.pairs[-1] == ("blocks.2", "blocks.5")
    with torch.no_grad(), hints.tap_student() as s, hints.tap_teacher() as t:
        loss = hints.loss(s, t, net(x), other(x))
        total = 0.0
        for part in range(3):
            sides = []
            for m in (net, other):
                h = m.inp(x[:, 0])
                for b in list(m.blocks)[:-1]:
                    h = b(h)
                a = m.blocks[-1].self_attn
                sides.append(nn.functional.linear(h, a.in_proj_weight.chunk(3)[part], a.in_proj_bias.chunk(3)[part]))
            total += self_relation_loss(*sides).item()
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_a_model_without_maps_or_attention_has_no_attention_term():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(InputError, match="feature maps of convolutions, or self-attention"):
        hints_of(net, copy.deepcopy(net), torch.randn(2, 1, 8, 8), attention=1.0)


def test_named_layers_are_the_ones_that_are_read():
    net, x = toy.residual(), torch.randn(2, 1, 8, 8)
    assert hints_of(net, toy.residual(8), x, ("3.conv1", "5"), features=1.0).pairs == [
        ("3.conv1", "3.conv1"),
        ("5", "5"),
    ]
    with pytest.raises(InputError, match="no such layers"):
        hints_of(net, toy.residual(8), x, ("nothing",), features=1.0)


def test_pooling_goes_to_the_smaller_side_and_projection_is_a_linear_map_of_channels():
    s, t = torch.randn(2, 3, 4, 8), torch.randn(2, 5, 8, 4)
    a, b = pooled(s, t)
    assert a.shape == (2, 3, 4, 4) and b.shape == (2, 5, 4, 4)
    torch.testing.assert_close(a, s.reshape(2, 3, 4, 4, 2).mean(-1))
    assert pooled(s, s)[0] is s and pooled(torch.randn(2, 3, 4), torch.randn(2, 3, 2))[0].shape == (2, 3, 2)
    r = projection(3, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(r(s), nn.functional.conv2d(s, r.weight[:, :, None, None], r.bias))
    assert r(s[:, :, 0, 0]).shape == (2, 5)


def test_two_equal_teachers_teach_what_one_teaches(trained):
    t, teacher = trained
    outputs = predict(teacher.module, t.splits().train)
    context = toy.context(t, teacher=outputs, model=teacher)
    # Adam would blow rounding up where gradients vanish
    sgd = {"epochs": 1, "batch_size": 16, "optimizer": "sgd", "lr": 1e-2}
    one = Distill(**sgd).apply(Package(t.build()), context)
    two = Distill(**sgd, teacher=(None, Recipe(Train()))).apply(Package(t.build()), context)
    for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    Distill(epochs=1, batch_size=16, teacher=(None, "self"), features=1.0).apply(Package(t.build()), context)


def test_self_distillation_keeps_the_model_that_came_in(trained):
    t, teacher = trained
    before = copy.deepcopy(teacher.module)
    # no other teacher is asked
    done = Distill(alpha=1.0, epochs=1, batch_size=16, teacher="self").apply(teacher, toy.context(t))
    assert same(teacher.module, before) and agreement(done, teacher, t.splits().valid) > 0.9
    with pytest.raises(InputError, match="no teacher"):
        Distill(teacher="other")
    with pytest.raises(InputError, match="no teacher"):
        Distill(teacher=())


def test_teachers_survive_json():
    recipe = Recipe(Distill(teacher=(None, "self", Recipe(Train(epochs=2))), layers=("3",)))
    assert Recipe.from_json(recipe.to_json()) == recipe


def targets_of(task, make):
    """The task with the targets that `make` makes of its classes."""

    made = toy.images(160)
    return replace(task, data=lambda: split(ArraySplit(made.inputs, make(made.targets))))


def one_hot(y):
    return np.eye(4, dtype="float32")[y]


def one_by_one(out, y):
    return nn.functional.binary_cross_entropy_with_logits(out, y.reshape(out.shape).float())


@pytest.mark.parametrize(
    ("outputs", "make", "loss", "form"),
    [
        (4, one_hot, one_by_one, "bernoulli"),
        (1, lambda y: y % 2, one_by_one, "bernoulli"),
        (1, lambda y: y.astype("float32"), "mse", "mse"),
        (3, lambda y: np.stack([y, y**2, -y], 1).astype("float32"), "mse", "mse"),
        (4, lambda y: y, lambda out, y: nn.functional.cross_entropy(out, y, label_smoothing=0.1), "softmax"),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"form": "mse"}, {"relations": 1.0}, {"teacher": (None, "self")}], ids=str)
def test_the_distance_fits_what_the_outputs_stand_for(outputs, make, loss, form, settings):
    net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, outputs))  # noqa: E731
    t = targets_of(toy.task(net, loss=loss, metric="mae"), make)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        teacher = Package(net().eval())
    context = toy.context(t, teacher=predict(teacher.module, t.splits().train))
    context = replace(context, teacher=lambda recipe: teacher)
    done = Distill(alpha=1.0, **{**SHORT, **settings}).apply(Package(t.build()), context)
    note = done.notes[-1]
    assert note["form"] == settings.get("form", form) and note["because"]
    if "teacher" in settings:
        return
    train = t.splits().train
    wanted, before, after = (predict(m, train) for m in (teacher.module, t.build(), done.module))
    if form == "softmax":  # which knows differences only
        wanted, before, after = (v - v.mean(1, keepdims=True) for v in (wanted, before, after))
    assert np.abs(after - wanted).mean() < 0.7 * np.abs(before - wanted).mean()


def test_the_softmax_form_needs_classes():
    t = toy.task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), loss="mse", metric="mae")
    context = toy.context(t, teacher=np.zeros((len(t.splits().train), 1), dtype="float32"))
    with pytest.raises(InputError, match="form='kl'"):
        Distill(epochs=1, form="softmax").apply(Package(t.build()), context)
    with pytest.raises(InputError, match="made for classes"):
        Distill(alpha=1.0, data="synthetic").apply(Package(t.build()), context)


def test_data_free_distillation_reaches_the_teacher(trained):
    t, teacher = trained
    step = Distill(alpha=1.0, data="synthetic", synthetic=96, synthesis_steps=60, **{**SHORT, "epochs": 16})
    student = small(t)
    done = step.apply(student, toy.context(t, model=teacher))
    assert agreement(student, teacher, t.splits().valid) < 0.6 < 0.75 < agreement(done, teacher, t.splits().valid)


def test_synthetic_inputs_need_batch_norm_and_floats(trained):
    t, _ = trained
    plain = toy.task(toy.plain)
    step = Distill(alpha=1.0, data="synthetic", synthetic=8, epochs=1)
    with pytest.raises(InputError, match="no batch-norm statistics"):
        step.apply(Package(plain.build()), toy.context(plain, model=Package(plain.build())))
    with pytest.raises(InputError, match="cannot be synthesised") as e:
        tokens = SimpleNamespace(
            train=SimpleNamespace(batch=lambda i: ({"ids": np.zeros((1, 8), dtype="int64")}, None))
        )
        step._synthetic(Package(t.build()), SimpleNamespace(splits=tokens), "softmax")
    assert "int64[8]" in str(e.value)


FOREIGN = """
import numpy as np
from featherweight import ArraySplit, Task, split
from torch import nn

def data():
    rng = np.random.default_rng(1)
    blobs = np.kron(rng.normal(0.25, 0.5, (240, 1, 2, 2)), np.ones((4, 4))) + rng.normal(0, 0.5, (240, 1, 8, 8))
    return split(ArraySplit({{"{name}": blobs.astype("{dtype}")}}, np.arange(240) % 2))

task = Task(name="other", model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), data=data)
"""


def test_another_tasks_inputs_are_used_without_their_labels(trained, tmp_path):
    t, teacher = trained
    file = tmp_path / "other.py"
    file.write_text(FOREIGN.format(name="image", dtype="float32"))
    step = Distill(alpha=1.0, data=f"{file}:task", **{**SHORT, "epochs": 10})
    done = step.apply(small(t), toy.context(t, model=teacher))
    assert agreement(done, teacher, t.splits().valid) > 0.7
    first = step.depends
    assert len(first) == 64 and Distill().depends == ""
    file.write_text(
        FOREIGN.format(name="image", dtype="float32").replace("default_rng(1)", "default_rng(2)  # other data")
    )
    assert step.depends != first


@pytest.mark.parametrize(("name", "dtype"), [("picture", "float32"), ("image", "float64")])
def test_inputs_of_another_kind_are_refused(trained, tmp_path, name, dtype):
    t, teacher = trained
    file = tmp_path / "other.py"
    file.write_text(FOREIGN.format(name=name, dtype=dtype))
    with pytest.raises(InputError, match="are not those of this task"):
        Distill(alpha=1.0, data=f"{file}:task").apply(small(t), toy.context(t, model=teacher))


def test_inputs_without_labels_need_alpha_one():
    with pytest.raises(InputError, match="alpha=1.0"):
        Distill(data="synthetic")
    with pytest.raises(TaskError, match="no Python file"):
        _ = Distill(data="nonsense", alpha=1.0).depends


def narrow(seed=0):
    torch.manual_seed(seed)
    return Encoder(32, inner=16).eval()


def test_blocks_learn_their_teachers_blocks():
    """Inner width halved, random weights: block by block it comes to give the teacher's outputs."""
    t = toy.task(Encoder)
    teacher = Train(**{**SHORT, "epochs": 8}).apply(Package(t.build()), toy.context(t))
    student = narrow()
    for name in ("inp", "out"):
        getattr(student, name).load_state_dict(getattr(teacher.module, name).state_dict())
    package = Package(student)
    before = copy.deepcopy(student)
    done = DistillBlocks(**{**SHORT, "epochs": 15}).apply(package, toy.context(t, model=teacher))
    note = done.notes[-1]
    assert (
        list(note["losses"]) == ["blocks.0", "blocks.1", "blocks.2"] and note["skipped"] == [] and same(student, before)
    )
    x = torch.from_numpy(t.splits().valid.batch(np.arange(16))[0]["image"])
    with torch.no_grad():
        h = teacher.module.inp(x[:, 0])
        for i in range(3):
            y = teacher.module.blocks[i](h)
            assert nn.functional.mse_loss(done.module.blocks[i](h), y) < 0.3 * nn.functional.mse_loss(
                student.blocks[i](h), y
            )
            h = y
    assert all(torch.equal(a, b) for a, b in zip(done.module.out.parameters(), before.out.parameters(), strict=True))
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in (*done.module.modules(), *teacher.module.modules())
    )


def test_a_kept_block_stands_for_those_dropped_behind_it():
    student, change = Encoder(layers=5), {"edit": "keep_blocks", "path": "blocks", "index": [1, 2, 4]}
    edit(student, change)
    found = spans(Package(student).restructured(change), Package(Encoder(layers=5)))
    assert found == [
        Span("blocks.0", "blocks.0", "blocks.1"),
        Span("blocks.1", "blocks.2", "blocks.3"),
        Span("blocks.2", "blocks.4", "blocks.4"),
    ]
    shallower = spans(Package(Encoder(layers=2), {"other": {}}), Package(Encoder(layers=5)))
    assert shallower == [Span("blocks.0", "blocks.0", "blocks.1"), Span("blocks.1", "blocks.2", "blocks.4")]


def test_blocks_of_other_shapes_are_skipped_or_refused():
    t = toy.task()
    teacher = Package(t.build())
    student = t.build()
    student[5] = toy.Block(16, 24, 2)
    student[8] = nn.Linear(24, 4)
    done = DistillBlocks(epochs=1, batch_size=16).apply(Package(student.eval()), toy.context(t, model=teacher))
    assert done.notes[-1]["skipped"] == ["5"] and list(done.notes[-1]["losses"]) == ["3", "4"]
    with pytest.raises(InputError, match="no block with equal shapes"):
        DistillBlocks(epochs=1).apply(Package(toy.residual(8).eval()), toy.context(t, model=teacher))
    with pytest.raises(InputError, match="no teacher for blocks"):
        DistillBlocks(teacher="self")


def test_zeros_stay_zero_in_blocks_and_under_hints(trained):
    t, teacher = trained
    net = copy.deepcopy(teacher.module)
    name = "3.conv1.weight"
    with torch.no_grad():
        net.get_parameter(name).mul_(torch.rand_like(net.get_parameter(name)) > 0.5)
    zero = net.get_parameter(name) == 0
    package = Package(net, sparse=(name,))
    for step in (DistillBlocks(epochs=1, batch_size=16), Distill(epochs=1, batch_size=16, features=1.0)):
        done = step.apply(package, toy.context(t, model=teacher)).module.get_parameter(name)
        assert (done[zero] == 0).all() and not torch.equal(done, net.get_parameter(name))


def test_the_attention_mask_among_the_inputs_hides_padding():
    class Masked(Encoder):
        def forward(self, image, attention_mask):
            return super().forward(image)

    net, other = Masked().eval(), Masked().eval()
    x, mask = torch.randn(3, 1, 8, 8), torch.tensor([[1] * 5 + [0] * 3] * 3)
    values = []
    for where in (None, 1):
        hints = Hints(Package(net), Package(other), Weights(0.0, 1.0, 0.0), (), [x, mask], torch.Generator(), where)
        with torch.no_grad(), hints.tap_student() as s, hints.tap_teacher() as t:
            values.append(hints.loss(s, t, net(x, mask), other(x, mask)).item())
            cut = hints._self_attention(s, t).item()
    assert values[0] != values[1] == cut
