"""What crosses between a study and its workers comes back as it was."""

import json

import pytest

import featherweight as fw
from featherweight.engine.jobs import JOBS
from featherweight.engine.messages import (
    CertifyJob,
    Made,
    Message,
    PackageJob,
    RelaxJob,
    RungPlan,
    Setup,
    TrialJob,
    timed_out,
)

MADE = Made("runs/a", "onnxruntime:threads=2", "out.npy")
TRIAL = {
    "recipe": {"recipe": []},
    "target": "onnxruntime",
    "label": "x",
    "trial": 3,
    "filling": {"a": 0.1},
    "seconds": 2.0,
    "timeout_s": 9.0,
    "keep": "k",
}
JOB_EXAMPLES = [
    TrialJob(id=3, **TRIAL, reference=None),
    TrialJob(
        id=3,
        **TRIAL,
        reference=MADE,
        screen=(fw.max_params("1k"), fw.max_latency("0.5x")),
        rungs=RungPlan((0.25, 1.0), (0.25,), "c.pt"),
    ),
    CertifyJob(baseline=MADE, candidate=MADE, max_drop=0.01, timeout_s=60.0, level=0.05),
    PackageJob(recipe={"recipe": []}, to="best"),
    RelaxJob(net={"mlp": {}}, settings={"method": "darts"}, seed=1),
]
OTHERS = [
    Setup(task=None, seed=0, device="cpu", threads=1, store="s", reuse=True, fingerprint=""),
    Message(kind="failed", id=3, reason="r", error="OverLimits", over={"size": {"value": 2.0}}, violation=0.5),
    Message(kind="report", epoch=0.25, of=4, score=-0.9),
]


@pytest.mark.parametrize("job", JOB_EXAMPLES, ids=lambda job: job.kind)
def test_jobs(job):
    data = json.loads(json.dumps(job.to_json()))
    kind, _ = JOBS[data.pop("job")]
    back = kind.from_json(data)
    assert back == job


@pytest.mark.parametrize("plain", OTHERS, ids=lambda plain: type(plain).__name__)
def test_others(plain):
    assert type(plain).from_json(json.loads(json.dumps(plain.to_json()))) == plain


def test_every_kind_of_job_has_an_example():
    assert {job.kind for job in JOB_EXAMPLES} == set(JOBS)


def test_a_measurement_that_took_too_long_is_out_of_time_like_a_job_that_did(tmp_path, monkeypatch):
    from featherweight.errors import TargetError
    from featherweight.measure import run
    from featherweight.targets.base import Target

    monkeypatch.setattr(run, "POLL_S", 0.01)
    with open(tmp_path / "log", "wb") as log, pytest.raises(TargetError) as e:
        run._supervised(tmp_path, log, Target(), 0.0, None)
    assert timed_out(f"TargetError: {e.value}") and timed_out("time limit: it was still running after 26 s")
    assert not timed_out("ValueError: no such layer")
