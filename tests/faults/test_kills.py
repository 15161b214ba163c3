"""A study that is killed goes on as if it had not been: the same trials, each once."""

import hashlib
import json
import random
import shutil

import pytest

import featherweight as fw
from featherweight import registry
from tests import simulated
from tests.lean import BASELINES, reference_only

SPACE = fw.Recipe(
    fw.Prune(
        ratio=fw.Choice(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), criterion=fw.Choice("magnitude", "random"), round_to=4
    ),
    fw.Maybe(fw.Train(epochs=fw.Choice(1, 2, 3))),
    fw.Maybe(fw.Quantize()),
)
TRIALS = 9


class Killed(BaseException):
    """What no code of the study sees coming."""


def seconds(job):
    """Different for each recipe, and the same each time."""
    return (
        1.0 + hashlib.sha256(json.dumps(getattr(job, "recipe", job.kind)).encode()).digest()[0] / 64
    )  # exact in binary


def begin(out, strategy, monkeypatch, listener=None):
    """A study on a simulated clock."""
    clock = simulated.Clock()

    monkeypatch.setattr(BASELINES, reference_only)
    for name in simulated.CLOCKS:
        monkeypatch.setattr(name, clock)
    monkeypatch.setattr(simulated.ENGINE, lambda *_: simulated.Engine(clock, 1, seconds))
    budget = fw.Budget(trials=TRIALS)
    more = {"strategy": strategy, "minimize": ["size"], "constraints": [fw.max_drop(0.5)], "measure_seconds": 0.1}
    return fw.optimize(
        "tests/tasks/tiny.py", out=out, recipe=SPACE, budget=budget, workers=1, on_event=listener, **more
    )


def story(study):
    return [(t["filling"], t["state"], t["seconds"]) for t in study.trials()]


@pytest.mark.parametrize("strategy", sorted(registry.names("strategies")))
@pytest.mark.parametrize("kind", ["proposed", "finished"])
def test_killed_or_not_the_proposals_are_the_same(kind, strategy, tmp_path, monkeypatch):
    whole = story(begin(tmp_path / "whole", strategy, monkeypatch))

    heard = []

    def kill(event):
        heard.append((event["kind"], event["trial"]))
        if heard[-1] in ((kind, 3), (kind, 6)):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            begin(tmp_path / "killed", strategy, monkeypatch, kill)
    study = begin(tmp_path / "killed", strategy, monkeypatch, kill)
    assert story(study) == whole
    for told in ("proposed", "finished"):  # once each, but those that the space refused
        numbers = [trial for k, trial in heard if k == told]
        assert len(numbers) == len(set(numbers)) and len(numbers) >= TRIALS - 2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(registry.names("strategies")))
def test_forty_two_kills_at_random_moments(strategy, tmp_path, monkeypatch):
    """Of 12 strategies: five hundred. Each study is killed once or several times, at any event."""
    told: list[str] = []
    whole = story(begin(tmp_path / "whole", strategy, monkeypatch, lambda e: told.append(e["kind"])))
    rng, kills, number = random.Random(strategy), 0, 0
    while kills < 42:
        number += 1
        while True:
            killer = Killer(rng.randrange(1, len(told)) if rng.random() < 0.6 else None)
            try:
                study = begin(tmp_path / f"study-{number}", strategy, monkeypatch, killer)
                break
            except Killed:
                kills += 1
        assert story(study) == whole, f"study {number}"
        shutil.rmtree(tmp_path / f"study-{number}")


class Killer:
    """A listener that ends all at the event of this number (None: never), but for the last word."""

    def __init__(self, at):
        self.at, self.heard = at, 0

    def __call__(self, event):
        self.heard += 1
        if self.heard == self.at and event["kind"] != "close":
            raise Killed
