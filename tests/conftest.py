import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread costs more than it brings

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's artifact store."""
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path_factory.mktemp("store")))
