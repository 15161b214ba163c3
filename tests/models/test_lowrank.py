import numpy as np
import pytest
import torch

from featherweight.errors import InputError
from featherweight.models.lowrank import Matrix, Tucker, decompose, rank_keeping, tucker2, whitening


def product(low, ranks):
    b, a = low.factors(ranks)
    return a @ b


def rebuilt(low, ranks):
    first, core, last = low.factors(ranks)  # [r_in, I], [r_out, r_in, K], [O, r_out]
    return torch.einsum("op,pqk,qi->oik", last, core, first)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def correlated(n_features, n, rng):
    """Inputs [I, n] that lie near a few directions."""
    mix = torch.randn(n_features, 3, generator=rng, dtype=torch.float64)
    return mix @ torch.randn(3, n, generator=rng, dtype=torch.float64) + 0.1 * torch.randn(
        n_features, n, generator=rng, dtype=torch.float64
    )


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 5), (5, 1), (1, 1)])
def test_the_error_of_svd_is_what_was_dropped(shape, rng):
    w = torch.randn(shape, generator=rng, dtype=torch.float64)
    s = np.linalg.svd(w.numpy(), compute_uv=False)
    low = decompose(w)
    assert isinstance(low, Matrix) and low.full == (min(shape),)
    for r in range(1, min(shape) + 1):
        error = float((w - product(low, (r,))).square().sum())
        assert error == pytest.approx(float((s[r:] ** 2).sum()), rel=1e-9, abs=1e-20)
        assert low.kept((r,)) == pytest.approx(1 - error / float(w.square().sum()))
        assert low.sizes((r,)) == tuple(f.numel() for f in low.factors((r,)))
    torch.testing.assert_close(product(low, low.full), w)


def test_activation_aware_is_reduced_rank_regression(rng):
    """The closed form (Izenman 1975): W' = V V^T W with V the leading eigenvectors of W G W^T, the
    best of rank r for ||(W - W') X||."""
    w, x = torch.randn(7, 10, generator=rng, dtype=torch.float64), correlated(10, 50, rng)
    low = decompose(w, whitening(x @ x.T, damping=0.0))
    y = w @ x
    _, vectors = np.linalg.eigh((y @ y.T).numpy())
    for r in (1, 2, 4, 7):
        v = torch.from_numpy(vectors[:, -r:].copy())
        torch.testing.assert_close(product(low, (r,)) @ x, v @ v.T @ y, rtol=1e-6, atol=1e-8)
        error = float((y - product(low, (r,)) @ x).square().sum())
        assert low.kept((r,)) == pytest.approx(1 - error / float(y.square().sum()), abs=1e-9)


def test_activation_aware_beats_plain_svd_on_its_inputs_and_only_there(rng):
    w, x = torch.randn(12, 16, generator=rng, dtype=torch.float64), correlated(16, 200, rng)
    aware, plain = decompose(w, whitening(x @ x.T)), decompose(w)
    for r in (2, 4, 8):
        on_inputs = [float(((w - product(low, (r,))) @ x).norm()) for low in (aware, plain)]
        on_weight = [float((w - product(low, (r,))).norm()) for low in (aware, plain)]
        assert on_inputs[0] < 0.7 * on_inputs[1] and on_weight[0] > on_weight[1]


