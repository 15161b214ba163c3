"""What a loaded artifact is. numpy only: a fresh measuring process imports this, never torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


Inputs = dict[str, "np.ndarray"]  # by input name, the first axis is the batch


class Session(ABC):
    """A loaded artifact."""

    @abstractmethod
    def run(self, inputs: Inputs) -> np.ndarray:
        """The model's output for one batch."""
