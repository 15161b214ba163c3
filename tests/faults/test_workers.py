"""Trials that do to their process whatever code can do: each is a failed trial with its reason, and
those after it in the same search do not feel it."""

import contextlib
import json
import os
import time
from pathlib import Path

import psutil
import pytest
import torch

from featherweight.engine import local
from featherweight.engine.kept import kept_state
from featherweight.engine.local import LocalEngine
from featherweight.engine.messages import PackageJob, Setup
from tests.lean import some
from tests.waiting import GENEROUS_S, until

TASK = '''
import os, signal, sys, time
from pathlib import Path
import numpy as np, torch
from multiprocessing.connection import Connection
from torch import nn
import featherweight as fw

HERE = Path(__file__).parent


def pipe():
    return Connection(int(sys.argv[1]))


def net():
    """Each call does what do.py says at the time."""
    exec((HERE / "do.py").read_text(), globals())
    return nn.Linear(4, 2)


def data():
    rng = np.random.default_rng(0)
    return fw.split(fw.ArraySplit({{"x": rng.normal(size=(60, 4)).astype("float32")}}, np.arange(60) % 2))


{head}
task = fw.Task(name="bad", model=net, data=data)
'''


@pytest.fixture
def engine(tmp_path):
    return _engine(tmp_path)


def _engine(tmp_path, head=""):
    (tmp_path / "task.py").write_text(TASK.format(head=head))
    (tmp_path / "do.py").write_text("pass")
    ref = {"file": str(tmp_path / "task.py"), "name": "task"}
    setup = Setup(task=ref, seed=0, device="cpu", threads=1, store=str(tmp_path / "store"), reuse=False, fingerprint="")
    return LocalEngine(setup, 1, 8 * 10**9, tmp_path / "logs")


def run(engine, tmp_path, do="pass", timeout_s=GENEROUS_S):
    """The outcome of a job whose model is built so."""
    (tmp_path / "do.py").write_text(do)
    engine.submit(PackageJob(id=do[:20], recipe={"recipe": []}, to=str(tmp_path / "to")), timeout_s)
    found = []
    until(lambda: bool(found) or found.extend(m for m in engine.wait(1.0) if m.kind != "progress"), "outcome")
    return found[0]


SAYS = "print('the last words', flush=True)\n"
BAD = {
    "a signal without a name": ("os.kill(os.getpid(), signal.SIGRTMIN + 7)", f"signal {34 + 7}"),
    "a signal": ("os.kill(os.getpid(), signal.SIGABRT)", "SIGABRT"),
    "an exit": (SAYS + "os._exit(3)", "exited with code 3: the last words"),
    "an exit while a child holds the pipe": (
        "if os.fork() == 0:\n    time.sleep(1e6)\nos._exit(3)",
        "exited with code 3",
    ),
    "bytes that are no message": ("pipe().send_bytes(b'\\xff\\xfe')", "what is no message"),
    "a message without its kind": ("pipe().send_bytes(b'{}')", "what is no message"),
    "a message of another kind": ('pipe().send_bytes(b\'{"kind": "won"}\')', "what is no message"),
    "a list": ("pipe().send_bytes(b'[1]')", "what is no message"),
    "a deep list": ("pipe().send_bytes(b'[' * 100000)", "what is no message"),
    "a length that is none": ("os.write(int(sys.argv[1]), b'\\x7f\\xff\\xff\\xff' * 3)", "what is no message"),
    "an end of the pipe": ("os.close(int(sys.argv[1])); time.sleep(1e6)", "worker"),
    "an exception": ("raise ValueError('too bad')", "too bad"),
    "an exit by exception": ("raise SystemExit(4)", "4"),
    "a long reason": ("raise ValueError('x' * 20_000_000)", "characters more]"),
    "a reason that is no text": ("raise ValueError('\\udcff \\x1b[31m')", "ValueError"),
    "an interrupt": ("raise KeyboardInterrupt", "worker exited with code 1"),
}


@pytest.mark.parametrize(
    "kind", some(BAD, ("an exit", "an end of the pipe", "bytes that are no message", "a long reason", "an exception"))
)
def test_it_is_a_failed_job_with_its_reason_and_the_next_one_is_well(kind, engine, tmp_path):
    do, words = BAD[kind]
    with contextlib.closing(engine):
        bad = run(engine, tmp_path, do)
        assert bad.kind == "failed" and words in bad.reason and len(bad.reason) <= 2 * local.REASON
        assert run(engine, tmp_path).kind == "finished"


