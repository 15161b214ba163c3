"""Hooks see what they are asked to see, in order, and are gone afterwards, whatever happens."""

import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.hooks import submodules, watched


class Net(nn.Module):
    """A child that is called with a keyword, a nested one, and one that stands in two places."""

    def __init__(self):
        super().__init__()
        self.scale, self.body = Scale(), nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.again = self.body[0]

    def forward(self, x):
        return self.body(self.scale(x, by=2.0))


class Scale(nn.Module):
    def forward(self, x, by):
        return x * by


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def count(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_before_and_after_each_pass(net):
    seen, x = [], torch.randn(2, 3)
    before = {"body.0": lambda m, args: seen.append(("before", m, args))}
    after = {"body.0": lambda m, args, out: seen.append(("after", m, args, out))}
    with watched(net, after, before=before):
        net(x)
        net.body(x)
    assert [s[0] for s in seen] == ["before", "after"] * 2 and all(s[1] is net.body[0] for s in seen)
    assert torch.equal(seen[0][2][0], 2 * x) and seen[2][2][0] is x
    assert torch.equal(seen[1][3], net.body[0](2 * x))
    net(x)
    assert len(seen) == 4 and count(net) == 0


def test_the_model_itself_and_keyword_arguments(net):
    seen, x = [], torch.ones(1, 3)
    before = {p: lambda m, args, kwargs, p=p: seen.append((p, args[0], kwargs)) for p in ("", "scale")}
    after = {"scale": lambda m, args, kwargs, out: seen.append(("out", out, kwargs))}
    with watched(net, after, before=before, with_kwargs=True):
        net(x)
    assert [(p, kwargs) for p, _, kwargs in seen] == [("", {}), ("scale", {"by": 2.0}), ("out", {"by": 2.0})]
    assert seen[0][1] is x and torch.equal(seen[2][1], 2 * x) and count(net) == 0


def test_what_a_hook_gives_takes_the_place_of_what_flows(net):
    x = torch.randn(2, 3)
    with watched(net, {"body": lambda m, args, out: out + 1}, before={"body": lambda m, args: (args[0] * 3,)}):
        assert torch.equal(net(x), net.body[1](net.body[0](6 * x)) + 1)
    with watched(net, before={"scale": lambda m, args, kwargs: (args, {"by": 5.0})}, with_kwargs=True):
        assert torch.equal(net(x), net.body(5 * x))
    assert torch.equal(net(x), net.body(2 * x))


def test_hooks_of_one_submodule_run_in_the_order_in_which_they_were_entered(net):
    ran = []

    def note(name):
        return lambda *_: ran.append(name)

    with watched(net, {"body": note("outer"), "body.1": note("relu"), "body.0": note("linear")}):
        with watched(net, {"body": note("inner")}, before={"body": note("before")}):
            net(torch.ones(1, 3))
        assert ran == ["before", "linear", "relu", "outer", "inner"]
        net(torch.ones(1, 3))
    assert ran[5:] == ["linear", "relu", "outer"] and count(net) == 0


def test_hooks_go_after_an_exception_and_those_of_others_stay(net):
    ran = []
    net.body.register_forward_hook(lambda *_: ran.append("own"))

    def fail(*_):
        raise ZeroDivisionError("in the hook")

    with pytest.raises(ZeroDivisionError), watched(net, {"body.0": fail}, before={"": lambda *_: ran.append("before")}):
        net(torch.ones(1, 3))
    with pytest.raises(KeyError), watched(net, {"body": fail}):
        raise KeyError("in the block")
    assert count(net) == 1
    net(torch.ones(1, 3))
    assert ran == ["before", "own"]


def test_a_watch_that_ends_first_takes_only_its_own(net):
    """Two that do not end in the order of a stack, as two generators may."""
    ran = []
    one, two = (watched(net, {"scale": lambda *_, n=n: ran.append(n)}) for n in (1, 2))
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    net(torch.ones(1, 3))
    two.__exit__(None, None, None)
    assert ran == [2] and count(net) == 0


def test_a_path_that_leads_nowhere_is_named_before_any_hook_is_there(net):
    for there, nowhere in (("after", "before"), ("before", "after")):
        with (
            pytest.raises(InputError, match="no such submodule") as e,
            watched(net, **{there: {"body": print}, nowhere: {"body.7": print}}),
        ):
            pytest.fail("it must not begin")
        assert (
            e.value.got == ["body.7"]
            and e.value.allowed == ["scale", "body", "body.0", "body.1"]
            and "named_modules" in e.value.fix
        )
        assert count(net) == 0


def test_nothing_to_watch(net):
    with watched(net):
        assert count(net) == 0
    assert submodules(net, []) == {}


def test_submodules_by_path(net):
    assert submodules(net, ["", "again", "body.0"]) == {"": net, "again": net.body[0], "body.0": net.body[0]}
    with pytest.raises(InputError) as e:
        submodules(net, ["body", "arm", "body.0.weight"])  # a parameter is no submodule
    assert e.value.got == ["arm", "body.0.weight"]
