import copy

import pytest
import torch
from torch import nn

from featherweight.errors import InputError, RecipeError
from featherweight.measure.ops import macs
from featherweight.models.coupling import couple
from featherweight.models.cutting import cut
from featherweight.models.groups import Group
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.space import Choice
from featherweight.transforms.distill import Distill
from featherweight.transforms.prune import Prune
from featherweight.transforms.prune.allocate import by_macs
from featherweight.transforms.prune.cost import Macs
from featherweight.transforms.prune.widths import least, ranked, rounded
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from tests import toy

NETS = {"residual": toy.residual, "plain": toy.plain, "depthwise": toy.depthwise, "concat": toy.Concat}
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 4
        self.query, self.key, self.value, self.dense = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return self.dense(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Patches(nn.Module):
    """A small transformer: each row of the image is a token."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(8, 16), Attention()
        self.up, self.down, self.norm, self.head = (
            nn.Linear(16, 32),
            nn.Linear(32, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 4),
        )

    def forward(self, x):
        x = self.embed(x.flatten(1, 2))
        x = x + self.attention(x)
        return self.head(self.norm(x + self.down(torch.relu(self.up(x)))).mean(1))


def pruned(build=toy.residual, seed=0, **fields):
    t = toy.task(build)
    return Prune(**fields).apply(Package(t.build()), toy.context(t, seed=seed))


def group(units, size=1, kind="channel"):
    return Group("g", kind, units * size, tuple(tuple(range(i * size, (i + 1) * size)) for i in range(units)), ())


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "random"])
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_a_pruned_model_is_smaller_runs_and_reloads(build, criterion, tmp_path):
    t = toy.task(build)
    before = t.build()
    weights = copy.deepcopy(before.state_dict())
    package = Prune(ratio=0.5, criterion=criterion, round_to=4).apply(Package(before), toy.context(t))
    assert all(torch.equal(v, weights[k]) for k, v in before.state_dict().items()), "the input model was changed"
    assert sum(p.numel() for p in package.module.parameters()) < 0.75 * sum(p.numel() for p in before.parameters())
    package.save(tmp_path, t.build)
    with torch.no_grad():
        assert torch.equal(Package.load(tmp_path, t.build).module(X), package.module(X))


@pytest.mark.parametrize("criterion", ["l1", "bn_scale", "wanda", "obs", "lamp", "fpgm", "entropy"])
def test_every_criterion_judges_channels(criterion):
    package = pruned(ratio=0.5, criterion=criterion, round_to=4)
    assert any(now < was for was, now in package.notes[-1]["widths"].values())


@pytest.mark.parametrize("granularity", ["head", "mlp", "all", "channel"])
def test_heads_and_feed_forward_blocks(granularity, tmp_path):
    package = pruned(Patches, ratio=0.5, granularity=granularity, allocation="uniform", round_to=4)
    net = package.module
    assert (
        net.attention.num_heads == net.attention.query.out_features // 4 == (2 if granularity in ("head", "all") else 4)
    )
    assert net.up.out_features == (32 if granularity == "head" else 16)
    assert net.attention.dense.out_features == 16  # the residual stream, which a LayerNorm reads
    package.save(tmp_path, Patches)
    loaded = Package.load(tmp_path, Patches).module
    with torch.no_grad():
        assert torch.equal(loaded(X), net(X)) and loaded.attention.num_heads == net.attention.num_heads
    whole = package.notes[-1]["whole"]
    assert ("attention.query" in whole) == (granularity == "channel")
    assert granularity not in ("channel", "all") or "LayerNorm" in whole["embed"]


def test_one_head_stays():
    assert pruned(Patches, ratio=1.0, granularity="head", round_to=8).module.attention.num_heads == 1


def test_nothing_to_cut_is_said():
    with pytest.raises(InputError, match="nothing that can be cut"):
        pruned(granularity="head")


def test_nothing_is_cut_at_ratio_0_and_something_is_left_at_ratio_1():
    net = toy.task().build()
    with torch.no_grad():
        for allocation in ("global", "uniform", "sensitivity"):
            assert torch.equal(pruned(ratio=0.0, allocation=allocation).module(X), net(X))
        assert pruned(ratio=1.0, round_to=4).module(X).shape == (2, 4)


def test_widths_are_multiples():
    for allocation in ("global", "uniform", "sensitivity"):
        widths = pruned(ratio=0.4, round_to=4, allocation=allocation).notes[-1]["widths"]
        assert widths and all(after % 4 == 0 and after <= before for before, after in widths.values())


def test_the_output_layer_is_named_and_left_whole():
    package = pruned(ratio=0.5)
    assert package.notes[-1]["whole"] == {"8": "it makes the model's output"}
    assert package.module[8].out_features == 4


def test_rounding():
    assert [rounded(k, group(16), 4) for k in (0, 5.9, 6.1, 16, 99)] == [4, 4, 8, 16, 16]
    assert rounded(0.3, group(3), 8) == 3  # narrower than the alignment: left whole
    assert rounded(2.4, group(6, size=4), 8) == 2  # 8 channels are 2 units of 4
    assert rounded(0.2, group(4, size=3, kind="head"), 8) == 1


def test_the_least_important_units_go():
    assert least(torch.tensor([4.0, 1, 3, 2]), 2) == [1, 3]
    assert least(torch.tensor([1.0, 1, 1]), 1) == [0, 1]
    assert least(torch.tensor([1.0]), 1) == []


def test_one_ranking_cuts_more_where_less_matters():
    flat, peaked = torch.ones(16), torch.cat([torch.full((12,), 0.01), torch.full((4,), 10.0)])
    assert ranked([flat, peaked], [1, 1], [16, 16], 20 / 32) == [16, 4]
    s = [torch.tensor([4.0, 1, 3, 2]), torch.tensor([40.0, 10, 30, 20])]
    # scales differ by 10, the ranking does not care
    assert ranked(s, [1, 1], [4, 4], 0.5) == [2, 2]
    assert ranked(s, [1, 1], [4, 4], 1.0) == [4, 4]
    assert ranked(s, [1, 1], [4, 4], 0.0) == [0, 0]
    # 6 of 12 channels go
    assert ranked([torch.tensor([1.0, 2.0]), torch.tensor([1.1, 1.9, 2.1, 0.9])], [4, 1], [2, 4], 0.5) == [1, 2]
    # all tie: the same share of each
    assert ranked([torch.ones(8), torch.ones(4)], [1, 1], [8, 4], 0.5) == [4, 2]
    assert ranked([], [], [], 0.5) == []


def test_each_part_of_the_depth_has_its_ratio():
    package = pruned(toy.plain, ratios=(0.0, 0.5, 0.75), allocation="uniform", round_to=1)
    assert package.notes[-1]["widths"] == {"0": [16, 16], "3": [32, 16], "6": [32, 8]}
    assert pruned(toy.plain, ratios=(0.0, 0.5, 0.75), round_to=1).notes[-1]["widths"] == package.notes[-1]["widths"]
    opened = Recipe(Prune(ratios=(Choice(0.0, 0.5), Choice(0.25, 0.5))))
    assert opened.fill({"prune.ratios[0]": 0.5, "prune.ratios[1]": 0.25}).steps[0].ratios == (0.5, 0.25)


def test_macs_left_are_those_of_the_cut_model():
    net = toy.residual().eval()
    groups = couple(net, (X,)).groups
    counted = Macs(net, (X,))
    assert counted.left([], []) == macs(net, {"x": X})
    keeps = [max(1, len(g.units) // (2 + i)) for i, g in enumerate(groups)]
    want = counted.left(groups, keeps)
    cut(net, groups, [list(range(len(g.units) - k)) for g, k in zip(groups, keeps, strict=True)])
    assert want == pytest.approx(macs(net, {"x": X}))


def test_sensitivity_saves_the_macs_that_are_asked_for_where_it_hurts_least():
    package = pruned(ratio=0.5, allocation="sensitivity", round_to=2)
    whole, small = (macs(m, {"x": X}) for m in (toy.residual(), package.module))
    report = package.notes[-1]["allocation"][0]
    assert small <= 0.5 * whole and report["enough"] and report["macs"] == pytest.approx([whole, small])


def test_sensitivity_leaves_the_group_that_the_loss_needs():
    """Two groups alike in size, of which one does not reach the output: that one goes."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(16, 2)
            nn.init.zeros_(self.out.weight[:, 8:])

        def forward(self, x):
            return self.out(torch.cat([self.a(x), self.b(x)], 1))

    torch.manual_seed(0)
    net = Two().eval()
    x = torch.randn(64, 4)
    y = net(x).detach()
    groups = couple(net, (x,)).groups
    counted = Macs(net, (x,))
    goal = 0.3 * counted.left([], [])
    keeps, report = by_macs(
        net, groups, [torch.ones(8)] * 2, goal, 1, lambda: [([x], y)], nn.functional.mse_loss, counted
    )
    assert [g.name for g in groups] == ["a", "b"] and keeps[0] == 8 and keeps[1] < 8 and report["enough"]


def test_more_than_can_be_saved_is_said():
    report = pruned(ratio=1.0, allocation="sensitivity").notes[-1]["allocation"][0]
    assert not report["enough"]


def test_latency_is_measured_and_saved():
    package = pruned(toy.plain, ratio=0.05, allocation="latency", round_to=8, batches=1)
    report = package.notes[-1]["allocation"][0]
    assert set(report["saves_ms"]) == {"0", "3", "6"} and all(
        row[next(iter(row))] == 0.0 for row in report["saves_ms"].values()
    )
    assert report["latency"]["cpu_ms"] > 0 and report["latency"]["on"] == "onnxruntime"
    assert Prune(allocation="latency").depends and not Prune().depends
    with pytest.raises(InputError, match="one thread"):
        pruned(allocation="latency", on="onnxruntime:threads=2")


def test_steps_meet_the_width_that_one_cut_meets():
    widths = [pruned(ratio=0.75, allocation="uniform", round_to=1, steps=n).notes[-1]["widths"] for n in (1, 2, 3)]
    assert widths[0] == widths[1] == widths[2] and widths[0]["0"] == [16, 4]


def test_recovery_runs_after_each_cut_but_the_last():
    package = pruned(ratio=0.5, steps=3, round_to=1, recover=Train(epochs=1, batch_size=16))
    assert len(package.notes) == 1
    assert [n["step"] for n in package.notes[0]["recover"]] == ["train", "train"]
    again = pruned(ratio=0.5, steps=3, round_to=1, recover=Recipe(Train(epochs=1, batch_size=16)))
    assert all(torch.equal(a, b) for a, b in zip(package.module.parameters(), again.module.parameters(), strict=True))
    with pytest.raises(RecipeError, match="cannot follow"):
        pruned(steps=2, recover=Quantize())


@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_single_weights_become_zero_and_stay_so(granularity):
    t = toy.task()
    package = Prune(granularity=granularity, ratio=0.5).apply(Package(t.build()), toy.context(t))
    zeros = package.notes[-1]["zeros"]
    assert set(package.sparse) == {f"{path}.weight" for path, share in zeros.items() if share > 0} != set()
    total = sum(package.module.get_parameter(p).numel() for p in package.sparse)
    gone = sum(int((package.module.get_parameter(p) == 0).sum()) for p in package.sparse)
    # N:M leaves layers whole whose inputs are no multiple of M
    assert gone / total == pytest.approx(0.5, abs=0.15)
    trained = Train(epochs=1, batch_size=16).apply(package, toy.context(t))
    assert sum(int((trained.module.get_parameter(p) == 0).sum()) for p in package.sparse) >= gone


def test_a_threshold_removes_small_weights():
    package = pruned(granularity="weight", ratio=0.0, threshold=0.05)
    weights = torch.cat([package.module.get_parameter(p).detach().flatten() for p in package.sparse])
    assert int((weights == 0).sum()) > 0 and float(weights[weights != 0].abs().min()) >= 0.05


def test_what_follows_what():
    assert Prune().makes == frozenset() and Prune(granularity="weight").makes == {"zero weights"}
    assert Prune(granularity="2:4").makes == {"zero weights", "n:m pattern"}
    Recipe(Prune(granularity="weight"), Prune()).check()
    with pytest.raises(RecipeError, match="zeros out of their groups"):
        Recipe(Prune(granularity="2:4"), Prune()).check()
    for granularity in ("channel", "2:4"):
        with pytest.raises(RecipeError, match="cannot follow"):
            Recipe(Quantize(), Prune(granularity=granularity), Distill()).check()


@pytest.mark.parametrize("granularity", ["rows", "4:4", "5:4", "0:4", "2:4:8", Choice("channel", "rows")])
def test_an_unknown_granularity_is_refused(granularity):
    with pytest.raises(InputError, match="granularity"):
        Prune(granularity=granularity)


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": 0.1},
        {"update": True},
        {"granularity": "weight", "allocation": "latency"},
        {"granularity": "2:4", "ratios": (0.1, 0.2)},
        {"allocation": "latency", "ratios": (0.1, 0.2)},
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields):
    with pytest.raises(InputError):
        pruned(**fields)


def test_random_depends_on_the_seed_alone():
    runs = [pruned(ratio=0.5, criterion="random", round_to=1, seed=s).module.state_dict() for s in (1, 1, 2)]
    same = all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    other = all(runs[0][k].shape == runs[2][k].shape and torch.equal(runs[0][k], runs[2][k]) for k in runs[0])
    assert same and not other


def test_more_ratios_than_groups_are_refused():
    with pytest.raises(InputError, match="more ratios than there are groups"):
        pruned(toy.plain, ratios=(0.5,) * 12)
