"""Integer grids: round trips, zero, and the shapes of scales."""

import pytest
import torch

from featherweight.models.quant.grid import Grid, blocks, codes, fit, nearest, unblock, values

GRANULARITIES = [("tensor", 0), ("channel", 0), ("group", 5)]
SHAPES = [(6, 12), (4, 3, 3, 3), (1, 7), (3, 1), (5,)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 7, 8])
@pytest.mark.parametrize(("granularity", "group"), GRANULARITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_errs_by_half_a_step_at_most(shape, granularity, group, bits, symmetric):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.3
    grid = Grid(bits, granularity, group, symmetric)
    s, z = fit(w, grid)
    error = (blocks(w, grid) - blocks(nearest(w, s, z, grid), grid)).abs().amax(-1).reshape(s.shape)
    assert bool((error <= s * 0.5 * (1 + 1e-4)).all())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("granularity", "group"), GRANULARITIES)
def test_codes_are_whole_inside_the_range_and_give_back_the_values(granularity, group, symmetric):
    w = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    grid = Grid(4, granularity, group, symmetric)
    s, z = fit(w, grid)
    q = codes(w, s, z, grid)
    assert torch.equal(q, q.round()) and q.min() >= grid.low and q.max() <= grid.high
    assert torch.equal(z, z.round()) and (not symmetric or bool((z == 0).all()))
    again = codes(values(q, s, z, grid), s, z, grid)
    assert torch.equal(again, q)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("granularity", "group"), GRANULARITIES)
def test_zero_stays_zero(granularity, group, symmetric):
    w = torch.randn(6, 12, generator=torch.Generator().manual_seed(2)).abs() + 1
    w[:, ::3] = 0
    w[2] = 0
    grid = Grid(4, granularity, group, symmetric)
    rounded = nearest(w, *fit(w, grid), grid)
    assert bool((rounded[w == 0] == 0).all()) and bool((rounded[w > 1.5] > 0).all())


def test_a_short_last_group_has_its_own_scale():
    grid = Grid(8, "group", 4)
    w = torch.tensor([[1.0, 2, 3, 4, -128]])
    s, _ = fit(w, grid)
    assert s.shape == (1, 2) and torch.allclose(s, torch.tensor([[4 / 127, 1.0]]))
    assert torch.equal(unblock(blocks(w, grid), w), w)


def test_symmetric_grids_of_known_values():
    """3 bits: the positive end is code 3, the negative one -4, or -3 where codes are mirrored."""
    w = torch.tensor([[2.0, -1.4, 0.6, -4.0], [3.0, -1.4, 0.6, -3.9]])
    for mirrored, step, expected in (
        (False, [1.0, 1.0], [[2, -1, 1, -4], [3, -1, 1, -4]]),
        (True, [4 / 3, 1.3], [[2, -1, 0, -3], [2, -1, 0, -3]]),
    ):
        grid = Grid(3, "channel", mirrored=mirrored)
        s, z = fit(w, grid)
        assert s.tolist() == pytest.approx(step) and codes(w, s, z, grid).tolist() == expected


@pytest.mark.parametrize(("bits", "share"), [(3, 0.847), (4, 0.900), (8, 0.992)])
def test_all_codes_are_used_and_err_less_than_one_code_fewer(bits, share):
    """share: of the squared error of mirrored codes, for normal weights in groups of 64."""
    w = torch.randn(8192, 64, generator=torch.Generator().manual_seed(0))
    errors = {}
    for mirrored in (False, True):
        grid = Grid(bits, "group", 64, mirrored=mirrored)
        s, z = fit(w, grid)
        used = codes(w, s, z, grid).unique().tolist()
        assert used == list(range(grid.low, grid.high + 1)) and len(used) == 2**bits - mirrored
        errors[mirrored] = float((nearest(w, s, z, grid) - w).square().mean())
    assert errors[False] / errors[True] == pytest.approx(share, abs=0.01)


def test_an_asymmetric_grid_of_known_values():
    grid = Grid(2, "tensor", 0, False)
    w = torch.tensor([[-1.0, 2.0], [0.4, 0.6]])
    s, z = fit(w, grid)
    assert s.tolist() == [1.0] and z.tolist() == [1.0] and codes(w, s, z, grid).tolist() == [[0, 3], [1, 2]]
