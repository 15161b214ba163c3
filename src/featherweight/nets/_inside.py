"""A net that stands inside a description which makes its input."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import InputError
from .base import Cost, Net


def fitted(kind: str, net: Any, features: int, classes: int | None = None) -> Net:
    """The net for so many features and outputs, where it has fields for them. InputError if it is
    no description."""
    if not isinstance(net, Net):
        raise InputError(
            f"{kind} needs the description of the net inside it",
            got=repr(net),
            allowed="ConvNet(..), Mlp(..), ..",
        )
    own = {f.name for f in dataclasses.fields(net)}  # type: ignore[arg-type]
    sizes = {"features": features, **({} if classes is None else {"classes": classes})}
    made: Net = dataclasses.replace(net, **{k: v for k, v in sizes.items() if k in own})  # type: ignore[type-var]
    return made


def more(cost: Cost, params: int = 0, macs: int = 0) -> Cost:
    """The cost with that of what stands before the net."""
    return dataclasses.replace(cost, params=cost.params + params, macs=cost.macs + macs)
