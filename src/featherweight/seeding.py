"""Seeds by name: every random choice comes from (study seed, what it is for),
never from a global generator."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the purpose `names` under `seed`: equal inputs give equal seeds
    on every machine."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """A numpy generator seeded by `derive(seed, *names)`."""
    import numpy as np

    return np.random.default_rng(derive(seed, *names))
