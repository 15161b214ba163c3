"""Handwritten digits, 8x8 pixels (scikit-learn), and no model: the search finds an architecture and how to train it.

featherweight search examples/search_digits.py --max-params 100k --max-latency 2ms --minimize error,latency --stopper median --trials 12 --minutes 10
"""

from __future__ import annotations

import numpy as np

import featherweight as fw


def data() -> fw.Splits:
    """A large test split: with 720 samples, a drop of one point can be certified."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)  # [1797, 1, 8, 8]
    return fw.split(
        fw.ArraySplit({"image": images}, digits.target, classes=digits.target_names), fractions=(0.4, 0.2, 0.4)
    )


task = fw.Task(name="search-digits", model=None, data=data)
