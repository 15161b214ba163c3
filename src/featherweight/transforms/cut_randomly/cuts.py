"""Cuts that can be tried and taken back: coupled channels of a module, or whole blocks. Both work
in place on a module that they own. A unit is what can only go together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...models.blocks import examined
from ...models.coupling import couple
from ...models.cutting import cut, silence
from ...models.exact import inexact
from ...models.groups import Group

Items = list[tuple[int, int]]  # (group, unit)
Undo = Callable[[], None]


class ChannelCuts:
    """sizes: [G] units in each group of coupled channels. A unit that is cut is silent (its
    readers' columns are zero) until `finish`."""

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        coupling = couple(module, inputs)
        self.module, self.inputs, self.whole = module, inputs, dict(coupling.whole)
        self.groups: list[Group] = list(coupling.groups)
        self.sizes = [len(g.units) for g in self.groups]
        self.removed: Items = []

    def make(self, items: Items) -> Undo:
        """Silence the units; the function that is given back makes them heard again."""
        undo: list[Undo] = []
        for g, group in enumerate(self.groups):
            units = [u for h, u in items if h == g]
            if units:
                undo.append(silence(self.module, group, units))
        self.removed += items

        def back() -> None:
            for u in reversed(undo):
                u()
            del self.removed[-len(items) :]

        return back

    def finish(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Cut what is silent out of the module; a group where that is not exact stays silent.
        (edits for the package, what to say in the note)."""
        drops = [sorted(u for h, u in self.removed if h == g) for g in range(len(self.groups))]
        wrong = inexact(self.module, self.groups, self.inputs, drops=drops)
        self.whole |= wrong
        drops = [[] if g.name in wrong else drop for g, drop in zip(self.groups, drops, strict=True)]
        cut(self.module, self.groups, drops)
        widths = {g.name: [g.channels, g.channels - g.size * len(d)] for g, d in zip(self.groups, drops, strict=True)}
        return [], {"widths": widths, "whole": self.whole}


class BlockCuts:
    """sizes: [G] blocks that can be dropped from each ModuleList or Sequential that has some."""

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.module = module
        found, self.whole = examined(module, inputs)
        self.paths, self.blocks = list(found), list(found.values())
        # with one that stands there twice
        self.children = [list(module.get_submodule(p)._modules.values()) for p in self.paths]
        self.sizes = [len(b) for b in self.blocks]
        self.removed: Items = []

    def make(self, items: Items) -> Undo:
        """Take the blocks out; the function that is given back puts them in again."""
        self.removed += items
        self._arrange()

        def back() -> None:
            del self.removed[-len(items) :]
            self._arrange()

        return back

    def _kept(self, g: int) -> list[int]:
        gone = {self.blocks[h][u] for h, u in self.removed if h == g}
        return [i for i in range(len(self.children[g])) if i not in gone]

    def _arrange(self) -> None:
        for g, path in enumerate(self.paths):
            kept = [self.children[g][i] for i in self._kept(g)]
            self.module.get_submodule(path)._modules = {str(i): child for i, child in enumerate(kept)}

    def finish(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(the edits that make the module what it is now, what to say in the note)."""
        edits = [
            {"edit": "keep_blocks", "path": path, "index": self._kept(g)}
            for g, path in enumerate(self.paths)
            if any(h == g for h, _ in self.removed)
        ]
        dropped = sorted([self.paths[g], self.blocks[g][u]] for g, u in self.removed)
        return edits, {"dropped": dropped, **({"whole": self.whole} if self.whole else {})}
