"""A forest of randomised trees with leaf statistics: for each row a mean and a
variance, tree by tree.

| symbol | code | meaning |
|---|---|---|
| T, n, d, q | | trees, training rows, columns, rows asked about |
| x | `x` | rows of an encoding [n, d] |
| y | `y` | targets [n] |
| mu_t, s2_t | `mean`, `var` | mean and variance of the targets in a row's leaf of tree t [T, q] |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Leaves:
    """What the trees say of q rows, tree by tree: mean and variance of the targets in the row's
    leaf, and the leaf's index. All [T, q]."""

    mean: np.ndarray
    var: np.ndarray
    leaf: np.ndarray

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the mixture of the trees' leaves, [q] each: the law of total
        variance, E[var] + Var[mean] (Hutter, Xu, Hoos and Leyton-Brown, "Algorithm runtime
        prediction: methods & evaluation", 2014, arXiv 1211.0906, section 4.3.2)."""
        return self.mean.mean(0), self.var.mean(0) + self.mean.var(0)


def same_leaf(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """[q, p] share of the trees in which two rows fall into the same leaf, from leaf indices [T, q]
    and [T, p]: the forest's own kernel (Breiman, "Some infinity theory for predictor ensembles",
    2000). From 0 to 1."""
    shared = np.zeros((ours.shape[1], theirs.shape[1]))
    for a, b in zip(ours, theirs, strict=True):  # tree by tree, so that memory stays at [q, p]
        shared += a[:, None] == b[None, :]
    return np.asarray(shared / len(ours))


class Forest:
    """`trees` regression trees, without or with random thresholds.

    extra: extremely randomised trees, each grown on all rows; a split tries every column at one
    random threshold each (Geurts, Ernst and Wehenkel, "Extremely randomized trees", 2006).
    Otherwise trees grown on bootstrap samples, a split finds the best threshold among all columns
    (Breiman, "Bagging predictors", 1996). A leaf is grown from at least `min_leaf` rows;
    its statistics are those of all training rows that fall into it. With `extra` and 1 the forest
    interpolates: certain where it has been, spread between. Trees are asked one by one through
    scikit-learn's compiled part, because its ensembles spend more on bookkeeping than on a few
    hundred rows.
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, seed: int, trees: int = 20, min_leaf: int = 1, extra: bool = True
    ) -> None:
        """x: [n, d], n >= 1, d >= 0; y: [n]; seed: of samples and splits.
        InputError where a number is not finite."""
        import sklearn
        from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

        if not (np.isfinite(x).all() and np.isfinite(y).all()) or len(x) != len(y) or len(x) < 1:
            raise InputError(
                "a forest learns from at least one row, and from finite numbers only",
                got=f"rows {x.shape}, targets {y.shape}",
            )
        targets, rows = np.ascontiguousarray(y, dtype=np.float64), _rows(x)
        # what scikit-learn takes; a generator of its own
        state: Any = np.random.RandomState(seed % 2**32)
        grow = {"random_state": state, "min_samples_leaf": min_leaf}
        self._trees = []
        with sklearn.config_context(skip_parameter_validation=True):
            for _ in range(trees):
                if extra:
                    tree = ExtraTreeRegressor(max_features=None, **grow).fit(rows, targets[:, None], check_input=False)
                else:
                    drawn = state.randint(len(rows), size=len(rows))
                    tree = DecisionTreeRegressor(max_features=None, **grow).fit(
                        rows[drawn], targets[drawn, None], check_input=False
                    )
                self._trees.append(tree.tree_)
        self._at = [tree.apply(rows) for tree in self._trees]  # of the training rows
        self._stats = self._leaf_stats(targets)

    def _leaf_stats(self, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean and variance of `y` in each leaf, tree by tree; 0 at inner nodes."""
        out = []
        for tree, at in zip(self._trees, self._at, strict=True):
            count = np.maximum(np.bincount(at, minlength=tree.node_count), 1)
            mean = np.bincount(at, weights=y, minlength=tree.node_count) / count
            out.append((mean, np.bincount(at, weights=(y - mean[at]) ** 2, minlength=tree.node_count) / count))
        return out

    def ask(self, x: np.ndarray, y: np.ndarray | None = None) -> Leaves:
        """x: [q, d]; y: [n] other targets of the same training rows, whose statistics in the same
        leaves are wanted instead."""
        rows = _rows(x)
        stats = self._stats if y is None else self._leaf_stats(y)
        leaf = np.stack([tree.apply(rows) for tree in self._trees])  # [T, q]
        mean = np.stack([means[at] for (means, _), at in zip(stats, leaf, strict=True)])
        return Leaves(mean, np.stack([spread[at] for (_, spread), at in zip(stats, leaf, strict=True)]), leaf)


def _rows(x: np.ndarray) -> np.ndarray:
    """As the compiled part wants them; one constant column where there is none."""
    return np.ascontiguousarray(x if x.shape[1] else np.zeros((len(x), 1)), dtype=np.float32)
