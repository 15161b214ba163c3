"""Measuring in a fresh process: the numbers, the limits, and every way to die."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from featherweight.errors import InputError, TargetError
from featherweight.measure import latency, probe
from featherweight.measure.run import measure
from featherweight.models.package import Package
from featherweight.targets.base import Target
from tests.targets.nets import attention, cnn, plan
from tests.waiting import GENEROUS_S, until

TARGET = Target()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """{name: folder} of a small and a large fp32 net."""
    out = {}
    for name, width in (("small", 8), ("large", 48)):
        module, example, _ = cnn(width)
        out[name] = tmp_path_factory.mktemp(name)
        TARGET.load_runtime().export(Package(module), example, None, TARGET, out[name])
    return out


@pytest.fixture
def example():
    return {"image": cnn()[1]["image"].numpy()}


def run(artifact, example, tmp_path, target=TARGET, **more):
    settings = {"reference": None, "inputs": None, "seconds": 0.5, "timeout_s": GENEROUS_S} | more
    return measure(artifact, target, example=example, workdir=tmp_path / "work", **settings)


def test_a_smaller_net_is_proven_faster(artifacts, example, tmp_path):
    rows = cnn()[2]["image"].numpy()[:37]
    (tmp_path / "inputs").mkdir()
    np.save(tmp_path / "inputs" / "image.npy", rows)
    result = run(
        artifacts["small"],
        example,
        tmp_path,
        reference=(artifacts["large"], TARGET),
        inputs=tmp_path / "inputs",
        seconds=2.0,
    )
    assert (
        latency.faster(result.speedup.to_json()) == "faster" and result.speedup.clock == "cpu" and result.speedup.n >= 6
    )
    assert result.speedup.ratio == result.speedup.cpu["ratio"] and result.speedup.wall["ratio"] > 1
    for key in ("latency_ms", "reference_ms"):
        t = getattr(result, key)
        assert 0 < t.median <= t.p90 and t.n >= 12 and t.cpu_median > 0 and 0 <= t.load <= 1
    assert 10e6 < result.peak_memory_bytes < 1e9
    outputs = np.load(result.outputs)
    session = TARGET.load_runtime().load(artifacts["small"], TARGET, 1)
    np.testing.assert_allclose(outputs, np.concatenate([session.run({"image": r[None]}) for r in rows]), atol=1e-5)
    assert result.outputs_batch == 64


def test_the_reference_against_itself_is_exactly_one(artifacts, example, tmp_path):
    result = run(artifacts["small"], example, tmp_path, reference=(artifacts["small"] / ".", TARGET))
    assert result.speedup.ratio == 1.0 and result.speedup.ci95 == (1.0, 1.0) and result.latency_ms.median > 0
    assert latency.faster(result.speedup.to_json()) == "no difference shown"


def test_alone_and_with_other_threads(artifacts, example, tmp_path):
    alone = run(artifacts["small"], example, tmp_path, seconds=0.1)
    assert alone.speedup is None and alone.reference_ms is None and alone.latency_ms.n >= 10 and alone.outputs is None
    two = Target.parse("onnxruntime:threads=2")
    result = run(artifacts["small"], example, tmp_path, target=two, reference=(artifacts["small"], TARGET), seconds=0.2)
    assert result.speedup.clock == "wall" and result.speedup.n >= 6
    with pytest.raises(InputError, match="batch"):
        run(
            artifacts["small"],
            example,
            tmp_path,
            target=Target.parse("onnxruntime:batch=2"),
            reference=(artifacts["small"], TARGET),
        )


def test_dynamic_quantization_is_judged_at_the_deployed_batch(tmp_path):
    module, example, rows = attention()
    folder = tmp_path / "artifact"
    folder.mkdir()
    TARGET.load_runtime().export(Package(module, plan=plan("int8-dynamic")), example, rows, TARGET, folder)
    (tmp_path / "inputs").mkdir()
    for name, value in rows.items():
        np.save(tmp_path / "inputs" / f"{name}.npy", value.numpy())
    result = run(folder, {k: v.numpy() for k, v in example.items()}, tmp_path, inputs=tmp_path / "inputs", seconds=0.1)
    session = TARGET.load_runtime().load(folder, TARGET, 1)
    expected = np.concatenate([session.run({k: v.numpy()[i : i + 1] for k, v in rows.items()}) for i in range(48)])
    assert result.outputs_batch == 1
    np.testing.assert_array_equal(np.load(result.outputs), expected)


def test_refusals_keep_their_words(artifacts, example, tmp_path):
    with pytest.raises(TargetError, match="no ONNX Runtime artifact"):
        run(tmp_path, example, tmp_path)
    with pytest.raises(TargetError, match="running the artifact once"):
        run(artifacts["small"], {"picture": example["image"]}, tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"\x08\x07garbage")
    with pytest.raises(TargetError, match="while loading the artifact"):
        run(broken, example, tmp_path)
    for bad in ({}, {"image": np.zeros((0, 3))}, {"../image": example["image"]}):
        with pytest.raises(InputError):
            run(artifacts["small"], bad, tmp_path)
    with pytest.raises(InputError, match="time"):
        run(artifacts["small"], example, tmp_path, seconds=0)
    (tmp_path / "inputs").mkdir()
    with pytest.raises(TargetError, match="inputs are not usable"):
        run(artifacts["small"], example, tmp_path, inputs=tmp_path / "inputs")


FAKE = """
import os, signal, time
import numpy as np
from featherweight.targets.base import Runtime, Session

