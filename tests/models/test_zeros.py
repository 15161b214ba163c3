"""Zeros that a package claims are held to its weights, through cuts and renumbered blocks."""

import copy

import pytest
import torch
from torch import nn

from featherweight.models.package import Package
from featherweight.models.surgery import edit, names_of
from featherweight.models.zeros import Zeros, holding


def net():
    """Two blocks of one layer, the left half of each weight zero."""
    torch.manual_seed(0)
    out = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6)) for _ in range(3)))
    with torch.no_grad():
        for p in out.parameters():
            if p.ndim > 1:
                p[:, :3] = 0
    return out


NAMES = ("0.0.weight", "1.0.weight", "2.0.weight")


def package(module=None, sparse=NAMES):
    return Package(module or net(), sparse=sparse)


def changed(index, value):
    module = net()
    with torch.no_grad():
        module[1][0].weight[index] = value
    return package(module)


def test_what_is_still_zero_is_right():
    zeros = Zeros(package())
    assert zeros.wrong(package()) == {} == zeros.wrong(package(sparse=())) == Zeros(None).wrong(package())
    assert zeros.wrong(changed((0, 4), 0.0)) == {}  # one more


def test_a_zero_that_was_filled_is_found_and_counted():
    assert Zeros(package()).wrong(changed((0, 1), 1e-30)) == {"1.0.weight": "1 of its 18 zeros are zero no more"}
    moved = changed((0, 1), 1.0)
    with torch.no_grad():
        moved.module[1][0].weight[0, 4] = 0  # as many as before, elsewhere
    assert Zeros(package()).wrong(moved) == {"1.0.weight": "1 of its 18 zeros are zero no more"}


def test_what_was_there_is_remembered_when_the_input_is_changed():
    before = package()
    zeros = Zeros(before)
    with torch.no_grad():
        before.module[0][0].weight.add_(1.0)
    assert list(zeros.wrong(before)) == ["0.0.weight"] and Zeros(before).wrong(before) == {}


def test_new_claims_need_a_zero():
    dense = nn.Sequential(nn.Linear(2, 2))
    assert Zeros(None).wrong(Package(dense, sparse=("0.weight",))) == {"0.weight": "none of its 4 weights is zero"}
    for name in ("1.weight", "0.nothing", "0", "0.weight.data"):
        assert Zeros(None).wrong(Package(dense, sparse=(name,))) == {name: "the model has no such parameter"}
    assert holding(net(), ("0.0.weight", "0.0.bias", "7.weight", "2.0.weight")) == ("0.0.weight", "2.0.weight")


def test_a_claim_that_never_had_zeros_is_not_the_next_steps_fault():
    """Packages that were stored before claims were checked have some."""
    dense = nn.Sequential(nn.Linear(4, 4))
    narrow = nn.Sequential(nn.Linear(4, 2))
    assert Zeros(Package(dense, sparse=("0.weight",))).wrong(Package(copy.deepcopy(dense), sparse=("0.weight",))) == {}
    assert Zeros(Package(dense, sparse=("0.weight",))).wrong(Package(narrow, sparse=("0.weight",))) == {}


@pytest.mark.parametrize(
    ("columns", "fill", "fine"),
    [(range(6), 0, True), ((1, 2, 3), 0, True), ((2, 4, 5), 0, True), ((1, 2, 3), 8, False)],
)
def test_a_layer_that_was_cut_may_miss_no_more_zeros_than_weights(columns, fill, fine):
    """18 of 36 weights are zero; three columns that stay have 12 or 6 zeros; 18 - (36 - 18) = 0 are
    the least, and then one."""
    module = net()
    with torch.no_grad():
        weight = module[1][0].weight[:, list(columns)]
        weight = torch.ones_like(weight) if fill else weight
        module[1][0].weight = nn.Parameter(weight)
    wrong = Zeros(package()).wrong(package(module))
    assert (wrong == {}) == fine and (
        fine or wrong == {"1.0.weight": "0 of its 18 weights are zero, of 18 in 36 before"}
    )


def test_most_zeros_of_a_layer_that_was_barely_cut_are_known_to_stay():
    module = net()
    with torch.no_grad():
        # 5 zeros, of 18 - 6 at least
        module[1][0].weight = nn.Parameter(torch.where(torch.arange(30).reshape(5, 6) < 5, 0.0, 1.0))
    assert list(Zeros(package()).wrong(package(module))) == ["1.0.weight"]


def test_blocks_are_followed_when_they_are_numbered_anew():
    before, module = package(changed((0, 4), 0.0).module), None
    zeros = Zeros(before)
    module = copy.deepcopy(before.module)
    kept = [module.get_parameter(n) for n in before.sparse]
    change = {"edit": "keep_blocks", "path": "", "index": [1, 2]}
    edit(module, change)
    after = before.edited(module=module, sparse=names_of(module, kept)).restructured(change)
    assert after.sparse == ("0.0.weight", "1.0.weight") and zeros.wrong(after) == {}
    with torch.no_grad():
        module[0][0].weight[0, 4] = 1.0  # was a zero of block 1, and never one of block 0
    assert zeros.wrong(after) == {"0.0.weight": "1 of its 19 zeros are zero no more"}


def test_a_model_of_its_own_is_compared_with_nothing():
    before = package().edited(edits=({"edit": "keep_blocks", "path": "", "index": [0, 1, 2]},))
    assert Zeros(before).wrong(package(sparse=("0.0.weight",))) == {}
