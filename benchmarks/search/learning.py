"""Real learning curves, recorded once: multi-layer perceptrons on small data sets, error on
validation and CPU seconds of every epoch.

    python benchmarks/search/learning.py digits
        (about 10 minutes; writes runs/search/curves-digits.npz, which git leaves out)

The simulated clock (clock.py) replays them. 288 settings (width, learning rate, batch, L2,
activation) are trained for 27 epochs each with Adam (scikit-learn's MLPClassifier, `partial_fit`),
on half of the data; the error is the share of wrong answers on the other half.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherweight.seeding import generator
from featherweight.space import Choice, Filling, Node, Space

EPOCHS = 27
FOLDER = Path(__file__).resolve().parents[2] / "runs" / "search"
OPTIONS: dict[str, tuple[Any, ...]] = {
    "width": (8, 16, 32, 64),
    "rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "batch": (8, 32, 128),
    "l2": (1e-5, 1e-2),
    "activation": ("relu", "tanh"),
}
DATA = ("digits", "synthetic")


@dataclass(frozen=True)
class Perceptron(Node):
    width: Any = 16
    rate: Any = 1e-3
    batch: Any = 32
    l2: Any = 1e-5
    activation: Any = "relu"


@dataclass(frozen=True)
class Curves:
    """error, seconds: [settings, epochs]; rows in the order of itertools.product over OPTIONS."""

    error: Any
    seconds: Any

    def row(self, filling: Filling) -> int:
        index = 0
        for name, options in OPTIONS.items():
            index = index * len(options) + options.index(filling[name])
        return index

    def space(self) -> Space:
        return Space(
            Perceptron(**{k: Choice(*v) for k, v in OPTIONS.items()}),
            features=lambda tree: {"params": 75.0 * tree.width + 10},
        )


def data(name: str) -> tuple[Any, Any]:
    """Standardised inputs and labels. synthetic: 2,000 samples of 64 features, 12 of them
    informative, 10 classes, 5 % of labels wrong."""
    from sklearn.datasets import load_digits, make_classification
    from sklearn.preprocessing import StandardScaler

    if name == "digits":
        x, y = load_digits(return_X_y=True)
    else:
        x, y = make_classification(
            2000, 64, n_informative=12, n_classes=10, n_clusters_per_class=1, flip_y=0.05, random_state=0
        )
    return StandardScaler().fit_transform(x), y


def train(name: str, filling: Filling) -> tuple[list[float], list[float]]:
    """(error, CPU seconds) of each epoch, really trained."""
    from sklearn.neural_network import MLPClassifier

    x, y = data(name)
    order = generator(0, "halves").permutation(len(x))
    fit, judge = order[: len(x) // 2], order[len(x) // 2 :]
    net = MLPClassifier(
        (filling["width"],),
        activation=filling["activation"],
        alpha=filling["l2"],
        batch_size=filling["batch"],
        learning_rate_init=filling["rate"],
        random_state=0,
    )
    errors, seconds = [], []
    for _ in range(EPOCHS):
        start = time.process_time()
        net.partial_fit(x[fit], y[fit], classes=range(10))
        seconds.append(time.process_time() - start)
        errors.append(1.0 - float(net.score(x[judge], y[judge])))
    return errors, seconds


def record(name: str) -> Path:
    """Trains every setting; the file is whole or not there."""
    import numpy as np

    curves = [train(name, dict(zip(OPTIONS, values, strict=True))) for values in itertools.product(*OPTIONS.values())]
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"curves-{name}.npz"
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, error=np.array([e for e, _ in curves]), seconds=np.array([s for _, s in curves]))
    partial.replace(path)
    return path


def load(name: str) -> Curves:
    import numpy as np

    path = FOLDER / f"curves-{name}.npz"
    if not path.exists():
        raise SystemExit(f"the curves are recorded first: python benchmarks/search/learning.py {name}")
    with np.load(path) as found:
        return Curves(found["error"], found["seconds"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA)
    print(record(parser.parse_args().data))
