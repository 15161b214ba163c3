"""TrimVocabulary: rows of an embedding table whose tokens the training split does not have go. What
is deployed takes the ids of the original's own tokenizer.

Most of a small encoder's weights are the embeddings of tokens that a task never sees (Abdaoui et
al. 2020, "Load What You Need", arXiv:2010.05609; Ushio et al. 2023, arXiv:2305.15020). What is kept
is kept bit for bit, so texts of kept tokens give the very outputs that they gave.

Notation: V ids, R rows that are left, D width.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Made, Mark, Shape, Transform
from ..space import Choice, Float, Int, param
from .base import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package


@dataclass(frozen=True)
class TrimVocabulary(Transform):
    """Keep, of each embedding that is given an input's ids as they are, the rows of tokens that the
    training split has; all other ids read the row that `unknown` says."""

    says = "Forget the tokens that the data do not have"
    tried = True

    min_count: int = param(
        1,
        search=Choice(1, 2, 4),
        legal=Int(0, 1_000_000),
        doc="times that a token occurs in the training split, at least, if it is to stay; 0: all stay",
    )
    coverage: float = param(
        1.0, legal=Float(0.0, 1.0), doc="share of all occurrences that the commonest tokens, which stay, make up"
    )
    floor: int = param(
        0,
        search=Choice(0, 8192),
        legal=Int(0, 2**30),
        doc="rows that stay at least: the commonest tokens, then, as tokenizers number by frequency, the lowest ids",
    )
    keep: tuple[int, ...] = param((), doc="ids that stay whatever the data say, as [UNK]")
    unknown: str = param(
        "nearest",
        search=Choice("nearest", "mean"),
        legal=Choice("nearest", "mean"),
        doc="what other ids read: the most similar row that stays, or one more row, the mean of those that went",
    )

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "rows of a table that has integer scales cannot be left out"}

    @property
    def shape(self) -> Shape:
        return Shape.WEIGHTS

    @property
    def idle(self) -> bool:
        return self.min_count == 0 and self.coverage == 1.0

    def apply(self, model: Package, context: Context) -> Package:
        import torch

        from ..models.surgery import edit
        from ..models.tables import ROWS, row_bytes, rows_of, trimmed
        from ..models.zeros import holding

        if self.idle:
            return model.noted(step="trim_vocabulary", tables={}, whole={})
        module, names = model.copied().eval(), list(context.calibration(1))
        few = tuple(context.few(module))
        readers, whole = token_tables(module, names, few)
        self._check_kept(module, readers)
        counts, special = self._counts(module, readers, names, context), self._special(context)
        edits: list[dict[str, Any]] = []
        done: dict[str, Any] = {}
        stay: dict[str, Tensor] = {}
        for path in readers:
            layer: Any = module.get_submodule(path)
            weight, before = layer.weight.detach(), rows_of(layer)
            kept = self._kept(counts[path], layer, special)
            rows, table = trimmed(weight, kept, self.unknown)
            more = row_bytes(len(weight), len(rows)) if before is None else 0
            if rows.nbytes + more >= weight.nbytes:
                whole[path] = f"{int(kept.sum())} of its {len(weight)} rows would stay, which saves nothing"
                continue
            padding = None if layer.padding_idx is None else int(table[layer.padding_idx])
            edits.append({"edit": "trim_table", "path": path, "rows": len(rows)})
            edit(module, edits[-1])
            with torch.no_grad():
                layer.weight.copy_(rows)
                getattr(layer, ROWS).copy_(table if before is None else table[before.long()])
            layer.padding_idx = padding
            stay[path] = kept
            done[path] = {"rows": [len(weight), len(rows)], "seen": int((counts[path] > 0).sum())}
        why = _differs(model.module, module, few, {path: readers[path] for path in stay}, stay)
        if why is not None:
            raise InputError(
                "the model does more with these embeddings than look tokens up",
                got=f"{', '.join(done)}: {why}",
                fix="leave trim_vocabulary out of the recipe",
            )
        return (
            model.edited(module=module, sparse=holding(module, model.sparse))
            .restructured(*edits)
            .noted(step="trim_vocabulary", tables=done, whole=whole)
        )

    def _check_kept(self, module: nn.Module, readers: dict[str, tuple[int, ...]]) -> None:
        """InputError if an id to keep is one of none of the tables."""
        from ..models.tables import rows_of

        most = 0
        for path in readers:
            layer: Any = module.get_submodule(path)
            table = rows_of(layer)
            most = max(most, layer.num_embeddings if table is None else len(table))
        if wrong := [i for i in self.keep if not 0 <= i < most]:
            raise InputError("there are no such ids to keep", got=f"keep={wrong}", allowed=f"0 to {most - 1}")

    def _counts(
        self, module: nn.Module, readers: dict[str, tuple[int, ...]], names: list[str], context: Context
    ) -> dict[str, Tensor]:
        """{path: how often each of its rows is read [rows] int64 over the training split}."""
        import torch

        from ..models.entry import changed
        from ..models.tables import rows_of
        from ..task.tensors import as_tensor

        found: dict[str, Tensor] = {}
        for path in readers:
            layer: Any = module.get_submodule(path)
            found[path] = torch.zeros(layer.num_embeddings, dtype=torch.long)
        for inputs, _ in context.splits.train.batches():
            given = changed(module, [as_tensor(inputs[name]) for name in names])
            for path, places in readers.items():
                table = rows_of(module.get_submodule(path))
                for i in places:
                    ids = given[i].flatten()
                    rows = ids if table is None else table[ids].long()
                    found[path] += torch.bincount(rows, minlength=len(found[path]))
        return found

    def _special(self, context: Context) -> tuple[int, ...]:
        """Ids that stay: those that were asked for, and those that the task's tokenizer, if it has
        one, calls special."""
        if context.task.deploy is None:
            return self.keep
        from ..plain import read_json

        with tempfile.TemporaryDirectory(prefix="featherweight-") as folder:
            how = context.task.deploy(Path(folder))
            if "tokenizer" not in how:
                return self.keep
            added = read_json(Path(folder) / how["tokenizer"]).get("added_tokens", [])
        return (*self.keep, *(int(token["id"]) for token in added if token.get("special")))

    def _kept(self, counts: Tensor, layer: Any, special: tuple[int, ...]) -> Tensor:
        """Which rows stay [rows], at least one."""
        import torch

        from ..models.tables import rows_of

        table = rows_of(layer)
        ids = len(counts) if table is None else len(table)
        order = torch.sort(counts, descending=True, stable=True).indices  # of equal ones the lowest first
        reached = counts[order].cumsum(0) - counts[order]
        kept = torch.zeros(len(counts), dtype=torch.bool)
        kept[order[reached < self.coverage * counts.sum()]] = True
        kept &= counts >= self.min_count
        kept[order[: max(1, self.floor)]] = True
        named = torch.tensor([i for i in special if i < ids], dtype=torch.long)
        kept[named if table is None else table[named].long()] = True
        if layer.padding_idx is not None:
            kept[layer.padding_idx] = True
        return kept


def token_tables(
    module: nn.Module, names: list[str], inputs: tuple[Tensor, ...]
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """({path of an embedding: which inputs it is given, as the model is given them, and nothing
    else}, {path of another: why its rows have to stay}). InputError if there is none of the first
    kind."""
    from torch import nn

    from ..models.computed import WHY, computed
    from .shared.entrance import described

    tables = {path: m for path, m in module.named_modules() if isinstance(m, nn.Embedding)}
    names_of: dict[int, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(p), []).append(name)
    whole: dict[str, str] = {}
    for path, table in tables.items():
        others = [n for n in names_of.get(id(table.weight), ()) if n != f"{path}.weight"]
        if computed(table):
            whole[path] = WHY
        elif others:
            whole[path] = f"it shares its weights with {others[0]}"
        elif table.max_norm is not None:
            whole[path] = "its rows change when they are read"
    given = _given(module, [path for path in tables if path not in whole], inputs)
    readers = {path: places for path, places in given.items() if places}
    whole |= {path: "it is given something else than an input" for path, places in given.items() if not places}
    if not readers:
        reasons = "; ".join(f"{path}: {why}" for path, why in whole.items()) or "no nn.Embedding"
        raise InputError(
            "no embedding of this model can lose rows",
            got=f"{described(names, inputs)}; {reasons}",
            allowed="an nn.Embedding that is given an input's ids as they are",
            fix="leave trim_vocabulary out of the recipe",
        )
    return readers, whole


def _given(module: nn.Module, paths: list[str], inputs: tuple[Tensor, ...]) -> dict[str, tuple[int, ...]]:
    """{path: the inputs that it is given in all of its calls; () if it is given anything else}, in
    two passes, the second with the rows in another order. A table that does not run is given
    nothing."""
    import torch

    from ..models.entry import changed
    from ..models.hooks import watched
    from ..models.tables import rows_of

    found: dict[str, set[int]] = {}
    odd: set[str] = set()
    for rows in (inputs, tuple(x.flip(0) for x in inputs)):
        own = changed(module, rows)

        def enter(path: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
            ids, table = (args[0] if args else kwargs["input"]), rows_of(layer)
            same = {
                i
                for i, x in enumerate(own)  # noqa: B023 (it runs within this round)
                if not x.is_floating_point() and torch.equal(ids, x if table is None else table[x].to(x.dtype))
            }
            if not same:
                odd.add(path)
            found.setdefault(path, set()).update(same)

        with torch.no_grad(), watched(module, before={p: partial(enter, p) for p in paths}, with_kwargs=True):
            module(*rows)
    return {path: () if path in odd else tuple(sorted(found.get(path, ()))) for path in paths}


def _differs(
    before: nn.Module,
    after: nn.Module,
    inputs: tuple[Tensor, ...],
    readers: dict[str, tuple[int, ...]],
    stay: dict[str, Tensor],
) -> str | None:
    """How the trimmed model's outputs differ on rows whose ids all stay; None if they are the very
    same. In rows of which some went, these ids are put out by one that stays."""
    import torch

    from ..models.tables import rows_of

    rows = list(inputs)
    for path, places in readers.items():
        table = rows_of(before.get_submodule(path))
        kept = stay[path] if table is None else stay[path][table.long()]  # [V]
        some = int(kept.nonzero()[0])
        for i in places:
            rows[i] = torch.where(kept[rows[i]], rows[i], some)
    with torch.no_grad():
        want = before(*rows)
        try:
            got = after(*rows)
        except Exception as e:  # whatever the model's own code raises
            return f"it fails without them: {(str(e).splitlines() or [type(e).__name__])[0]}"
    return None if torch.equal(want, got) else "its outputs for tokens that stay are others"