def test_white_inputs_change_nothing(rng):
    w = torch.randn(5, 6, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(product(decompose(w, whitening(3.0 * torch.eye(6))), (2,)), product(decompose(w), (2,)))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_dead_or_few_inputs_still_have_factors(n, rng):
    w, x = torch.randn(5, 6, generator=rng, dtype=torch.float64), torch.randn(6, n, generator=rng, dtype=torch.float64)
    low = decompose(w, whitening(x @ x.T))
    torch.testing.assert_close(product(low, low.full), w, rtol=1e-6, atol=1e-6)
    if n == 0:
        torch.testing.assert_close(product(low, (2,)), product(decompose(w), (2,)))
    else:
        # rank n is enough for n inputs
        assert float(((w - product(low, (n,))) @ x).norm()) < 1e-2 * float((w @ x).norm())


def test_what_is_not_finite_is_refused():
    with pytest.raises(InputError, match="inputs of a layer"):
        whitening(torch.full((2, 2), float("nan")))
    with pytest.raises(InputError, match="a weight"):
        decompose(torch.tensor([[1.0, float("inf")]]))


def test_tucker_is_exact_at_full_ranks_and_its_factors_are_orthonormal(rng):
    t = torch.randn(6, 5, 9, generator=rng, dtype=torch.float64)
    u_in, core, u_out = tucker2(t, 5, 6)
    torch.testing.assert_close(torch.einsum("op,pqk,iq->oik", u_out, core, u_in), t)
    for u in (tucker2(t, 2, 3)[0], tucker2(t, 2, 3)[2]):
        torch.testing.assert_close(u.T @ u, torch.eye(u.shape[1], dtype=torch.float64))


def test_tucker_finds_a_tensor_of_its_ranks(rng):
    a, c, b = (torch.randn(s, generator=rng, dtype=torch.float64) for s in ((8, 3), (3, 2, 9), (2, 7)))
    t = torch.einsum("op,pqk,qi->oik", a, c, b)
    low = decompose(t.reshape(8, 7, 3, 3))
    assert isinstance(low, Tucker) and low.full == (7, 8)
    torch.testing.assert_close(rebuilt(low, (2, 3)), t)
    assert low.kept((2, 3)) == pytest.approx(1.0) and low.kept((1, 3)) < 0.999
    assert low.ranks_keeping(1.0) == (2, 3)


def test_tucker_with_one_mode_whole_is_the_svd_of_the_other(rng):
    t = torch.randn(6, 5, 4, generator=rng, dtype=torch.float64)
    s = np.linalg.svd(t.reshape(6, 20).numpy(), compute_uv=False)
    for r in (1, 3, 5):
        assert float((t - rebuilt(decompose(t), (5, r))).square().sum()) == pytest.approx(
            float((s[r:] ** 2).sum()), rel=1e-9
        )


def test_hooi_is_better_than_the_truncated_hosvd_and_stationary(rng):
    t = torch.randn(8, 8, 9, generator=rng, dtype=torch.float64)
    kept = [float(tucker2(t, 3, 3, sweeps=n)[1].square().sum()) for n in (0, 1, 5, 50, 100)]
    assert all(b > a * (1 - 1e-12) for a, b in zip(kept, kept[1:], strict=False)) and kept[2] > kept[0] * 1.001
    assert kept[4] == pytest.approx(kept[3], rel=1e-4)


def test_energy_is_kept(rng):
    t = torch.randn(12, 10, 9, generator=rng, dtype=torch.float64) * torch.arange(1, 11)[None, :, None] ** -1.5
    for energy in (0.0, 0.5, 0.9, 0.99, 1.0):
        for low in (decompose(t), decompose(t[:, :, 0])):
            assert low.kept(low.ranks_keeping(energy)) >= energy - 1e-9
    low = decompose(t[:, :, 0])
    (r,) = low.ranks_keeping(0.9)
    assert low.kept((r - 1,)) < 0.9


def test_activation_aware_tucker_weighs_the_inputs(rng):
    """The whitened Tucker-2 is the Tucker-2 of T S: its error is ||(T - T') x_in S||."""
    t, x = torch.randn(6, 8, 9, generator=rng, dtype=torch.float64), correlated(8, 100, rng)
    aware, plain = decompose(t, whitening(x @ x.T)), decompose(t)

    def error(low, ranks):
        return float(torch.einsum("oik,in->okn", t - rebuilt(low, ranks), x).square().sum())

    total = float(torch.einsum("oik,in->okn", t, x).square().sum())
    assert error(aware, (3, 4)) < 0.8 * error(plain, (3, 4))
    assert aware.kept((3, 4)) == pytest.approx(1 - error(aware, (3, 4)) / total, rel=1e-4)
    torch.testing.assert_close(rebuilt(aware, aware.full), t, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9, 1.0])
def test_ranks_by_saving_have_the_parameters_asked_for(ratio, rng):
    for w in (torch.randn(20, 30, generator=rng), torch.randn(20, 30, 3, 3, generator=rng)):
        low = decompose(w)
        ranks = low.ranks_saving(ratio)
        assert sum(low.sizes(ranks)) == pytest.approx((1 - ratio) * w.numel())


def test_rank_keeping():
    s = torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64)
    assert [rank_keeping(s, e) for e in (0.0, 0.6, 0.61, 0.9, 0.91, 1.0)] == [1, 1, 2, 2, 3, 3]
    assert rank_keeping(torch.zeros(4), 0.5) == 1
    assert decompose(torch.zeros(3, 4)).kept((1,)) == 1.0
