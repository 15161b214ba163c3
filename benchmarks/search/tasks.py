"""scikit-learn tasks trained for real: which model, and its settings. A conditional space, each
outcome a 5-fold cross-validation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from featherweight.space import Choice, Filling, Float, Int, Node, Space

FOLDS = 5
WORST = 10.0  # larger errors, of regressions that run away, count as this


@dataclass(frozen=True)
class Forest(Node):
    trees: Any = 50
    depth: Any = 10
    share: Any = 0.3  # of the features at each split
    leaf: Any = 1
    extra: Any = False  # extremely randomised


@dataclass(frozen=True)
class Svm(Node):
    c: Any = 1.0
    gamma: Any = 0.1  # times 1 / number of features
    kernel: Any = "rbf"


@dataclass(frozen=True)
class Boosting(Node):
    rounds: Any = 20
    rate: Any = 0.1
    leaves: Any = 15
    l2: Any = 1e-3


@dataclass(frozen=True)
class Perceptron(Node):
    width: Any = 32
    layers: Any = 1
    rate: Any = 1e-3
    l2: Any = 1e-4
    activation: Any = "relu"


@dataclass(frozen=True)
class Model(Node):
    model: Any = "svm"


def task_space() -> Space:
    """18 holes; 3 to 5 of them live at once, with the choice of the model."""
    return Space(
        Model(
            Choice(
                Forest(Int(5, 80, log=True), Int(2, 16), Float(0.05, 1.0), Int(1, 8), Choice(False, True)),
                Svm(Float(1e-2, 1e3, log=True), Float(1e-2, 1e2, log=True), Choice("rbf", "poly", "sigmoid")),
                Boosting(Int(5, 60, log=True), Float(1e-2, 1.0, log=True), Int(3, 31), Float(1e-4, 1e1, log=True)),
                Perceptron(
                    Int(4, 128, log=True),
                    Int(1, 3),
                    Float(1e-4, 1e-1, log=True),
                    Float(1e-6, 1e-1, log=True),
                    Choice("relu", "tanh", "logistic"),
                ),
            )
        )
    )


@dataclass(frozen=True)
class Task:
    """A data set of scikit-learn. Classification: the error is the share of wrong answers, with
    half a sample added so that it is never 0; regression: mean squared error over the variance.
    reference_error: of always answering the commonest class, or the mean."""

    name: str
    regression: bool = False

    @property
    def reference_error(self) -> float:
        import numpy as np

        _, y = _data(self.name)
        return 1.0 if self.regression else 1.0 - float(np.bincount(y).max()) / len(y)

    def outcome(self, filling: Filling) -> dict[str, float]:
        """{"error": mean over the folds, "cost_s": wall seconds of the cross-validation}."""
        import warnings

        from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

        x, y = _data(self.name)
        estimator = _estimator(task_space().fill(filling).model, x.shape[1], self.regression)
        folds = (KFold if self.regression else StratifiedKFold)(FOLDS, shuffle=True, random_state=0)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model that has not converged is judged as it is
            got = cross_val_predict(estimator, x, y, cv=folds, n_jobs=1)
        cost = time.perf_counter() - start
        error = (
            float(((got - y) ** 2).mean() / y.var()) if self.regression else (float((got != y).sum()) + 0.5) / len(y)
        )
        return {"error": min(error, WORST), "cost_s": cost}


TASKS = {t.name: t for t in (Task("digits"), Task("breast_cancer"), Task("wine"), Task("diabetes", regression=True))}


@cache
def _data(name: str) -> tuple[Any, Any]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x, y


def _estimator(model: Any, features: int, regression: bool) -> Any:
    """The model of scikit-learn that a node describes, behind standardised inputs (and,
    for a regression, targets)."""
    from sklearn import ensemble, neural_network, svm
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kind = "Regressor" if regression else "Classifier"
    inner: Any
    if isinstance(model, Forest):
        forest = getattr(ensemble, ("ExtraTrees" if model.extra else "RandomForest") + kind)
        inner = forest(
            n_estimators=model.trees,
            max_depth=model.depth,
            max_features=model.share,
            min_samples_leaf=model.leaf,
            random_state=0,
        )
    elif isinstance(model, Svm):
        machine = svm.SVR if regression else svm.SVC
        inner = machine(C=model.c, gamma=model.gamma / features, kernel=model.kernel, max_iter=20_000)
    elif isinstance(model, Boosting):
        boosting = getattr(ensemble, "HistGradientBoosting" + kind)
        inner = boosting(
            max_iter=model.rounds,
            learning_rate=model.rate,
            max_leaf_nodes=model.leaves,
            l2_regularization=model.l2,
            random_state=0,
            early_stopping=False,
        )
    else:
        net = getattr(neural_network, "MLP" + kind)
        layers = (model.width,) * model.layers
        inner = net(
            hidden_layer_sizes=layers,
            activation=model.activation,
            learning_rate_init=model.rate,
            alpha=model.l2,
            max_iter=40,
            random_state=0,
        )
    pipeline = make_pipeline(StandardScaler(), inner)
    return TransformedTargetRegressor(pipeline, transformer=StandardScaler()) if regression else pipeline