POISON = {
    "a short stack": "sys.setrecursionlimit(60)",
    "no environment": "os.environ.clear()",
    "another folder": "os.chdir('/')",
    "a folder that is gone": "d = HERE / 'gone'\nd.mkdir()\nos.chdir(d)\nd.rmdir()",
    "double precision": "torch.set_default_dtype(torch.float64)",
    "no gradients": "torch.set_grad_enabled(False)",
    "inference mode": "torch.inference_mode().__enter__()",
    "another device": "torch.set_default_device('meta')",
    "only what is deterministic": "torch.use_deterministic_algorithms(True)",
    "many threads": "torch.set_num_threads(64)",
    "errors of NumPy": "np.seterr(all='raise')",
    "warnings that are errors": "import warnings\nwarnings.simplefilter('error')",
    "no outputs": "sys.stdout = sys.stderr = None",
    "closed outputs": "os.close(1)\nos.close(2)",
    "no path": "sys.path.clear()",
    "no modules": "[sys.modules.pop(n) for n in ('json', 'tempfile', 'numpy.random', 'shutil')]",
    "no rubbish collected": "import gc\ngc.disable()\ngc.freeze()",
    "an alarm": "signal.setitimer(signal.ITIMER_REAL, 0.05)",
    "signals that are ignored": "[signal.signal(s, signal.SIG_IGN) for s in (15, 10, 12, 1)]",
    "few files": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (24, 4096))",
    "many open files": "KEPT = [open('/dev/null') for _ in range(400)]",
    "small files": "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 10**9))",
    "a mask for files": "os.umask(0o777)",
    "a clock that stands": "time.time = time.monotonic = lambda: 0.0",
    "a sleep that returns": "time.sleep = lambda s: None",
    "no open": "import builtins\nbuiltins.open = None",
    "a thread that spins": "import threading as t\nt.Thread(target=lambda: max(iter(int, 1)), daemon=True).start()",
    "a stop": "os.kill(os.getpid(), signal.SIGSTOP)",
    "no end of calls": "f = lambda: f()\nf()",
    "an end that is caught": "import atexit\natexit.register(time.sleep, 1e6)",
    "a hook for errors": "sys.excepthook = sys.unraisablehook = None",
    "a trace": "sys.settrace(lambda *a: 1 / 0)",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", POISON)
def test_whatever_a_job_does_to_its_process_the_next_ones_are_well(kind, engine, tmp_path):
    """With the first 16 kinds, some fifty."""
    do = POISON[kind]
    with contextlib.closing(engine):
        bad = run(engine, tmp_path, do, timeout_s=20.0)
        assert bad.kind == "finished" or bad.reason, bad
        for _ in range(2):
            found = run(engine, tmp_path)
            assert found.kind == "finished", (bad.kind, bad.reason[:300], found.reason)


def test_nothing_that_a_worker_started_outlives_it(engine, tmp_path):
    """Though it was detached twice over, and the worker ended well."""
    do = f"""
for i in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path({str(tmp_path)!r}, f"child-{{i}}").write_text(str(os.getpid()))
            time.sleep(1e6)
        os._exit(0)
while len(list(Path({str(tmp_path)!r}).glob("child-*"))) < 3:
    time.sleep(0.01)
"""
    with contextlib.closing(engine):
        assert run(engine, tmp_path, do).kind == "finished"
        children = [int(p.read_text()) for p in tmp_path.glob("child-*")]
        assert len(children) == 3 and all(map(psutil.pid_exists, children))
    until(lambda: not any(_alive(pid) for pid in children), "end of the children")


def _alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_job_changes_of_its_process_is_put_back(engine, tmp_path):
    do = """
torch.set_num_threads(7)
np.seterr(all="raise")
sys.setrecursionlimit(5000)
sys.path.insert(0, "/nowhere")
os.environ["NEW"] = "1"
os.environ.pop("PATH", None)
os.chdir("/")
for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
    signal.signal(s, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 1000.0)
"""
    tell = f"""
import json
seen = [str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
    torch.get_num_threads(), np.geterr(), sys.getrecursionlimit(), sys.path, dict(os.environ), os.getcwd(),
    [str(signal.getsignal(s)) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)],
    signal.getitimer(signal.ITIMER_REAL)[0] > 0, os.getpid()]
Path({str(tmp_path / "seen")!r}).write_text(json.dumps(seen))
"""
    with contextlib.closing(engine):
        seen = []
        for script in (tell, do, tell):
            run(engine, tmp_path, script)  # which may fail by what it does to itself
            if script is tell:
                seen.append(json.loads((tmp_path / "seen").read_text()))
    for one in seen:  # which torch sets when it likes
        one[7] = {k: v for k, v in one[7].items() if not k.startswith("TORCHINDUCTOR")}
    assert seen[0] == seen[1]  # in the same process


