"""Every criterion keeps the contract, and is its paper's formula written out by hand."""

import math

import pytest
import torch
from torch import nn

from featherweight import registry
from featherweight.errors import InputError
from featherweight.models.criteria.base import Criterion, Seen
from featherweight.testing import check_criterion

KINDS = registry.names("models.criteria")
GROUPS = 2


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def score(kind, seed=0, **seen):
    return registry.find("models.criteria", kind)().score(Seen(**seen), rng(seed))


def everything(shape=(6, 3, 2, 2), groups=GROUPS):
    n = math.prod(shape[1:])
    x = normal(groups, 40, n, seed=2)
    return {
        "weight": normal(*shape),
        "norm": normal(shape[0], seed=1).abs(),
        "gradient": normal(4, *shape, seed=3),
        "input_norm": x.norm(dim=1),
        "hessian": x.transpose(1, 2) @ x / 40,
        "outputs": normal(30, shape[0], seed=4).relu(),
    }


def test_all_of_them_are_found():
    assert set(KINDS) >= {"magnitude", "l1", "bn_scale", "taylor", "wanda", "obs", "lamp", "fpgm", "entropy", "random"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_criterion_passes_the_suite(kind):
    assert issubclass(registry.find("models.criteria", kind), Criterion)
    check_criterion(registry.find("models.criteria", kind)())


class Broken(Criterion):
    """how: what it does wrong."""

    def __init__(self, how):
        self.how = how
        self.needs = {"nothing observes": {"smell"}, "which it says that it needs": {"norm"}}.get(how, set())

    def score(self, seen, rng):
        w = seen.weight.float().abs()
        if self.how == "it changes what it was given":
            seen.weight.zero_()
        if self.how == "another score for the same generator":
            return w * torch.rand(())
        wrong = {
            "negative": w - 5,
            "not finite": w / 0,
            "per_weight=True": w.flatten(1).sum(1),
            "not float32": w.double(),
        }
        return wrong.get(self.how, w)


HOWS = [
    "nothing observes",
    "which it says that it needs",
    "it changes what it was given",
    "another score for the same generator",
]


@pytest.mark.parametrize("how", [*HOWS, "negative", "not finite", "per_weight=True", "not float32"])
def test_the_suite_finds_it(how):
    with pytest.raises(AssertionError, match=how):
        check_criterion(Broken(how))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_half_precision_zeros_scores_zero_or_at_least_something_finite(kind):
    seen = {k: torch.zeros_like(v) for k, v in everything().items()} | {
        "weight": torch.zeros(6, 3, 2, 2, dtype=torch.float16)
    }
    scores = score(kind, **seen)
    assert scores.dtype == torch.float32
    assert kind == "random" or (scores == 0).all()


@pytest.mark.parametrize("kind", [k for k in KINDS if registry.find("models.criteria", k).needs])
def test_what_was_not_observed_is_an_error_that_names_the_layer(kind):
    with pytest.raises(InputError, match="block.conv"):
        score(kind, weight=normal(3, 3), name="block.conv")


def test_magnitude_and_l1():
    w = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert score("magnitude", weight=w).tolist() == [[1, 4], [0, 9]]
    assert score("l1", weight=w).tolist() == [[1, 2], [0, 3]]
    conv = normal(4, 3, 3, 3)
    torch.testing.assert_close(score("magnitude", weight=conv).flatten(1).sum(1).sqrt(), conv.flatten(1).norm(dim=1))


def test_bn_scale_is_the_size_of_gamma():
    gamma = torch.tensor([0.5, 0.0, 2.0])
    assert score("bn_scale", weight=normal(3, 2), norm=gamma).tolist() == [0.5, 0.0, 2.0]


def test_taylor_is_the_squared_change_of_the_loss_as_a_weight_begins_to_vanish():
    """Finite differences in float64: (L(w) - L(w with w_q shrunk by a share e))/e -> g w."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(normal(*p.shape, seed=i, dtype=torch.float64))
    data = [(normal(6, 4, seed=s, dtype=torch.float64), torch.arange(6) % 2) for s in (10, 11)]
    w = net[0].weight

    def loss(x, y):
        return nn.functional.cross_entropy(net(x), y)

    gradient = torch.stack([torch.autograd.grad(loss(x, y), w)[0] for x, y in data])
    expected, e = torch.zeros(3, 4, dtype=torch.float64), 1e-6
    with torch.no_grad():
        for x, y in data:
            for i in range(3):
                for j in range(4):
                    whole, kept = loss(x, y), w[i, j].clone()
                    w[i, j] = kept * (1 - e)
                    expected[i, j] += ((whole - loss(x, y)) / e) ** 2
                    w[i, j] = kept
    torch.testing.assert_close(score("taylor", weight=w, gradient=gradient).double(), expected, rtol=1e-3, atol=1e-9)


def test_wanda_is_the_weight_times_the_norm_of_its_input():
    w, x = normal(3, 5), normal(20, 5, seed=1)
    scores = score("wanda", weight=w, input_norm=x.norm(dim=0)[None])
    for i in range(3):
        for j in range(5):
            assert float(scores[i, j]) == pytest.approx(
                abs(float(w[i, j])) * math.sqrt(sum(float(v) ** 2 for v in x[:, j])), rel=1e-5
            )


def test_wanda_of_a_grouped_convolution_takes_each_groups_own_inputs():
    w, norm = normal(4, 2, 3), normal(2, 6, seed=1).abs()
    scores = score("wanda", weight=w, input_norm=norm)
    for o in range(4):
        torch.testing.assert_close(scores[o], w[o].abs() * norm[o // 2].reshape(2, 3))


def test_obs_is_twice_what_the_loss_grows_by_when_the_rest_makes_up_for_a_weight():
    """Least squares by brute force: min over the other weights of 1/2 (v - w)^T H (v - w) with
    v_q = 0 is w_q^2 / (2 [H^-1]_qq)."""
    x = normal(50, 6, dtype=torch.float64) @ normal(6, 6, seed=1, dtype=torch.float64)
    w = normal(2, 6, seed=2, dtype=torch.float64)
    h = x.T @ x / 50
    scores = score("obs", weight=w, hessian=h[None]).double()
    d = h + 0.01 * h.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    for row in range(2):
        for q in range(6):
            rest = [i for i in range(6) if i != q]
            best = torch.zeros(6, dtype=torch.float64)
            best[rest] = w[row][rest] + torch.linalg.solve(d[rest][:, rest], d[rest, q] * w[row, q])
            change = best - w[row]
            grows = 0.5 * change @ d @ change
            assert float(scores[row, q]) == pytest.approx(2 * float(grows), rel=1e-5)


def test_obs_finds_no_worth_in_an_input_that_was_never_there():
    x = normal(30, 4)
    x[:, 2] = 0
    scores = score("obs", weight=torch.ones(3, 4), hessian=(x.T @ x / 30)[None])
    assert (scores[:, 2] == 0).all()
    assert (scores[:, [0, 1, 3]] > 0).all()


def test_obs_of_a_grouped_convolution_takes_each_groups_own_hessian():
    seen = everything()
    scores = score("obs", weight=seen["weight"], hessian=seen["hessian"])
    for g in range(GROUPS):
        rows = slice(3 * g, 3 * g + 3)
        torch.testing.assert_close(
            scores[rows], score("obs", weight=seen["weight"][rows], hessian=seen["hessian"][g : g + 1])
        )


def test_a_hessian_that_is_none_is_an_error():
    with pytest.raises(InputError, match="positive definite"):
        score("obs", weight=normal(2, 2), hessian=-torch.eye(2)[None])


def test_lamp_is_the_share_of_what_would_be_left():
    w = torch.tensor([[3.0, -1.0], [0.0, 2.0]])
    torch.testing.assert_close(score("lamp", weight=w), torch.tensor([[9 / 9, 1 / 14], [0.0, 4 / 13]]))
    w = normal(4, 5)
    expected = [[float(v**2 / (w[w.abs() >= v.abs()] ** 2).sum()) for v in row] for row in w]
    torch.testing.assert_close(score("lamp", weight=w), torch.tensor(expected))
    # a layer's scale does not count
    torch.testing.assert_close(score("lamp", weight=1000 * w), score("lamp", weight=w))


def test_lamp_of_equal_weights_ranks_them_one_after_another():
    assert sorted(score("lamp", weight=torch.ones(1, 4)).flatten().tolist()) == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1])


def test_fpgm_is_the_sum_of_distances_to_the_other_filters():
    w = normal(5, 2, 3)
    expected = [sum(math.sqrt(float(((a - b) ** 2).sum())) for b in w) for a in w]
    torch.testing.assert_close(score("fpgm", weight=w), torch.tensor(expected))
    # a matrix product would lose these distances
    near = normal(1, 2, 3).expand(40, 2, 3) + 1e-4 * normal(40, 2, 3, seed=1)
    distances = near.double().flatten(1)[:, None] - near.double().flatten(1)[None]
    torch.testing.assert_close(score("fpgm", weight=near).double(), distances.norm(dim=2).sum(1), rtol=1e-3, atol=0)


def test_entropy_is_that_of_the_histogram_over_samples():
    seen = everything()["outputs"]
    low, high = float(seen.min()), float(seen.max())
    for c, got in enumerate(score("entropy", weight=normal(6, 2), outputs=seen)):
        counts = [0] * 100
        for v in seen[:, c].tolist():
            counts[min(int((v - low) / (high - low) * 100), 99)] += 1
        assert float(got) == pytest.approx(-sum(k / 30 * math.log(k / 30) for k in counts if k), rel=1e-5)


def test_entropy_is_zero_for_a_channel_that_says_nothing_and_ln_n_for_one_that_tells_all_apart():
    outputs = torch.stack([torch.arange(50.0), torch.full((50,), 7.0), torch.tensor([0.0, 49.0] * 25)], 1)
    assert score("entropy", weight=normal(3, 2), outputs=outputs).tolist() == pytest.approx(
        [math.log(50), 0, math.log(2)]
    )
    assert score("entropy", weight=normal(3, 2), outputs=torch.zeros(0, 3)).tolist() == [0, 0, 0]


def test_random_draws_from_its_generator():
    w = normal(50, 40)
    a, b = score("random", weight=w), score("random", seed=1, weight=w)
    assert not torch.equal(a, b)
    assert float(a.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(a.std()) == pytest.approx(math.sqrt(1 / 12), abs=0.03)
