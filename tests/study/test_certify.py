"""Which candidates are looked at on test, in which order, and which of them is the best."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from featherweight.limits import min_metric
from featherweight.proof.levels import ALPHA, FIRST
from featherweight.records import Paired
from featherweight.report.card import model_card
from featherweight.report.words import summary
from featherweight.study.certify import LEAST, chain, to_certify
from featherweight.study.clock import LOOKS
from featherweight.study.known import artifact_id
from featherweight.study.noticed import foreseen
from featherweight.study.polish import RUNGS, affordable, longer, next_finalist, remainder
from featherweight.study.race import PROCESSES, race  # as it is without the fixtures of all tests
from featherweight.study.state import StudyState
from tests.report import fake_study

RNG = np.random.default_rng(0)


def counted(lost, won, n=2000):
    drop = (lost - won) / n
    return Paired(drop, n, math.sqrt((lost + won) / n - drop**2), lost, won).to_json()


def state(*candidates, polish=0.0, minutes=None, test=2000, plain=None):
    """A study with such candidates: (speedup, lost, won of 2,000 on validation). plain: those
    of plain int8, which is 1.5x fast."""
    settings = fake_study.config(limits=[fake_study.max_drop(0.01)]) | {"polish": polish}
    settings["budget"] |= {"minutes": minutes}
    info = fake_study.info()
    info["splits"]["sizes"] |= {"valid": 2000, "test": test}
    log = [
        {"kind": "study", "config": settings},
        {"kind": "info", "info": info},
        {"kind": "open"},
        {"kind": "baseline", "entry": entry(None, "baseline", 1.0), "steps": 1, "reused": 0},
    ]
    if plain is not None:
        told = entry(None, "plain int8", 1.5, counted(*plain))
        log.append({"kind": "baseline", "entry": told, "steps": 1, "reused": 0})
    for number, (speed, lost, won) in enumerate(candidates):
        recipe = {"recipe": [{"prune": {"ratio": 0.5}}, {"distill": {"epochs": 2}}, {"quantize": {}}]}
        told = entry(number, f"candidate {number}", speed, counted(lost, won), recipe=recipe)
        proposed = {"filling": {"prune.ratio": number / 100}, "note": {}, "recipe": recipe, "target": "onnxruntime"}
        log += [
            {"kind": "proposed", "trial": number, **proposed},
            {"kind": "finished", "trial": number, "entry": told, "steps": 3, "reused": 0, "seconds": 25.0},
        ]
    return StudyState().fold({"trial": None, "time": 1000.0 + i, **e} for i, e in enumerate(log))


def entry(trial, label, speed, paired=None, **more):
    lost = 0.0 if paired is None else paired["drop"]
    size = int(600_000 / speed)
    return fake_study.entry(RNG, trial, label, 0.95 - lost, speed, size, paired=paired, **more).to_json()


def looked(study, e, verdict, drop=0.0):
    certificate = {
        "drop": drop,
        "ci95": [drop - 0.005, drop + 0.005],
        "n": 2000,
        "verdict": verdict,
        "chance": e.chance,
    }
    event = {"kind": "certified", "artifact": artifact_id(e), "certificate": certificate, "entry": {}, "trial": None}
    study.apply({**event, "time": 5000.0})


def test_a_drop_inside_the_floor_is_feasible_only_if_it_can_probably_be_proven():
    study = state((2.0, 8, 8), (3.0, 22, 8), (4.0, 40, 4))
    sure, unsure, broken = (t.entry for t in study.trials)
    assert sure.feasible and sure.chance > 0.9
    assert unsure.paired.drop < 0.01 and not unsure.feasible and 0 < unsure.chance < 0.5
    assert [v["constraint"] for v in unsure.violations] == ["drop <= 0.01"]
    assert broken.paired.drop > 0.01 and broken.chance < 0.01
    violations = [t.violation for t in study.trials]
    assert violations[0] == 0.0 < violations[1] < violations[2]


def test_looks_go_by_chance_and_baselines_are_among_them():
    study = state((2.0, 8, 8), (3.0, 18, 8), (2.5, 12, 8), (4.0, 60, 4), plain=(1, 4))
    order = to_certify(study)
    assert [e.label for e in order] == ["plain int8", "candidate 0", "candidate 2", "candidate 1"]  # not 3: hopeless
    assert all(e.chance >= LEAST for e in order)
    # what test says of the first does not change the order of the others
    looked(study, order[0], "refuted", 0.02)
    assert [e.label for e in to_certify(study)] == [e.label for e in order[1:]]


@pytest.mark.parametrize("verdict", ["certified", "not certifiable", "refuted"])
def test_a_study_that_goes_on_looks_in_the_order_that_validation_gave(verdict):
    """Whatever test said of those before, and though what they dominated would stand on a front
    without them."""
    study = state((2.0, 8, 8), (1.9, 9, 8), (3.0, 18, 8), (2.9, 19, 8), (2.5, 12, 8), plain=(1, 4))
    order = to_certify(study)
    assert len(order) > 2
    for i, e in enumerate(order):
        looked(study, e, verdict, 0.02)
        assert [one.label for one in to_certify(study)] == [one.label for one in order[i + 1 :]]


def test_what_is_worse_and_surer_is_looked_at_first_though_it_is_on_no_front():
    study = state((2.0, 14, 8), plain=(14, 8))  # plain int8 is as right and slower, so not on the front
    searched, plain = study.trials[0].entry, study.baselines["plain int8"]
    assert plain not in study.front()
    searched.paired = dataclasses.replace(searched.paired, lost=20, won=14)  # as right, but differs more
    study._judge(searched)
    assert LEAST < searched.chance < plain.chance
    assert to_certify(study) == [plain, searched]
    looked(study, plain, "certified")
    looked(study, searched, "not certifiable")
    assert study.best() is plain


def test_a_sequence_of_looks_is_that_of_which_most_is_expected():
    """int8, two cuts of the same training, the finalist and a dearer one, as a demo had them."""
    seen = [(0.86, 0.87), (0.67, 1.475), (0.67, 1.45), (0.57, 1.87), (0.31, 2.02)]
    assert chain(seen) == [0, 3, 4]

    def worth(order):
        left, gained, total = 1.0, 0.0, 0.0
        for i in order:
            left *= seen[i][0]
            total += left * (seen[i][1] - gained)
            gained = seen[i][1]
        return total

    every = [o for n in range(1, 6) for o in itertools.combinations([0, 1, 2, 3, 4], n) if o[1:2] != (2,) or 1 not in o]
    best = max((o for o in every if all(seen[a][1] < seen[b][1] for a, b in itertools.pairwise(o))), key=worth)
    assert list(best) == chain(seen)
    assert chain([]) == [] and chain([(0.9, -0.1), (0.0, 3.0)]) == [] and chain([(0.5, 1.0), (0.5, 2.0)]) == [1]


def test_more_than_can_be_looked_at_are_thinned_where_chances_are_alike():
    study = state(*((2.0 + k / 10, 8 + k // 3, 8) for k in range(3 * LOOKS)))
    order = to_certify(study)
    assert len(order) == LOOKS == len({id(e) for e in order})
    turns = [b.chance > a.chance for a, b in itertools.pairwise(order)]
    assert sum(turns) == 1  # those from which most is expected, then the others: each surest first
    assert max(e.speedup.ratio for e in order) == max(
        t.entry.speedup.ratio for t in study.trials if t.entry.chance >= LEAST
    )


def test_a_certificate_passes_its_level_on_and_a_failure_does_not():
    study = state((2.0, 8, 8), (3.0, 12, 8))
    first, second = to_certify(study)
    assert study.level == pytest.approx(ALPHA * FIRST)
    looked(study, first, "certified")
    assert study.level > ALPHA * FIRST
    study = state((2.0, 8, 8), (3.0, 12, 8))
    looked(study, to_certify(study)[0], "not certifiable")
    assert study.level < ALPHA * (1 - FIRST)


def test_the_best_is_certified_and_never_refuted():
    study = state((2.0, 8, 8), (3.0, 10, 8), (4.0, 12, 8))
    one, two, three = (t.entry for t in study.trials)
    assert study.best() is three  # by score, while nothing was looked at
    looked(study, one, "certified")
    looked(study, two, "certified", 0.004)
    looked(study, three, "refuted", 0.02)
    assert study.best() is two and not three.feasible
    assert "chance" in three.violations[0]
    alone = state((4.0, 12, 8))
    looked(alone, alone.trials[0].entry, "refuted", 0.02)
    assert alone.best() is None and alone.nearest() is alone.trials[0].entry


def test_a_baseline_that_none_of_the_candidates_beats_is_the_best():
    study = state((1.2, 8, 8), plain=(1, 4))
    plain, found = study.baselines["plain int8"], study.trials[0].entry
    assert study.best() is plain and study.ranked()[0] is plain
    looked(study, found, "certified", 0.001)
    assert study.best() is found  # of what is certified
    looked(study, plain, "certified", 0.0)
    assert study.best() is plain
    assert state((1.7, 8, 8), plain=(1, 4)).best().label == "candidate 0"
    assert state((1.7, 60, 8), plain=(1, 4)).best().label == "plain int8"  # which alone meets the limits
    elsewhere = state((1.2, 8, 8), plain=(1, 4))
    elsewhere.baselines["plain int8"].target = "openvino"  # where nobody asked for
    assert elsewhere.best().label == "candidate 0"


def test_of_those_as_good_by_the_objectives_the_best_has_the_least_error():
    study = state((2.003, 8, 8), (2.0, 4, 8), (1.9, 0, 8))
    hasty, finished, slow = (t.entry for t in study.trials)
    assert study.best() is finished and study.ranked() == [hasty, finished, slow]
    looked(study, hasty, "certified")
    assert study.best() is hasty
    looked(study, finished, "certified")
    looked(study, slow, "certified")
    assert study.best() is finished


def test_certified_although_it_was_unlikely_is_feasible():
    study = state((3.0, 22, 8))
    unsure = study.trials[0].entry
    assert not unsure.feasible
    looked(study, unsure, "certified", 0.001)
    assert unsure.feasible and study.best() is unsure


def test_milliseconds_are_the_baselines_divided_by_the_speedup():
    study = state((2.0, 8, 8))
    found, base = study.trials[0].entry, study.baseline
    assert found.latency_ms.median == pytest.approx(base.latency_ms.median / found.speedup.ratio)


def test_a_fresh_race_replaces_the_speed_that_it_was_chosen_by():
    study = state((2.0, 8, 8))
    found = study.trials[0].entry
    told = {
        "latency_ms": found.latency_ms.to_json(),
        "speedup": {**found.speedup.to_json(), "ratio": 1.8, "ci95": [1.7, 1.9]},
    }
    study.apply({"kind": "raced", "artifact": artifact_id(found), **told, "trial": 0, "time": 6000.0})
    assert found.speedup.ratio == 1.8 and study.raced == {artifact_id(found): 1}
    assert found.latency_ms.median == pytest.approx(study.baseline.latency_ms.median / 1.8)


def test_what_the_last_race_demotes_leaves_its_place_to_one_that_is_timed_anew(monkeypatch):
    monkeypatch.setattr("featherweight.study.race.PROCESSES", PROCESSES)
    study = state((2.0, 12, 8), (1.9, 4, 8))
    one, two = (t.entry for t in study.trials)
    looked(study, one, "certified")
    looked(study, two, "certified")
    jobs = Timings(study, [2.0, 1.9, *[1.2] * 5, *[1.8] * 5])
    race(jobs)
    assert study.best() is two and two.speedup.ratio == pytest.approx(1.8) and not jobs.ratios
    assert study.settled == {artifact_id(one), artifact_id(two)}
    race(jobs)  # nothing is left to time
    assert not jobs.warned


class Timings:
    """Jobs that only time, one ratio after the other; where there is none, the job fails."""

    def __init__(self, study, ratios):
        self.log, self.clock = self, SimpleNamespace(remaining=lambda: 1000.0)
        self.state, self.ratios, self.warned = study, list(ratios), []
        self.stop, self.config = SimpleNamespace(asked=False), study.begun

    def trial_job(self, recipe, target, label, **more):
        return label

    def run_one(self, job, time_s, within_s):
        if not self.ratios:
            return SimpleNamespace(kind="failed", reason="the process died")
        found = self.state.trials[0].entry
        told = {"ratio": self.ratios.pop(0), "ci95": [0.5, 3.0], "clock": "cpu", "n": 20}
        return SimpleNamespace(
            kind="finished", result={"entry": {"latency_ms": found.latency_ms.to_json(), "speedup": told}}
        )

    def record(self, kind, body, trial=None):
        self.state.apply({"kind": kind, "trial": trial, "time": 7000.0, **({"name": "race"} | body)})

    def warn(self, text, trial):
        self.warned.append(text)


@pytest.mark.parametrize(
    "ratios, together", [((1.5, 1.8, 1.2, 1.6, 1.3), 1.4645), ((1.5, 1.8), 1.643), ((1.5,), 1.5), ((), 2.0)]
)
def test_the_best_is_timed_again_in_several_processes(ratios, together, monkeypatch):
    monkeypatch.setattr("featherweight.study.race.PROCESSES", PROCESSES)
    study = state((2.0, 8, 8))
    jobs = Timings(study, ratios)
    race(jobs)
    assert study.trials[0].entry.speedup.ratio == pytest.approx(together, abs=0.001)
    assert bool(jobs.warned) == (len(ratios) < PROCESSES) and study.raced == (
        {artifact_id(study.best()): 1} if ratios else {}
    )


def test_a_failed_recovery_counts_its_epochs():
    study = state((3.0, 30, 8), (2.0, 8, 8), polish=3 / 4)
    told = {"trial": 0, "rung": 1, "epochs": 6, "reason": "it died", "seconds": 9.0}
    before = affordable(study, study.trials[1].entry, study.trials[1], math.inf, 3 / 4, None)
    study.apply({"kind": "unpolished", **told, "time": 6000.0})
    assert before == 6 and affordable(study, study.trials[1].entry, study.trials[1], math.inf, 3 / 4, None) == 6
    study.apply({"kind": "unpolished", **told, "trial": 1, "time": 6001.0})
    assert affordable(study, study.trials[1].entry, study.trials[1], math.inf, 3 / 4, None) == 0


def test_the_nearest_is_near_as_it_was_measured():
    study = state((3.0, 30, 8), (2.0, 8, 60))
    study.constraints.append(fake_study.max_latency("0.1x"))
    for trial in study.trials:
        study._judge(trial.entry)
    first, second = (t.entry for t in study.trials)
    assert first.chance < second.chance and study.nearest() is first  # whose drop holds, and can hardly be proven


def test_entries_of_one_graph_share_one_speed():
    study = state((2.0, 8, 8))
    for number, speed in ((1, 1.9), (2, 2.1)):
        recipe = {"recipe": [{"prune": {"ratio": 0.5}}]}
        told = entry(number, f"equal {number}", speed, counted(8, 8), recipe=recipe, graph="g")
        proposed = {"filling": {"prune.ratio": number / 10}, "note": {}, "recipe": recipe, "target": "onnxruntime"}
        study.apply({"kind": "proposed", "trial": number, **proposed, "time": 3000.0})
        finished = {"entry": told, "steps": 3, "reused": 0, "seconds": 25.0}
        study.apply({"kind": "finished", "trial": number, **finished, "time": 3001.0})
    one, two = (study.trials[n].entry for n in (1, 2))
    assert one.speedup == two.speedup and one.speedup.ratio == pytest.approx(math.sqrt(1.9 * 2.1))
    assert one.speedup.ci95[0] < 1.93 and one.latency_ms.median == pytest.approx(two.latency_ms.median)
    assert study.trials[0].entry.speedup.ratio == 2.0  # another graph, or not known


# --- a floor of the metric itself ---------------------------------------------------------------


def reaching(*wrong, floor=0.96, best=1.0):
    """A study with that floor whose baseline and candidates have so many of 2,000 samples wrong."""

    def alone(count):
        return Paired(count / 2000, 2000, math.sqrt(count / 2000), count, 0, best=best).to_json()

    settings = fake_study.config(limits=[min_metric(floor)]) | {"polish": 0.0}
    info = fake_study.info()
    info["splits"]["sizes"] |= {"valid": 2000, "test": 2000}
    told = {"entry": entry(None, "baseline", 1.0, alone(wrong[0])), "steps": 1, "reused": 0}
    log = [{"kind": "study", "config": settings}, {"kind": "info", "info": info}, {"kind": "open"}]
    log.append({"kind": "baseline", **told})
    for number, count in enumerate(wrong[1:]):
        recipe = {"recipe": [{"prune": {"ratio": 0.5}}]}
        told = entry(number, f"candidate {number}", 2.0, alone(count), recipe=recipe)
        log += [
            {"kind": "proposed", "trial": number, "filling": {}, "note": {}, "recipe": recipe, "target": "onnxruntime"},
            {"kind": "finished", "trial": number, "entry": told, "steps": 1, "reused": 0, "seconds": 1.0},
        ]
    return StudyState().fold({"trial": None, "time": 1000.0 + i, **e} for i, e in enumerate(log))


def test_a_floor_of_the_metric_is_shown_of_the_candidate_alone():
    study = reaching(44, 50, 74, 120)
    sure, unsure, broken = (t.entry for t in study.trials)
    assert sure.feasible and sure.chance > 0.9 and not unsure.feasible and 0.0 < unsure.chance < 0.5
    assert broken.chance < 0.01 and study.floor == "metric" and study.to_show(sure) == (None, 0.96)
    assert study.lacking == pytest.approx(44 / 2000)
    # a baseline that is better or worse changes nothing
    assert reaching(2, 50, 74, 120).trials[1].entry.chance == unsure.chance
    certificate = {"drop": 0.0, "ci95": [0, 0], "n": 2000, "verdict": "refuted", "min_metric": 0.96, "value": 0.95}
    event = {"kind": "certified", "artifact": artifact_id(sure), "certificate": certificate, "entry": {}}
    study.apply({**event, "trial": None, "time": 5000.0})
    assert not sure.feasible and study.trials[0].entry.violations[0]["chance"] == 0.0
    assert study.front_json()["proof"]["as_good"] == pytest.approx(1 - 44 / 2000)


def test_a_study_begun_before_takes_such_a_floor_for_a_drop():
    before = reaching(44, 50, floor=0.9, best=None)
    assert not before.alone and reaching(44, 50).alone
    late = dataclasses.replace(before.trials[0].entry.paired, best=1.0)  # of code in between
    assert before.proof(before.trials[0].entry, late).quantity == "metric" and before._alone(late) is None
    assert before.to_show(before.trials[0].entry) == (pytest.approx(before.baseline.metric.value - 0.9), None)


def test_of_both_floors_the_drop_is_certified():
    study = state((2.0, 8, 8), (2.0, 22, 8))
    study.constraints.append(min_metric(0.945))
    assert study.floor == "drop" and study.to_show(study.trials[0].entry) == (0.01, None)
    study._judge(study.trials[1].entry)
    assert [v["constraint"] for v in study.trials[1].entry.violations] == ["drop <= 0.01", "metric >= 0.945"]
    assert "chance" not in study.trials[1].entry.violations[1]


# --- longer recovery ----------------------------------------------------------------------------


def test_the_finalist_is_the_fastest_that_may_yet_be_proven():
    study = state((1.3, 8, 8), (3.0, 30, 8), (1.9, 200, 8), polish=1 / 3, minutes=10)
    found, epochs = next_finalist(study, 300.0, 1 / 3, 10)
    assert found.label == "candidate 1" and epochs == 6  # three times the two epochs that it had
    longer_ = longer(fake(found.recipe), epochs)
    assert [s.kind for s in longer_.steps] == ["prune", "distill", "distill", "quantize"]
    assert [s.epochs for s in longer_.steps[1:3]] == [2, 6]


def test_no_finalist_without_time_recovery_or_hope():
    study = state((3.0, 30, 8), polish=1 / 3, minutes=10)
    assert next_finalist(study, 3.0, 1 / 3, 10) is None
    for rung in range(1, RUNGS + 1):
        told = entry(0, "longer", 3.0, counted(30, 8), rung=rung, recipe=study.trials[0].recipe)
        event = {"kind": "polished", "trial": 0, "rung": rung, "epochs": 6, "entry": told, "steps": 3, "reused": 0}
        study.apply({**event, "seconds": 9.0, "time": 6000.0 + rung})
    assert next_finalist(study, 1e6, 1 / 3, 10) is None  # it had them all
    study = state((0.9, 8, 8), polish=1 / 3, minutes=10)
    assert next_finalist(study, 1e6, 1 / 3, 10) is None  # nothing is gained by it


def test_without_minutes_the_share_is_counted_in_epochs():
    study = state((3.0, 30, 8), (2.0, 8, 8), polish=1 / 2)
    trial = study.trials[0]
    assert affordable(study, trial.entry, trial, math.inf, 1 / 2, None) == 0  # 2 + 2 epochs were searched, 6 are wanted
    assert affordable(study, trial.entry, trial, math.inf, 3 / 4, None) == 6


def test_what_longer_recovery_leaves_is_learnt():
    study = state((3.0, 30, 10), polish=1 / 3, minutes=10)
    assert remainder(study) == pytest.approx(study.RECOVERED)
    told = entry(0, "longer", 3.0, counted(30, 10), rung=1, recipe=study.trials[0].recipe)
    event = {"kind": "polished", "trial": 0, "rung": 1, "epochs": 6, "entry": told, "steps": 3, "reused": 0}
    study.apply({**event, "seconds": 9.0, "time": 6000.0})
    assert remainder(study) == pytest.approx((0.005 + 0.01) / 0.02)  # all of one drop of a point, half of another


def test_strategies_are_told_of_what_longer_recovery_will_leave():
    plain, polished = state((3.0, 24, 8)), state((3.0, 24, 8), polish=1 / 3)
    assert 0 <= polished.trials[0].violation < plain.trials[0].violation
    assert not polished.trials[0].entry.feasible  # what is said of it goes by what was measured


def fake(recipe):
    from featherweight.recipe import Recipe

    return Recipe.from_json(recipe)


def test_an_entry_survives_its_json():
    found = state((2.0, 8, 8)).trials[0].entry
    assert dataclasses.asdict(type(found).from_json(found.to_json())) == dataclasses.asdict(found)


def test_a_certified_entry_stays_beside_a_better_one_that_is_not():
    study = state((2.0, 8, 8), (3.0, 8, 8))
    slow, fast = (t.entry for t in study.trials)
    assert study.front() == [fast]  # as good, and faster
    looked(study, slow, "certified")
    looked(study, fast, "not certifiable")
    assert slow in study.front() and study.best() is slow
    assert fast.feasible and fast.chance > 0.5  # what test could not show is as likely as it was


def test_what_is_told_of_the_search_is_the_one_that_would_be_best():
    """Of two that score the same, the one that errs less."""
    study = state((2.0, 30, 8), (2.0, 8, 8))
    for t in study.trials:
        t.entry.feasible = True
    assert study.searched() is study.trials[1].entry


def test_nothing_is_announced_that_is_not_timed():
    study = state((2.0, 8, 8))
    told = []
    log = SimpleNamespace(state=study, record=lambda kind, body, **more: told.append(kind))
    clock = SimpleNamespace(remaining=lambda: 1.0)
    race(SimpleNamespace(log=log, clock=clock, config=study.begun, stop=SimpleNamespace(asked=False)))
    assert told == []


def test_classes_of_which_a_split_has_no_sample_are_told():
    study = state((2.0, 8, 8))
    counts = {"a": {"train": 9, "valid": 2, "test": 3}, "b": {"train": 5, "valid": 1}, "c": {"train": 5, "test": 1}}
    study.info["splits"]["classes"] = counts
    front = study.front_json()
    assert front["unseen_classes"] == {"test": ["b"], "valid": ["c"]}
    said = " ".join(summary(front))
    assert "The test split has no sample of b: certificates say nothing of them." in said
    assert "The valid split has no sample of c" in said
    card = model_card(front, front["best"], study.info, study.begun.to_json())
    assert "test split has no sample of b" in card


def test_an_original_under_the_floor_is_said_when_it_is_known():
    study = state((2.0, 8, 8))
    assert foreseen(study) == []
    study.constraints = [min_metric(0.97)]
    assert "the original itself has accuracy 95.0 %, under the floor of 97.0 %" in foreseen(study)


def test_what_cannot_be_proven_of_graded_values_is_said_after_the_baselines():
    study = state((2.0, 8, 8), plain=(1, 4))
    study.info["metric"] = {"name": "mse", "right_or_wrong": False}
    graded = Paired(0.0, 2000, 0.05, cost=50.0)
    for e in study.baselines.values():
        e.paired = graded
    for t in study.trials:
        t.entry.paired = graded
    (said,) = foreseen(study)
    assert "ask for a floor over that, or test on more samples" in said
