"""Masks, SparseGPT against brute-force OBS, and weight-level pruning of whole models."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.observe import observe
from featherweight.models.package import Package
from featherweight.models.sparsegpt import nm_mask, sparsegpt
from featherweight.models.sparsify import layers_of, lowest, parse_pattern, pattern_mask, ratio_mask, sparsify
from featherweight.transforms.train import Train
from tests import toy


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def batches(n=2, size=8):
    data = [([torch.randn(size, 1, 8, 8, generator=rng(i))], torch.arange(size) % 4) for i in range(n)]
    return lambda: iter(data)


def correlated(samples=64, features=12, dtype=torch.float64, seed=0):
    g = rng(seed)
    return torch.randn(samples, features, generator=g, dtype=dtype) @ torch.randn(
        features, features, generator=g, dtype=dtype
    )


def damped(h, damp=0.01):
    return h + damp * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)


def brute_force(w, h, mask):
    """Optimal Brain Surgeon with SparseGPT's order: columns left to right, each removal repaired by
    the columns to its right, with the inverse of the Hessian of those alone."""
    w = w.clone()
    for r in range(len(w)):
        for j in range(w.shape[1]):
            if mask[r, j]:
                inverse = torch.linalg.inv(h[j:, j:])
                w[r, j:] -= w[r, j] / inverse[0, 0] * inverse[:, 0]
                w[r, j] = 0
    return w


# masks


def test_lowest_takes_exactly_so_many_over_all_tensors_and_the_first_of_equals():
    scores = [torch.tensor([3.0, 1.0, 2.0]), torch.tensor([[1.0, 1.0], [0.0, 5.0]])]
    first, second = lowest(scores, 3)
    assert first.tolist() == [False, True, False]
    assert second.tolist() == [[True, False], [True, False]]
    assert not any(m.any() for m in lowest(scores, 0))
    assert all(m.all() for m in lowest(scores, 7))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_a_ratio_is_exact_in_each_layer_or_row(ratio):
    scores = torch.rand(6, 10, generator=rng())
    assert int(ratio_mask(scores, ratio).sum()) == round(60 * ratio)
    rows = ratio_mask(scores, ratio, by_row=True)
    assert rows.sum(1).tolist() == [round(10 * ratio)] * 6
    for s, m in zip(scores, rows, strict=True):
        assert ratio in (0.0, 1.0) or s[m].max() < s[~m].min()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2)])
def test_a_pattern_keeps_the_n_best_of_each_run(n, m):
    scores = torch.rand(3, 2 * m, generator=rng())
    gone = pattern_mask(scores, n, m)
    for row in range(3):
        for start in (0, m):
            run = scores[row, start : start + m]
            assert set((~gone[row, start : start + m]).nonzero().flatten().tolist()) == set(
                run.argsort(descending=True)[:n].tolist()
            )


def test_a_short_last_run_keeps_what_it_may_and_convolutions_run_along_their_inputs():
    assert (~nm_mask(torch.rand(2, 7, generator=rng()), 2, 4)).sum(1).tolist() == [4, 4]
    assert (~nm_mask(torch.rand(2, 5, generator=rng()), 2, 4)).sum(1).tolist() == [3, 3]
    kept = ~pattern_mask(torch.rand(3, 8, 2, 3, generator=rng()), 2, 4)  # [O, I, k, k]
    assert (kept.reshape(3, 2, 4, 2, 3).sum(2) == 2).all()
    assert not pattern_mask(torch.rand(5, 1, 3, 3, generator=rng()), 2, 4).any(), (
        "a depthwise convolution has runs of one input"
    )


@pytest.mark.parametrize("bad", ["channel", "4:2", "0:4", "4:4", "2:", "", "2:4:8"])
def test_a_granularity_that_makes_no_sense_is_refused(bad):
    with pytest.raises(InputError, match="granularity"):
        parse_pattern(bad)


# SparseGPT


@pytest.mark.parametrize("block", [1, 5, 128])
def test_sparsegpt_is_brute_force_obs_in_its_column_order(block):
    x = correlated()
    w = torch.randn(5, 12, generator=rng(1), dtype=torch.float64)
    mask = torch.rand(5, 12, generator=rng(2)) < 0.5
    h = x.T @ x / len(x)
    torch.testing.assert_close(
        sparsegpt(w, h, mask=mask, block=block), brute_force(w, damped(h), mask), rtol=1e-8, atol=1e-10
    )


def test_sparsegpt_chooses_block_by_block_what_obs_would_remove_at_least_cost():
    """Algorithm 1 written out: at the start of each block, the weights with the smallest
    w^2 / [H^-1]_jj, H being that of the columns left."""
    x, block = correlated(features=8), 4
    w = torch.randn(3, 8, generator=rng(1), dtype=torch.float64)
    h = x.T @ x / len(x)
    now, full = w.clone(), torch.zeros(3, 8, dtype=torch.bool)
    for begin in (0, block):
        costs = torch.stack(
            [now[:, j] ** 2 / torch.linalg.inv(damped(h)[j:, j:])[0, 0] for j in range(begin, begin + block)], 1
        )
        worst = costs.flatten().argsort()[:6]
        chosen = torch.zeros(12, dtype=torch.bool)
        chosen[worst] = True
        full[:, begin : begin + block] = chosen.reshape(3, block)
        now = brute_force(w, damped(h), full)
    torch.testing.assert_close(sparsegpt(w, h, ratio=0.5, block=block), now, rtol=1e-8, atol=1e-10)


def test_sparsegpt_chooses_each_run_of_a_pattern_when_it_gets_there():
    x = correlated(features=8)
    w = torch.randn(3, 8, generator=rng(1), dtype=torch.float64)
    h = x.T @ x / len(x)
    now, full = w.clone(), torch.zeros(3, 8, dtype=torch.bool)
    for begin in (0, 4):
        costs = torch.stack(
            [now[:, j] ** 2 / torch.linalg.inv(damped(h)[j:, j:])[0, 0] for j in range(begin, begin + 4)], 1
        )
        # 1:4 keeps the dearest
        full[:, begin : begin + 4] = torch.ones(3, 4, dtype=torch.bool).scatter(1, costs.argsort(1)[:, 3:], False)
        now = brute_force(w, damped(h), full)
    for block in (1, 3, 4, 6, 128):  # a block never cuts a run in two
        torch.testing.assert_close(sparsegpt(w, h, pattern=(1, 4), block=block), now, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("how", [{"ratio": 0.5}, {"ratio": 0.8}, {"pattern": (2, 4)}])
@pytest.mark.parametrize("seed", range(5))
def test_sparsegpt_beats_magnitude_and_its_own_mask_without_the_update(how, seed):
    """On inputs as layers have them: a few common factors, and noise."""
    g = rng(seed)
    x = 0.5 * torch.randn(512, 64, generator=g) + torch.randn(512, 8, generator=g) @ torch.randn(8, 64, generator=g)
    w = torch.randn(16, 64, generator=g)

    def error(v):
        return float(((w - v) @ x.T).norm())

    pruned = sparsegpt(w, x.T @ x / len(x), **how)
    simple = pattern_mask(w.abs(), *how["pattern"]) if "pattern" in how else ratio_mask(w.abs(), how["ratio"])
    assert error(pruned) < 0.9 * error(w.masked_fill(simple, 0))
    assert error(pruned) < 0.9 * error(w.masked_fill(pruned == 0, 0))


@pytest.mark.parametrize("shape", [(4, 10), (1, 1), (3, 1), (1, 7), (2, 0)])
def test_sparsegpt_at_the_ends(shape):
    w = torch.randn(*shape, generator=rng())
    x = torch.randn(20, shape[1], generator=rng(1))
    h = x.T @ x / 20
    torch.testing.assert_close(sparsegpt(w, h, ratio=0.0), w, rtol=0, atol=0)
    assert (sparsegpt(w, h, ratio=1.0) == 0).all()
    for ratio in (0.25, 0.5):
        assert int((sparsegpt(w, h, ratio=ratio, block=3) == 0).sum()) == round(ratio * w.numel())


def test_sparsegpt_keeps_zeros_counts_them_and_takes_dead_inputs_first():
    x = correlated(features=8, dtype=torch.float32)
    x[:, 3] = 0
    h = x.T @ x / len(x)
    w = torch.randn(4, 8, generator=rng(1)) + 3
    w[:, 6] = 0
    pruned = sparsegpt(w, h, ratio=0.25)
    assert int((pruned == 0).sum()) == 8
    assert (pruned[:, [3, 6]] == 0).all()
    assert (sparsegpt(w, h, ratio=0.0)[:, 3] == w[:, 3]).all()
    assert (sparsegpt(w, h, pattern=(3, 4))[:, 3] == 0).all()
    with pytest.raises(InputError, match="positive definite"):
        sparsegpt(w, torch.ones(8, 8), ratio=0.5, damp=0.0)
    with pytest.raises(InputError, match="block"):
        sparsegpt(w, h, block=0)


# whole models


NETS = {"residual": toy.residual, "plain": toy.plain, "depthwise": toy.depthwise, "concat": toy.Concat}


def built(build, seed=0):
    torch.manual_seed(seed)
    return build().eval()


def weights(net):
    return {path: m.weight for path, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
@pytest.mark.parametrize("criterion", ["magnitude", "l1", "taylor", "wanda", "obs", "lamp", "random"])
@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_the_ratio_holds_and_the_output_layer_stays(build, criterion, scope):
    net = built(build)
    output = list(weights(net))[-1]
    before = copy.deepcopy(net)
    shares = sparsify(
        net,
        ratio=0.5,
        criterion=criterion,
        scope=scope,
        batches=batches(),
        loss_fn=nn.functional.cross_entropy,
        rng=rng(),
    )
    now, was = weights(net), weights(before)
    assert set(shares) == set(now) - {output}
    assert torch.equal(now[output], was[output])
    for path, share in shares.items():
        assert share == pytest.approx(float((now[path] == 0).float().mean()))
        kept = now[path] != 0
        assert torch.equal(now[path][kept], was[path][kept])
        if scope == "uniform":  # a row of an odd number of weights cannot be halved
            assert (
                abs(share - 0.5) <= 0.5 / (was[path][0].numel() if criterion == "wanda" else was[path].numel()) + 1e-6
            )
    zeros, total = sum(int((now[p] == 0).sum()) for p in shares), sum(now[p].numel() for p in shares)
    assert scope == "uniform" or zeros == round(0.5 * total)
    assert all(p.requires_grad for p in net.parameters())


def test_one_ranking_over_all_layers_takes_the_smallest_weights_there_are():
    net = built(toy.residual)
    before = torch.cat([w.detach().abs().flatten() for w in list(weights(net).values())[:-1]])
    sparsify(net, ratio=0.3, criterion="l1", batches=batches(), rng=rng())
    gone = torch.cat([w.detach().flatten() for w in list(weights(net).values())[:-1]]) == 0
    assert before[gone].max() <= before[~gone].min()


def test_scores_that_cannot_be_compared_are_divided_by_their_layers_mean():
    net = built(toy.plain)
    scaled = copy.deepcopy(net)
    # the same function, but the first layer's scores are a hundredth of what they were
    with torch.no_grad():
        scaled[0].weight /= 100
        scaled[0].bias /= 100
        scaled[3].weight *= 100
    shares = [sparsify(m, ratio=0.5, criterion="wanda", batches=batches(), rng=rng()) for m in (net, scaled)]
    assert shares[1] == pytest.approx(shares[0], abs=2e-3)
    assert len(set(shares[0].values())) == 3, "one ranking over all layers does not give each the same ratio"


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
@pytest.mark.parametrize("pattern", ["2:4", "1:4"])
def test_a_pattern_holds_in_every_layer(build, pattern, update):
    net = built(build)
    shares = sparsify(net, granularity=pattern, criterion="obs", update=update, batches=batches(), rng=rng())
    n, m = parse_pattern(pattern)
    for path in shares:
        w = net.get_submodule(path).weight.movedim(1, -1)  # [O, *k, I]
        inputs = w.shape[-1]
        if inputs % m == 0:
            assert ((w.reshape(-1, m) != 0).sum(1) <= n).all()
            assert shares[path] == pytest.approx(1 - n / m)
        else:
            assert inputs == 1
            assert shares[path] == 0


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_updating_what_stays_keeps_each_layers_output_nearer(build, scope):
    """Of the first layer, whose inputs are the same in both models."""
    plain, updated = built(build), built(build)
    before = copy.deepcopy(plain)
    settings = dict(ratio=0.5, criterion="obs", scope=scope, batches=batches(), rng=rng())
    shares = sparsify(plain, **settings)
    assert sparsify(updated, update=True, **settings) == pytest.approx(shares, abs=1e-6)
    first = next(iter(shares))
    x = torch.cat([x[0] for x, _ in batches()()])
    truth, a, b = (m.get_submodule(first)(x) for m in (before, updated, plain))
    assert (a - truth).norm() < (b - truth).norm()


def test_a_threshold_takes_what_is_smaller():
    net = built(toy.residual)
    before = copy.deepcopy(net)
    sparsify(net, ratio=0.0, threshold=0.05, batches=batches(), rng=rng())
    for (path, w), was in list(zip(weights(net).items(), weights(before).values(), strict=True))[:-1]:
        assert torch.equal(w, was.masked_fill(was.abs() < 0.05, 0)), path
    updated = copy.deepcopy(before)
    sparsify(updated, ratio=0.0, threshold=0.05, criterion="obs", update=True, batches=batches(), rng=rng())
    for path, w in list(weights(updated).items())[:-1]:
        assert (w[weights(before)[path].abs() < 0.05] == 0).all()


@pytest.mark.parametrize(
    "settings", [{"scope": "uniform"}, {"scope": "global"}, {"scope": "uniform", "criterion": "obs", "update": True}]
)
def test_zeros_stay_and_count(settings):
    net = built(toy.plain)
    with torch.no_grad():
        for w in weights(net).values():
            w.view(-1)[::3] = 0
    was = {path: w == 0 for path, w in weights(net).items()}
    shares = sparsify(net, ratio=0.5, batches=batches(), rng=rng(), **{"criterion": "random", **settings})
    for path in shares:
        assert (weights(net)[path][was[path]] == 0).all()
    total = sum(weights(net)[p].numel() for p in shares)
    assert sum(s * weights(net)[p].numel() for p, s in shares.items()) == pytest.approx(0.5 * total, abs=3)
    again = copy.deepcopy(net)
    sparsify(again, ratio=0.2, batches=batches(), rng=rng(), **{"criterion": "random", **settings})
    for path, w in weights(again).items():
        torch.testing.assert_close(w, weights(net)[path], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_nothing_and_everything(ratio):
    net = built(toy.depthwise)
    before = copy.deepcopy(net)
    shares = sparsify(net, ratio=ratio, batches=batches(), rng=rng())
    assert set(shares.values()) == {ratio}
    if ratio == 0:
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters(), strict=True))


def test_the_same_generator_gives_the_same_zeros():
    def run(seed):
        net = built(toy.plain)
        sparsify(net, ratio=0.5, criterion="random", batches=batches(), rng=rng(seed))
        return torch.cat([(w == 0).flatten() for w in weights(net).values()])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_masks_do_not_depend_on_how_many_passes_memory_allows():
    a, b = built(toy.plain), built(toy.plain)
    for net, size in ((a, 2**30), (b, 1)):
        sparsify(net, ratio=0.5, criterion="wanda", scope="uniform", batches=batches(), rng=rng(), max_bytes=size)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_later_passes_of_an_update_see_the_layers_before_already_pruned():
    net = built(toy.plain)
    expected = copy.deepcopy(net)
    sparsify(net, ratio=0.5, criterion="obs", scope="uniform", update=True, batches=batches(), rng=rng(), max_bytes=1)
    for path in ("0", "3"):
        ((_, seen),) = observe(expected, [path], {"hessian"}, batches())
        layer = expected.get_submodule(path)
        order = torch.arange(seen.hessian.shape[1]).reshape(layer.weight.shape[1], -1).T.flatten()
        flat = layer.weight.detach().flatten(1).clone()
        flat[:, order] = sparsegpt(flat[:, order], seen.hessian[0][order][:, order], ratio=0.5)
        layer.weight.data = flat.reshape(layer.weight.shape)
        torch.testing.assert_close(net.get_submodule(path).weight, layer.weight)


class Shared(nn.Module):
    """A linear layer tied to an embedding, one that is never called,
    one used twice under two names, and attention."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.tied, self.idle, self.a, self.b = (nn.Linear(8, n, bias=False) for n in (16, 8, 8, 8))
        self.tied.weight, self.b.weight = self.embed.weight, self.a.weight
        self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        h = self.b(self.a(self.embed(x)))
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.out(self.tied(h).mean(1))


