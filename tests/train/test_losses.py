"""Every distillation loss against its formula written out, its limits and its invariances."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from featherweight.errors import InputError
from featherweight.train import losses
from featherweight.train.losses import soft_loss


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def huber(a, b):
    d = abs(a - b)
    return 0.5 * d * d if d <= 1 else d - 0.5


def test_the_soft_loss_is_the_published_formula():
    s, t, T = normal(6, 5), normal(6, 5, seed=1), 3.0
    p, q = F.softmax(t / T, -1), F.softmax(s / T, -1)
    torch.testing.assert_close(soft_loss(s, t, "softmax", T), T * T * (p * (p / q).log()).sum(1).mean())
    torch.testing.assert_close(soft_loss(s, t, "mse", T), ((s - t) ** 2).mean())
    assert float(soft_loss(t, t, "softmax", T)) == pytest.approx(0, abs=1e-12)


def test_the_kl_gradient_tends_to_the_mse_gradient_for_large_temperatures():
    """Hinton et al. 2015, eq. 4: with zero-mean logits, T^2 KL has gradient
    (s - t) / C as T grows."""
    s, t = normal(4, 5), normal(4, 5, seed=1)
    s, t = (s - s.mean(1, keepdim=True)).requires_grad_(), t - t.mean(1, keepdim=True)
    (g,) = torch.autograd.grad(soft_loss(s, t, "softmax", 1e4), s)
    torch.testing.assert_close(g * 4, (s - t).detach() / 5, rtol=1e-3, atol=1e-5)


def test_an_ensemble_is_the_mean_of_softened_probabilities_or_of_logits():
    teachers, T = [normal(6, 5, seed=i) for i in range(3)], 2.5
    z = losses.ensemble_logits(teachers, "softmax", T)
    torch.testing.assert_close(F.softmax(z / T, -1), torch.stack([F.softmax(t / T, -1) for t in teachers]).mean(0))
    torch.testing.assert_close(losses.ensemble_logits(teachers, "mse", T), sum(teachers) / 3)


def test_labels_by_themselves_are_bernoulli_distributions():
    """Two logits (z, 0) of classes are one logit z of a label; sums of logs by hand."""
    s, t, T = normal(5, 3), normal(5, 3, seed=1), 2.5
    p, q = torch.sigmoid(t / T), torch.sigmoid(s / T)
    by_hand = T * T * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(soft_loss(s, t, "bernoulli", T), by_hand)
    pairs = [torch.stack([v.reshape(-1), torch.zeros(15, dtype=v.dtype)], 1) for v in (s, t)]
    torch.testing.assert_close(soft_loss(s, t, "bernoulli", T), soft_loss(*pairs, "softmax", T))
    far = torch.tensor([[200.0, -200.0]])
    assert torch.isfinite(soft_loss(-far, far, "bernoulli", 1.0))
    z = losses.ensemble_logits([s, t], "bernoulli", T)
    torch.testing.assert_close(torch.sigmoid(z / T), (p + q) / 2)


@pytest.mark.parametrize("form", ["softmax", "bernoulli", "mse"])
def test_two_equal_teachers_are_one(form):
    s, t = normal(6, 5), normal(6, 5, seed=1)
    both = losses.ensemble_logits([t, t], form, 3.0)
    torch.testing.assert_close(soft_loss(s, both, form, 3.0), soft_loss(s, t, form, 3.0))
    assert losses.ensemble_logits([t], form, 3.0) is t


def test_teachers_of_different_shapes_are_no_ensemble():
    with pytest.raises(InputError, match="one shape"):
        losses.ensemble_logits([normal(2, 3), normal(2, 4)], "softmax", 1.0)
    with pytest.raises(InputError, match="one shape"):
        losses.ensemble_logits([], "softmax", 1.0)


def test_the_hint_loss_is_half_the_squared_distance_an_element():
    s, t = normal(3, 4, 2, 2), normal(3, 4, 2, 2, seed=1)
    assert float(losses.hint_loss(s, t)) == pytest.approx(0.5 * float(((t - s) ** 2).sum()) / s.numel())
    assert float(losses.hint_loss(t, t)) == 0


def test_attention_transfer_is_the_published_formula():
    s, t = normal(3, 4, 2, 5), normal(3, 7, 2, 5, seed=1)
    total = 0.0
    for a, b in zip(s, t, strict=True):
        qs, qt = (a**2).sum(0).flatten(), (b**2).sum(0).flatten()
        total += 0.5 * float((qs / (qs**2).sum().sqrt() - qt / (qt**2).sum().sqrt()).square().sum().sqrt())
    assert float(losses.attention_loss(s, t)) == pytest.approx(total / 3)


def test_attention_maps_know_neither_the_order_nor_the_scale_of_channels():
    f = normal(3, 6, 4, 4)
    torch.testing.assert_close(losses.attention_map(f[:, torch.tensor([3, 1, 0, 5, 4, 2])]), losses.attention_map(f))
    torch.testing.assert_close(losses.attention_map(-5 * f), losses.attention_map(f))
    assert float(losses.attention_loss(f, 2 * f)) == pytest.approx(0, abs=1e-12)
    dead = torch.zeros(2, 3, 2, 2, requires_grad=True)
    losses.attention_loss(dead, normal(2, 3, 2, 2).float()).backward()
    assert torch.isfinite(dead.grad).all()


def test_self_relations_are_the_published_formula_for_different_widths():
    s, t = normal(2, 5, 32), normal(2, 5, 64, seed=1)
    heads = losses.relation_heads(32, 64)
    assert heads == 2
    total = 0.0
    for b, a, row in itertools.product(range(2), range(heads), range(5)):
        rows = []
        for x in (s, t):
            d = x.shape[-1] // heads
            part = x[b, :, a * d : (a + 1) * d]
            rows.append(F.softmax(part[row] @ part.T / math.sqrt(d), -1))
        total += float((rows[1] * (rows[1] / rows[0]).log()).sum())
    assert float(losses.self_relation_loss(s, t)) == pytest.approx(total / (2 * heads * 5))
    assert float(losses.self_relation_loss(t, t)) == pytest.approx(0, abs=1e-12)


def test_padding_has_no_part_in_self_relations():
    s, t, mask = normal(2, 5, 32), normal(2, 5, 32, seed=1), torch.tensor([[1, 1, 1, 0, 0]] * 2)
    expected = losses.self_relation_loss(s[:, :3], t[:, :3])
    torch.testing.assert_close(losses.self_relation_loss(s, t, mask), expected)
    s[:, 3:] = 1e3
    torch.testing.assert_close(losses.self_relation_loss(s, t, mask), expected)


@pytest.mark.parametrize(
    ("widths", "heads"), [((768, 768), 48), ((1024, 384), 16), ((16, 16), 1), ((7, 5), 1), ((768, 384), 24)]
)  # 1024 and 384 have 128 in common: at most 384 / 16 = 24 heads, of which 16 divides both
def test_relation_heads_divide_both_widths(widths, heads):
    assert losses.relation_heads(*widths) == heads


def test_distances_are_the_published_formula():
    s, t = normal(5, 3), 4 * normal(5, 6, seed=1)
    pairs = list(itertools.combinations(range(5), 2))

    def psi(x):
        d = [float((x[i] - x[j]).norm()) for i, j in pairs]
        return [v / (sum(d) / len(d)) for v in d]

    assert float(losses.distance_loss(s, t)) == pytest.approx(
        sum(huber(a, b) for a, b in zip(psi(s), psi(t), strict=True)) / len(pairs)
    )


def test_angles_are_the_published_formula():
    s, t = normal(5, 3), normal(5, 6, seed=1)

    def cos(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        return float(a @ b / (a.norm() * b.norm()))

    triples = list(itertools.permutations(range(5), 3))
    expected = sum(huber(cos(s, *u), cos(t, *u)) for u in triples) / len(triples)
    assert float(losses.angle_loss(s, t)) == pytest.approx(expected)
    torch.testing.assert_close(losses.relational_loss(s, t), losses.distance_loss(s, t) + 2 * losses.angle_loss(s, t))


def test_relations_know_neither_scale_nor_shift_nor_rotation():
    x, y = normal(6, 4), normal(6, 5, seed=1)
    turn, _ = torch.linalg.qr(normal(4, 4, seed=2))
    torch.testing.assert_close(losses.relational_loss(3 * x @ turn + 7, y), losses.relational_loss(x, y))
    assert float(losses.relational_loss(x, 0.1 * x)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2])
def test_relations_of_too_few_samples_are_zero(n):
    s = normal(n, 4).requires_grad_()
    loss = losses.relational_loss(s, normal(n, 4, seed=1))
    loss.backward()
    assert loss.item() == pytest.approx(0) and torch.isfinite(s.grad).all()


def test_equal_samples_give_finite_gradients():
    s = torch.ones(4, 3, requires_grad=True)
    losses.relational_loss(s, normal(4, 3).float()).backward()
    assert torch.isfinite(s.grad).all() and s.grad.abs().max() < 1e3


@pytest.mark.parametrize(
    "loss", [losses.hint_loss, losses.attention_loss, losses.self_relation_loss, losses.relational_loss]
)
def test_gradients_are_those_of_finite_differences(loss):
    shape = (4, 3, 2, 2) if loss is not losses.self_relation_loss else (2, 3, 16)
    t = normal(*shape, seed=1)
    assert torch.autograd.gradcheck(lambda s: loss(s, t), (normal(*shape).requires_grad_(),))


def test_one_number_at_each_place_has_no_softmax():
    with pytest.raises(InputError, match="distributions over classes"):
        soft_loss(torch.zeros(2, 3), torch.ones(2, 3), "softmax", 2.0, 0)
    assert float(soft_loss(torch.zeros(2, 3), torch.zeros(2, 3), "bernoulli", 2.0, 0)) == 0
