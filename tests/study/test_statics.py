"""Limits that a description settles: what a later step does to the structure, as it states itself,
decides whether they are sure."""

from dataclasses import dataclass

import pytest

import featherweight as fw
from featherweight import registry
from featherweight.limits import Constraint
from featherweight.recipe import Candidate, Recipe, Shape, Transform, stated
from featherweight.study.statics import Statics
from featherweight.transforms.base import Trained

NET = fw.ConvNet(in_channels=1, classes=4, stem=8, depths=(1,), widths=(8,))


@dataclass(frozen=True)
class NewTraining(Trained):
    """A plug-in's training: says nothing, and need not."""


@dataclass(frozen=True)
class NewStep(Transform):
    """A plug-in's step that does not know that it could say something."""


@dataclass(frozen=True)
class Steady(Transform):
    shape = Shape.KEEPS


@dataclass(frozen=True)
class Shrinking(Transform):
    shape = Shape.FIELDS


@dataclass(frozen=True)
class Growing(NewTraining):
    """A training that says that it is no ordinary one."""

    shape = Shape.WEIGHTS


@dataclass(frozen=True)
class Typo(Transform):
    shape = "keeps"


def refused(*later, most=1000.0):
    statics = Statics((1, 8, 8), 300, [Constraint("params", most)])
    return statics.refuses(Candidate(Recipe(fw.Build(NET), fw.Train(), *later), "onnxruntime"))


SURE = [
    (),
    (NewTraining(),),
    (Steady(), NewTraining()),
    (fw.Quantize(),),
    (fw.Qat(),),
    (fw.MixedPrecision(),),
    (fw.Prune(granularity="2:4"), fw.Train()),
    (fw.Gate(fw.Prune(granularity="weight"), max_drop=0.1, recover=NewTraining()),),
    (fw.Gate(fw.Quantize(), knob="calibrate", values=("minmax", "mse")),),
]
OPEN = [
    (NewStep(),),
    (Steady(), NewStep(), fw.Train()),
    (Shrinking(),),
    (Growing(),),
    (fw.Prune(),),
    (fw.Prune(allocation="uniform"),),
    (fw.Prune(granularity="weight", steps=2, recover=Shrinking()),),
    (fw.Factorize(),),
    (fw.DropBlocks(criterion="last"),),
    (fw.CutRandomly(),),
    (fw.Gate(fw.Prune(), max_drop=0.1),),
    (fw.Gate(fw.Prune(granularity="weight"), max_drop=0.1, recover=NewStep()),),
    (fw.Gate(fw.Prune(granularity="weight"), knob="granularity", values=("weight", "channel")),),
]


@pytest.mark.parametrize("later", SURE, ids=str)
def test_what_keeps_the_structure_leaves_the_limit_sure(later):
    assert "params <= 1000: it has" in refused(*later) and refused(*later, most=1e6) is None


@pytest.mark.parametrize("later", OPEN, ids=str)
def test_what_may_shrink_the_net_is_not_refused_for_what_it_may_shrink(later):
    assert refused(*later) is None


def test_a_shape_in_plain_text_is_refused_with_the_words_that_there_are():
    assert "typo states its shape in a word that is not in the vocabulary" in refused(Typo(), most=1e6)
    with pytest.raises(fw.FeatherweightError, match="vocabulary") as e:
        Recipe(Typo()).check()
    assert e.value.got == "'keeps'" and "Shape.KEEPS, Shape.FIELDS, Shape.FORMATS, Shape.WEIGHTS" in e.value.allowed


def test_every_step_of_ours_says_what_it_does():
    for kind in registry.names("transforms"):
        assert isinstance(stated(registry.find("transforms", kind)()), Shape), kind


def test_what_depends_on_fields_is_asked_of_the_fields():
    def shape(step):
        return str(step.shape)

    # one cut: nothing recovers
    assert shape(fw.Prune(allocation="uniform", recover=fw.Prune())) == "fields"
    assert shape(fw.Prune(allocation="uniform", steps=2, recover=fw.Train())) == "fields"
    assert shape(fw.Prune(allocation="uniform", steps=2, recover=Recipe(fw.Train(), fw.DropBlocks()))) == "weights"
    assert [shape(fw.DropBlocks(criterion=c)) for c in ("last", "spaced", "random", "influence")] == [
        "fields",
        "fields",
        "weights",
        "weights",
    ]
    assert [shape(fw.Factorize(rank_by=r)) for r in ("ratio", "energy", "latency")] == ["fields", "weights", "weights"]
    assert [shape(fw.Prune(allocation=a)) for a in ("global", "sensitivity", "latency")] == ["weights"] * 3
    assert (
        shape(fw.Prune(granularity="weight")) == shape(fw.Distill()) == "keeps"
        and shape(fw.Gate(fw.Quantize(), knob="alpha")) == "formats"
    )