def test_shared_weights_are_pruned_once_and_embeddings_not_at_all():
    net = Shared().eval()
    x = torch.arange(12).reshape(3, 4)
    assert list(layers_of(net, (x,), called=False)) == ["idle", "a", "attention.out_proj"]
    assert list(layers_of(net, (x,), called=True)) == ["a"]
    shares = sparsify(net, ratio=0.5, criterion="wanda", batches=lambda: [([x], torch.zeros(3))], rng=rng())
    assert shares == {"a": 0.5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.1, "ratio": 0.5}, "threshold"),
        ({"threshold": 0.1, "ratio": 0.0, "granularity": "2:4"}, "threshold"),
        ({"threshold": -1.0}, "threshold"),
        ({"ratio": 1.5}, "ratio"),
        ({"scope": "layer"}, "scope"),
        ({"update": True}, "OBS"),
        ({"criterion": "fpgm"}, "channels"),
        ({"criterion": "nothing"}, "called"),
        ({"criterion": "taylor"}, "loss"),
        ({"batches": lambda: []}, "without seeing"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        sparsify(built(toy.plain), **{"batches": batches(), "rng": rng(), **settings})


# what it is for


def images(n, seed=0):
    inputs, y = toy.images(n, seed).batch(np.arange(n))
    return torch.as_tensor(inputs["image"]), torch.as_tensor(y)


@pytest.fixture(scope="module")
def trained():
    """A small net that has learnt its task, its training batches, and the loss and accuracy of a
    pruned copy on new images."""
    t = toy.task(toy.plain)
    net = Train(epochs=6, lr=3e-3, batch_size=16).apply(Package(t.build()), toy.context(t)).module
    inputs, y = images(160)
    fresh, truth = images(200, seed=5)

    def judge(**settings):
        pruned = copy.deepcopy(net)
        data = [([inputs[i : i + 32]], y[i : i + 32]) for i in range(0, 160, 32)]
        sparsify(pruned, batches=lambda: data, loss_fn=nn.functional.cross_entropy, rng=rng(), **settings)
        with torch.no_grad():
            out = pruned(fresh)
        return float(nn.functional.cross_entropy(out, truth)), float((out.argmax(1) == truth).float().mean())

    return judge


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("criterion", ["magnitude", "l1", "taylor", "wanda", "obs", "lamp"])
def test_criteria_keep_what_chance_loses(trained, criterion, scope):
    loss, accuracy = trained(ratio=0.7, criterion=criterion, scope=scope)
    by_chance, _ = trained(ratio=0.7, criterion="random", scope=scope)
    assert accuracy >= 0.95
    assert loss < 0.5 * by_chance


@pytest.mark.parametrize("how", [{"ratio": 0.5}, {"ratio": 0.7}, {"granularity": "2:4"}, {"granularity": "1:4"}])
def test_updating_what_stays_keeps_the_loss_lower(trained, how):
    settings = {"criterion": "obs", "scope": "uniform", **how}
    assert trained(update=True, **settings)[0] < trained(**settings)[0]


def test_half_precision_layers_are_pruned_in_float32_and_stay_what_they_are():
    net = built(toy.plain).bfloat16()
    data = [([x[0].bfloat16()], y) for x, y in batches()()]
    for settings in ({"criterion": "wanda"}, {"criterion": "obs", "update": True}):
        shares = sparsify(net, ratio=0.5, scope="uniform", batches=lambda: data, rng=rng(), **settings)
        assert all(p.dtype == torch.bfloat16 for p in net.parameters())
        assert shares == pytest.approx(dict.fromkeys(shares, 0.5), abs=0.06)
