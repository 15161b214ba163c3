"""Settings that are written as a word or two: `asha(eta=2)`, `naswot:0.25`, `openvino:bf16`."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from .. import registry
from ..errors import InputError
from ..recipe import Recipe
from ..space import Choice, Maybe
from ..transforms.base import Trained


def plain(value: Any) -> list[str]:
    """A value as it is written."""
    return [str(value)]


def not_one(value: int) -> list[str]:
    """A number that goes without saying if it is 1."""
    return [str(value)] if value != 1 else []


def stopper_text(given: str | dict[str, Any]) -> list[str]:
    """The inverse of `stopper_of`."""
    if isinstance(given, str):
        return [given]
    fields = ", ".join(f"{k}={json.dumps(v)}" for k, v in given.items() if k != "kind")
    return [f"{given['kind']}({fields})" if fields else str(given["kind"])]


def proxy_text(given: dict[str, Any]) -> str:
    """The inverse of `proxy_of`."""
    return f"{given['kind']}:{given['keep']:.15g}"


def stopper_of(given: str | dict[str, Any] | None, recipe: Recipe) -> dict[str, Any] | None:
    """{"kind": .., its fields}. `asha` and `asha(eta=2, min_budget=1)` as text. InputError if there
    is no such stopper, or no training to stop."""
    if given is None:
        return None
    if isinstance(given, str):
        match = re.fullmatch(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", given)
        if match is None:
            raise InputError(
                "this is no stopper", got=given, allowed="a name such as asha, or asha(eta=2, min_budget=1)"
            )
        given = {
            "kind": match[1],
            **{
                k.strip(): _number(v)
                for k, _, v in (part.partition("=") for part in (match[2] or "").split(",") if part.strip())
            },
        }
    kind, fields = str(given.get("kind")), {k: v for k, v in given.items() if k != "kind"}
    cls = registry.find("stoppers", kind)
    known = {f.name: f.default for f in dataclasses.fields(cls)}
    if set(fields) - set(known):
        raise InputError(
            f"{kind} has no such setting", got=", ".join(sorted(set(fields) - set(known))), allowed=", ".join(known)
        )
    for name, value in fields.items():
        if isinstance(value, str) != isinstance(known[name], str) or not isinstance(
            value, (str, int, float, type(None))
        ):
            raise InputError(
                f"{kind} cannot be set like this",
                got=f"{name}={value}",
                allowed="a word" if isinstance(known[name], str) else "a number",
            )
    cls(**fields)
    if not any(map(can_pause, recipe.steps)):
        raise InputError(
            "a stopper needs training that can pause",
            got=str(recipe),
            allowed="steps such as train and distill",
            fix="leave it out, or add such a step",
        )
    return {"kind": kind, **fields}


def can_pause(part: Any) -> bool:
    """Is the step, or one of those that a hole offers, training that a stopper can make wait?"""
    if isinstance(part, Maybe):
        return can_pause(part.item)
    if isinstance(part, Choice):
        return any(map(can_pause, part.items))
    if isinstance(part, Recipe):
        return any(map(can_pause, part.steps))
    return isinstance(part, Trained) and part.pauses and part.epochs != 0


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def proxy_of(text: str | None, searching: bool) -> dict[str, Any] | None:
    """`synflow` or `synflow:0.25` as {"kind": "synflow", "keep": 0.25}: only nets that score like
    the best quarter are trained [default: half]."""
    if text is None:
        return None
    if not searching:
        raise InputError(
            "a proxy ranks untrained nets, so it belongs to a search of architectures", got=text, fix="leave it out"
        )
    kind, _, keep = text.partition(":")
    registry.find("models.proxies", kind)
    share = _number(keep) if keep else 0.5
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise InputError(
            "the share that a proxy keeps is wrong", got=keep, allowed="a number above 0, up to 1: synflow:0.25"
        )
    return {"kind": kind, "keep": float(share)}
