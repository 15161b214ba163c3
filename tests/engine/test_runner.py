"""What recipes share in the store."""

import json

import torch

import featherweight as fw
from featherweight.engine.runner import Runner
from featherweight.store.artifacts import ArtifactStore
from featherweight.targets.base import Target
from tests import toy


def test_steps_that_do_nothing_make_no_other_model(tmp_path):
    """A recovery after a cut of nothing is trained once, whatever the criterion of that cut."""
    runner = Runner(toy.task(epochs=1), ArtifactStore(tmp_path), seed=0)

    def recipe(criterion, drop=0, ratio=0.0):
        cuts = fw.DropBlocks(drop=drop, criterion="last"), fw.Prune(ratio=ratio, criterion=criterion, round_to=4)
        return fw.Recipe(*cuts, fw.Distill(epochs=1, batch_size=16))

    first, key = runner.model(recipe("taylor"))
    assert (
        key == runner.model(recipe("magnitude"))[1] == runner.model(fw.Recipe(fw.Distill(epochs=1, batch_size=16)))[1]
    )
    assert runner.steps - runner.reused == 2  # the original's training, and the recovery
    assert {runner.keys(recipe("taylor", 1))[-1], runner.keys(recipe("taylor", 0, 0.5))[-1]}.isdisjoint({key})
    x = next(iter(runner.task.example().values()))
    again, _ = runner.model(recipe("random"))
    assert torch.equal(first.module(torch.from_numpy(x.copy())), again.module(torch.from_numpy(x.copy())))
    file = runner.artifact(recipe("magnitude"), Target()) / "manifest.json"
    assert '"prune"' in json.dumps(json.loads(file.read_text())["recipe"])  # as it was asked for
