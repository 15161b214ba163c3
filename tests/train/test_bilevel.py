"""Bi-level gradients and eigenvalues against exact ones; guards against their definitions."""

import pytest
import torch

from featherweight.errors import InputError
from featherweight.train._bilevel import largest_eigenvalue, unrolled_gradient
from featherweight.train._guards import dominant_skips, hessian_verdict, skip_verdict

D = torch.float64


def problem(seed=0, curved=0.0):
    g = torch.Generator().manual_seed(seed)
    w, a = (torch.randn(n, generator=g, dtype=D, requires_grad=True) for n in (5, 3))
    m, k = torch.randn(5, 5, generator=g, dtype=D), torch.randn(5, 3, generator=g, dtype=D)

    def inner(w, a):
        return 0.5 * (m @ w - k @ a).square().sum() + curved * (torch.tanh(w).sum() * torch.sin(a).sum())

    def outer(w, a):
        return 0.5 * (w - 1).square().sum() + 0.1 * a.square().sum() * w.sum()

    return w, a, inner, outer


def exact(w, a, inner, outer, xi):
    (dw,) = torch.autograd.grad(inner(w, a), w, create_graph=True)
    return torch.autograd.grad(outer(w - xi * dw, a), a)[0]


@pytest.mark.parametrize("xi, curved, tolerance", [(0.0, 1.0, 1e-12), (0.05, 0.0, 1e-8), (0.05, 1.0, 1e-4)])
def test_unrolled_gradient_is_the_exact_one(xi, curved, tolerance):
    """The finite difference of eq. 8 is exact where the inner loss is quadratic."""
    w, a, inner, outer = problem(curved=curved)
    before = w.detach().clone()
    (got,), loss = unrolled_gradient(lambda: inner(w, a), lambda: outer(w, a), [w], [a], xi)
    want = exact(w, a, inner, outer, xi)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    assert torch.equal(w, before), "the weights were not put back"
    if xi == 0:
        assert loss == float(outer(w, a).detach())
    else:
        assert (got - exact(w, a, inner, outer, 0.0)).abs().max() > 1e-2, "the second-order term is missing"


def test_a_gradient_that_is_no_number_is_refused_and_the_weights_stay():
    w, a = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    with pytest.raises(InputError):
        unrolled_gradient(lambda: (w * a).sum(), lambda: (w * a.sqrt()).sum(), [w], [a], 0.1)
    assert torch.equal(w, torch.ones(2))


@pytest.mark.parametrize(
    "eigenvalues", [[3.0, 1.0, 0.5], [-5.0, 2.0, 1.0], [-4.0, -3.0, -1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
)
def test_largest_eigenvalue(eigenvalues):
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=D))
    h = q @ torch.diag(torch.tensor(eigenvalues, dtype=D)) @ q.T
    a, b = torch.randn(2, dtype=D, requires_grad=True), torch.randn(1, dtype=D, requires_grad=True)

    def loss():
        x = torch.cat([a, b])
        return 0.5 * x @ h @ x + x.sum()

    assert largest_eigenvalue(loss(), [a, b], seed=0, steps=500, tolerance=1e-9) == pytest.approx(
        max(eigenvalues), abs=1e-4
    )


def test_the_eigenvalue_of_a_linear_loss_is_zero():
    a = torch.ones(3, requires_grad=True)
    assert largest_eigenvalue((2 * a).sum(), [a], seed=0) == 0.0


OPTIONS = {"e1": ("none", "skip_connect"), "e2": ("skip_connect", "conv"), "e3": ("conv", "skip_connect")}


def test_skips_dominate_where_they_alone_are_most_probable():
    p = {"e1": [0.4, 0.6], "e2": [0.5, 0.5], "e3": [0.9, 0.1]}
    assert dominant_skips(p, OPTIONS) == ["e1"]
    assert dominant_skips({"e1": [0.49, 0.51]}, OPTIONS) == []  # by a hair
    assert skip_verdict(p, OPTIONS, 1) is None
    verdict = skip_verdict({**p, "e2": [0.7, 0.3]}, OPTIONS, 1)
    assert verdict is not None and verdict["edges"] == ["e1", "e2"] and verdict["guard"] == "skip"


def test_the_eigenvalue_guard_compares_means_of_windows():
    flat, rising = [1.0] * 10, [1.0] * 5 + [1.4] * 5
    assert hessian_verdict(flat) is None and hessian_verdict(rising[:9]) is None
    verdict = hessian_verdict(rising)
    assert verdict is not None and verdict["ratio"] == pytest.approx(1 / 1.4) and verdict["keep"] == 5
    assert hessian_verdict([1.0] * 5 + [1.3] * 5) is None  # 0.77
    assert hessian_verdict([1.0, 2.0], window=1)["keep"] == 1
    assert hessian_verdict([-1.0, 2.0], window=1) is None and hessian_verdict([]) is None
