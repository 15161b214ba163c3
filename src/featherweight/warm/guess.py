"""What a user expects to be good."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..space import Filling, Space
from ..space.space import key


@dataclass(frozen=True)
class Guess:
    """Values that a user expects to be good, for some holes or all; weight: how many trials the
    belief is worth (0: tried once, no more)."""

    values: Mapping[str, Any]
    weight: float = 1.0

    def checked(self, space: Space) -> Filling:
        """The values in the space's own form, with those of the choices above that they
        need to be alive.

        InputError: a hole that the space lacks (with the near names), a value that the hole cannot
        have, holes that no filling has together, or a weight that is none."""
        if not 0 <= self.weight < math.inf:
            raise InputError("a guess has a weight that is none", got=self.weight, allowed="0 or more, in trials")
        names = [h.path for h in space.holes]
        for path in self.values:
            if path not in names:
                near = difflib.get_close_matches(str(path), names, 3, 0.5)
                raise InputError(
                    "a guess names a hole that the space lacks",
                    got=path,
                    allowed=", ".join(near or names) or "none: it has no holes",
                )
        out = {path: space[path].domain.check(value, path) for path, value in self.values.items()}
        for path in self.values:
            for parent, value in space[path].when:
                if key({"": out.setdefault(parent, value)}) != key({"": value}):
                    raise InputError(
                        f"a guess names {path}, which lives only where {parent} is {value!r}",
                        got=f"{parent}={out[parent]!r}",
                    )
        return out
