import os
import sys

from tests.lean import BASELINES, reference_only

# tiny models: a second thread costs more than it brings
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nor do threads that spin while another test computes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# a test that imports openvino by itself would have it report from then on,
# by a process for each export
sys.modules["openvino_telemetry"] = None

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Files that run whole studies or export dozens of nets, the longest first: no worker begins with
# one of them when the others are done.
LONG = (
    "test_study",
    "test_readme",
    "test_extending",
    "test_phases",
    "test_rungs",
    "test_search",
    "test_local",
    "test_plans",
    "test_runtimes",
)


def pytest_collection_modifyitems(items):
    rank = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def fresh_torch():
    """Nets are initialised from torch's global generator: the same ones in whatever order the
    tests run, and on whichever worker. A runtime that was loaded with two threads leaves
    torch with two."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup():
    fresh_torch()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    fresh_torch()


@pytest.fixture(autouse=True, scope="session")
def small_machine():
    """A study has one worker, with one thread, unless it asks for more: what it proposes does not
    depend on this machine's processors. Its best is timed once more."""
    from tests.lean import PROCESSES, one_processor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", one_processor)
        patch.setattr(PROCESSES, 1)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_users_store(tmp_path_factory):
    """Neither does what tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path_factory.mktemp("store")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's artifact store, or another test's."""
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def one_baseline(monkeypatch):
    """Studies measure the original on the reference runtime only."""
    monkeypatch.setattr(BASELINES, reference_only)
