"""Domains (what may stand in a field) and spaces (all holes of a tree). No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .node import Domain, Node, param, resolve
from .space import Filling, Hole, Space

# to a type checker a hole may stand wherever a value may: `Prune(ratio=Float(0, 0.8))`
if TYPE_CHECKING:
    Choice: Any
    Float: Any
    Int: Any
    Maybe: Any
    Order: Any
else:
    from .domains import Choice, Float, Int, Maybe, Order

__all__ = ["Choice", "Domain", "Filling", "Float", "Hole", "Int", "Maybe", "Node", "Order", "Space", "param", "resolve"]