def test_torchs_defaults_are_put_back(monkeypatch):
    monkeypatch.setenv("STAYS", "1")
    with contextlib.suppress(KeyError), kept_state(1):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(2)
        torch.set_default_device("meta")
        os.environ.clear()
        raise KeyError
    assert torch.get_default_dtype() == torch.float32 and torch.zeros(1).device.type == "cpu"
    assert torch.is_grad_enabled() and not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1 and os.environ["STAYS"] == "1"


def test_after_an_error_that_nobody_foresaw_the_worker_is_a_new_one(engine, tmp_path):
    tell = f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
    pids = []
    with contextlib.closing(engine):
        for do in ("", "", "import ctypes; ctypes.gone", ""):
            run(engine, tmp_path, tell + do)
            pids.append((tmp_path / "pid").read_text())
    assert pids[0] == pids[1] == pids[2] != pids[3]


def test_what_is_printed_without_end_is_cut(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "LOG_BYTES", 10**6)
    monkeypatch.setattr(local, "TAIL_BYTES", 1000)
    do = f"""
while not Path({str(tmp_path / "enough")!r}).exists():
    print("x" * 100_000, flush=True)
    time.sleep(0.001)
print("the last words", flush=True)
os._exit(3)
"""
    (tmp_path / "do.py").write_text(do)
    with contextlib.closing(engine):
        engine.submit(PackageJob(id=1, recipe={"recipe": []}, to=str(tmp_path / "to")), GENEROUS_S)
        log, largest, cuts, found = None, 0, 0, []
        for _ in range(10_000):
            found += [m for m in engine.wait(0.01) if m.kind != "progress"]
            log = log or next((tmp_path / "logs").glob("*.log"), None)
            if found:
                break
            size = log.stat().st_size if log else 0
            cuts += size < largest / 2
            largest = max(largest, size)
            if cuts >= 2:
                (tmp_path / "enough").touch()
                largest = 0
    assert cuts >= 2 and found[0].reason.endswith("code 3: the last words")


def test_what_each_job_printed_is_kept_by_its_name(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "PRINTED_BYTES", 1000)
    with contextlib.closing(engine):
        for name, do in [
            (7, "print('seven', flush=True)"),
            (8, ""),
            ("plain int8", "os.write(2, b'a warning')"),
            (9, "os._exit(3)"),
        ]:
            (tmp_path / "do.py").write_text(f"print('of {name}', flush=True); {do}" if do else "")
            engine.submit(PackageJob(id=name, recipe={"recipe": []}, to=str(tmp_path / "to")), GENEROUS_S)
            until(lambda: [m for m in engine.wait(1.0) if m.kind != "progress"], "outcome")
        (tmp_path / "do.py").write_text("print('x' * 5000 + ' end', flush=True)")
        engine.submit(PackageJob(id=10, recipe={"recipe": []}, to=str(tmp_path / "to")), GENEROUS_S)
        until(lambda: [m for m in engine.wait(1.0) if m.kind != "progress"], "outcome")
    text = {name: local.printed(tmp_path / "logs", name) for name in (7, 8, "plain int8", 9, 10)}
    assert set(text[7].read_text().splitlines()) == {"of 7", "seven"}  # the model is built more than once
    assert not text[8].exists() and text[7].name == "trial-7.log"
    assert "of plain int8" in text["plain int8"].read_text() and "a warning" in text["plain int8"].read_text()
    assert "of 9" in text[9].read_text()
    long = text[10].read_text()
    assert long.startswith("[what was printed before this was cut]") and long.endswith("x end\n") and len(long) < 1100


def test_a_workers_start_is_none_of_its_first_jobs_time(tmp_path, monkeypatch):
    """By a clock of the coordinator that runs 50 s while the task is loaded."""

    class Clock:
        def monotonic(self):
            return time.monotonic() + 50.0 * (tmp_path / "loaded").exists()

    monkeypatch.setattr(local, "time", Clock())
    engine = _engine(tmp_path, head=f"Path({str(tmp_path / 'loaded')!r}).touch()")
    with contextlib.closing(engine):
        (tmp_path / "do.py").write_text("pass")
        engine.submit(PackageJob(id=1, recipe={"recipe": []}, to=str(tmp_path / "to")), 30.0)
        found = []
        until(lambda: bool(found) or found.extend(m for m in engine.wait(1.0) if m.kind != "progress"), "outcome")
    assert found[0].kind == "finished" and found[0].seconds < 50.0


def test_no_process_is_left(tmp_path):
    mine = psutil.Process(os.getpid())
    assert not [p for p in mine.children(recursive=True) if "featherweight.engine.worker" in " ".join(p.cmdline())]
    assert Path(tmp_path).is_dir()