class S(Session):
    def run(self, inputs):
        return np.zeros((len(inputs["image"]), 5))

class Fake(Runtime):
    def problem(self, target, plan): return None
    def export(self, package, example, calibration, target, folder): return {}
    def load(self, folder, target, batch):
        kind = (folder / "kind").read_text()
        if kind == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "exit": os._exit(7)
        if kind == "hang": time.sleep(600)
        if kind == "raise": raise ZeroDivisionError("a bug of the runtime")
        if kind == "eat": S.eaten = [np.ones(4_000_000) for _ in range(60) if not time.sleep(0.01)]
        if kind == "eat": time.sleep(600)
        return S()
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A runtime from a plug-in package that dies in the way its artifact says."""
    plugin = tmp_path / "plugin"
    (plugin / "fake_plugin-1.0.dist-info").mkdir(parents=True)
    (plugin / "fake_runtime.py").write_text(FAKE)
    (plugin / "fake_plugin-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: fake-plugin\nVersion: 1.0\n"
    )
    (plugin / "fake_plugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[featherweight.targets]\nfake = fake_runtime:Fake\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")]))

    def artifact(kind):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "kind").write_text(kind)
        return folder

    return artifact


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("segfault", "fake killed its process .SIGSEGV. while loading the artifact"),
        ("exit", "ended with code 7"),
        ("raise", "a bug of the runtime"),
    ],
)
def test_a_death_has_its_reason(kind, words, fake, example, tmp_path):
    with pytest.raises(TargetError, match=words):
        run(fake(kind), example, tmp_path, target=Target(runtime="fake"))


class HurriedClock:
    """Stands in for the `time` module: ten minutes more have passed once the probe says that it
    loads its artifact."""

    def __init__(self, work):
        self.phase = work / "phase"

    def monotonic(self):
        return time.monotonic() + 600.0 * (self.phase.exists() and "loading" in self.phase.read_text())


def test_limits_of_time_and_memory(fake, example, tmp_path, monkeypatch):
    hung, ate = (Target(runtime="fake"), fake("hang")), (Target(runtime="fake"), fake("eat"))
    with monkeypatch.context() as patch:
        patch.setattr("featherweight.measure.run.time", HurriedClock(tmp_path / "work"))
        with pytest.raises(TargetError, match="(?s)too long.*over 500 s, while loading"):
            run(hung[1], example, tmp_path, target=hung[0], timeout_s=500.0)
    with pytest.raises(TargetError, match="too much memory"):
        run(ate[1], example, tmp_path, target=ate[0], memory_bytes=300_000_000)
    assert not [
        p for p in psutil.Process().children(recursive=True) if "featherweight.measure.probe" in " ".join(p.cmdline())
    ]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_probe_ends_with_its_parent(fake, example, tmp_path):
    folder = fake("hang")
    code = (
        "import numpy as np; from pathlib import Path\n"
        "from featherweight.measure.run import measure; from featherweight.targets.base import Target\n"
        f"measure(Path({str(folder)!r}), Target(runtime='fake'), reference=None, "
        f"example={{'image': np.zeros((1, 3, 4, 4))}}, inputs=None, seconds=1.0, timeout_s=900.0, "
        f"workdir=Path({str(tmp_path / 'work')!r}))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], *[p for p in sys.path if p]])}
    parent = subprocess.Popen([sys.executable, "-c", code], env=env)
    children = []

    def started():
        children[:] = [p for p in psutil.Process(parent.pid).children() if "probe" in " ".join(p.cmdline())]
        return children or parent.poll() is not None

    until(started, "probe")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert children
    gone, alive = psutil.wait_procs(children, timeout=60)  # it would hang for ten minutes
    assert gone and not alive


def test_the_probe_imports_no_torch(artifacts, example, tmp_path):
    run(artifacts["small"], example, tmp_path, seconds=0.1)
    code = (
        "import sys; from pathlib import Path; from featherweight.measure import probe; import os, json; "
        f"f = Path({str(tmp_path / 'work' / 'request.json')!r}); "
        f"r = json.loads(f.read_text()) | {{'parent': os.getppid()}}; "
        "f.write_text(json.dumps(r)); "
        "assert probe.main(f) == 0; assert 'torch' not in sys.modules and 'onnxruntime' in sys.modules"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=GENEROUS_S)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "work" / "result.json").read_text())["latency_ms"]["n"] >= 10


class Clock:
    """Stands in for the `time` module: nothing passes but what `spin` spends, on a machine whose
    speed drifts and whose clocks are rough."""

    def __init__(self, drift=0.0, noise=0.0):
        self.wall = self.cpu = 0.0
        self.drift, self.noise, self.rng = drift, noise, np.random.default_rng(0)

    def perf_counter(self):
        return self.wall

    def process_time(self):
        return self.cpu

    def spin(self, seconds):
        spent = seconds * (1.0 + self.drift * self.wall) * (1.0 + self.noise * self.rng.random())
        self.cpu += spent
        self.wall += 2.0 * spent  # half of the processor is somebody else's


@pytest.mark.parametrize("drift", [0.0, 0.1, -0.2, 0.5])
def test_a_known_ratio_is_found(monkeypatch, drift):
    clock = Clock(drift, noise=0.3)
    monkeypatch.setattr(probe, "time", clock)
    result = probe.time_pair(lambda: clock.spin(0.0012), lambda: clock.spin(0.0004), "cpu", 3.0)
    assert result["speedup"]["cpu"]["ratio"] == pytest.approx(3.0, rel=0.02)
    low, high = result["speedup"]["ci95"]
    assert low <= 3.0 <= high and low <= result["speedup"]["ratio"] <= high and result["rounds"] >= 10
    if drift < 0.5:  # where the machine gets slower and slower, few rounds are like the first
        assert high / low < 1.05 and clock.wall < 3.0  # it ended because it was sure


class Shared(Clock):
    """A machine on which others compute at times, (from, to) by the wall clock: all is slower then,
    but not by one factor."""

    def __init__(self, *busy):
        super().__init__(noise=0.02)
        self.busy = busy

    def run(self, seconds, slowed):
        disturbed = any(start <= self.wall < end for start, end in self.busy)
        self.spin(seconds * (slowed if disturbed else 1.0))

    def pair(self, monkeypatch, seconds=1.0, **known):
        monkeypatch.setattr(probe, "time", self)
        one, two = (lambda: self.run(0.0012, 1.6)), (lambda: self.run(0.0004, 2.1))  # 3 and 2.29 times as fast
        return probe.time_pair(one, two, "cpu", seconds, **known)


def test_rounds_that_others_disturb_do_not_count(monkeypatch):
    clock = Shared(*((k / 10, k / 10 + 0.07) for k in range(40)))  # 70 % of the time
    found = clock.pair(monkeypatch)
    assert found["speedup"]["ratio"] == pytest.approx(3.0, rel=0.02)
    assert found["reference_ms"]["cpu_median"] == pytest.approx(1.2, rel=0.05)
    assert found["latency_ms"]["p90"] < 0.4 * 2 * 1.2  # of these rounds, too


def test_who_knows_how_quick_the_machine_can_be_waits_for_it(monkeypatch):
    assert Shared((0.0, 1.5)).pair(monkeypatch)["speedup"]["ratio"] == pytest.approx(3 * 1.6 / 2.1, rel=0.02)
    clock = Shared((0.0, 1.5))
    assert clock.pair(monkeypatch, quick_ms=1.2)["speedup"]["ratio"] == pytest.approx(3.0, rel=0.02)
    assert 1.5 < clock.wall < 2.5
    busy = Shared((0.0, 100.0))  # in vain: what there is counts
    assert busy.pair(monkeypatch, quick_ms=1.2)["speedup"]["ratio"] == pytest.approx(3 * 1.6 / 2.1, rel=0.02)
    assert probe.PATIENCE <= busy.wall < probe.PATIENCE + 0.5


@pytest.mark.parametrize("quick", [None, 0.9, 0.8])
@pytest.mark.parametrize("busy", [0.0, 0.7])
def test_equal_models_stay_equal_when_only_quick_rounds_count(quick, busy):
    """Choosing rounds by the time of one side alone, or more strictly by one, would favour it."""
    rng, ratios = np.random.default_rng(0), []
    for _ in range(1500):
        slow = np.where(np.repeat(rng.random(12) < busy, 5), 1.6, 1.0)  # for five rounds at a time
        times = np.exp(rng.normal(0, 0.06, (2, 60))) * slow
        kept = latency.undisturbed(times, quick)
        kept = kept if len(kept) >= latency.MIN_ROUNDS else list(range(60))
        ratios.append(np.median(times[0][kept] / times[1][kept]))
    assert np.mean(np.log(ratios)) == pytest.approx(0.0, abs=0.004)


def test_timing_ends_when_its_time_is_over(monkeypatch):
    clock = Clock(noise=8.0)
    monkeypatch.setattr(probe, "time", clock)
    result = probe.time_pair(lambda: clock.spin(0.001), lambda: clock.spin(0.001), "wall", 2.0)
    assert result["rounds"] >= latency.MIN_ROUNDS and 2.0 <= clock.wall < 2.0 * probe.PATIENCE + 0.5
    began = clock.wall
    alone = probe.time_one(lambda: clock.spin(0.001), 1.0)
    assert alone["rounds"] > 2 and 1.0 <= clock.wall - began < 1.3


def test_no_time_still_gives_an_interval(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(probe, "time", clock)
    result = probe.time_pair(lambda: clock.spin(0.001), lambda: clock.spin(0.001), "wall", 0.001)
    assert result["rounds"] == latency.MIN_ROUNDS


def test_foreign_load_counts_others_not_oneself():
    load, began = probe.ForeignLoad(), time.perf_counter()
    helper = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        until(lambda: sum(psutil.Process(helper.pid).cpu_times()[:2]) >= 1.0, "work")
        seen, elapsed = load.value(), time.perf_counter() - began
    finally:
        helper.kill()
        helper.wait()
    # the helper's second, at least; ticks are 0.01 s
    assert seen >= 0.9 / elapsed / (psutil.cpu_count() or 1)


def test_foreign_load_is_a_share_of_the_machine(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(probe, "time", clock)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    total = type(psutil.cpu_times())
    spent = dict.fromkeys(total._fields, 0.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: total(**spent))
    load = probe.ForeignLoad()
    clock.spin(5.0)  # 10 s of wall time: of 40 s of four cores others use 12, and 5 are our own
    spent |= {"user": 10.0, "system": 7.0, "idle": 23.0}
    assert load.value() == pytest.approx(12 / 40)
    if "guest" in spent:
        # guests are users already, waiting is not work
        spent |= {"guest": 2.0, "iowait": 1.0, "idle": 22.0}
        assert load.value() == pytest.approx(12 / 40)


def test_peak_memory_grows_with_what_is_held():
    before = probe.peak_memory_bytes()
    held = np.ones(30_000_000)
    assert probe.peak_memory_bytes() >= before and held.nbytes <= probe.peak_memory_bytes()
