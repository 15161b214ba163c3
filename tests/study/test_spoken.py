"""What a study says in a program: lines, a notebook's view, or Python's log."""

import logging
import sys
import types

import pytest

from featherweight.report.console import SafeConsole
from featherweight.study.spoken import NotebookView, notebook_display, spoken
from tests.report.fake_study import events

WARNING = {"kind": "warning", "trial": None, "text": "the data are odd"}


def tell(tmp_path, on_event=None, verbose=None):
    with spoken(on_event, verbose, tmp_path, 0.0) as listener:
        listener(WARNING)


def test_it_speaks_where_nobody_listens(tmp_path, capsys, caplog):
    tell(tmp_path)
    assert "the data are odd" in capsys.readouterr().err


def test_it_is_silent_where_somebody_listens(tmp_path, capsys):
    heard = []
    tell(tmp_path, heard.append)
    assert heard == [WARNING] and capsys.readouterr().err == ""


def test_it_does_both_if_asked(tmp_path, capsys):
    heard = []
    tell(tmp_path, heard.append, True)
    assert heard == [WARNING] and "the data are odd" in capsys.readouterr().err


def test_without_words_pythons_log_hears_of_warnings(tmp_path, capsys, caplog):
    with caplog.at_level(logging.INFO, "featherweight"):
        tell(tmp_path, verbose=False)
    assert capsys.readouterr().err == "" and "the data are odd" in caplog.text


class Handle:
    def __init__(self):
        self.shown = []

    def update(self, shown):
        self.shown.append(shown._repr_html_())


def test_a_notebooks_view_is_one_output_that_is_drawn_again(tmp_path):
    handle, calls = Handle(), []

    def display(shown, display_id):
        calls.append(display_id)
        return handle

    with NotebookView(display, SafeConsole(stderr=True), tmp_path, 0.0) as view:
        for event in events():
            view(event)
    assert calls == [True] and 1 <= len(handle.shown) <= 3
    assert handle.shown[-1].startswith("<pre>") and "trial" in handle.shown[-1] and "<script" not in handle.shown[-1]


def test_a_kernel_is_known_by_what_it_has(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert notebook_display() is None
    shell = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())  # a terminal's IPython
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert notebook_display() is None
    shell = types.SimpleNamespace(
        get_ipython=lambda: types.SimpleNamespace(kernel=1), display=types.SimpleNamespace(display=print)
    )
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert notebook_display() is print


@pytest.mark.slow
def test_in_a_real_notebook(tmp_path):
    pytest.importorskip("ipykernel")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cell = (
        "import numpy as np, torch, featherweight as fw\n"
        "x = np.random.default_rng(0).normal(size=(300, 8)).astype('float32')\n"
        "fw.optimize(torch.nn.Linear(8, 2), (x, (x[:, 0] > 0).astype(int)), fw.Prune(ratio=fw.Choice(0.2, 0.4)),\n"
        "            baseline=2, max_drop='40pt', trials=2, workers=1, measure_seconds=0.1, out='out', force=True)"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [o.output_type for o in book.cells[0].outputs]
    assert "display_data" in kinds and "execute_result" in kinds
    assert "<table>" in book.cells[0].outputs[-1]["data"]["text/html"]
