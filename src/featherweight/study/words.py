"""Settings that are written as a word or two: `asha(eta=2)`, `naswot:0.25`, `openvino:bf16`."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace
from typing import Any

from .. import registry
from ..errors import InputError
from ..recipe import Recipe, encode
from ..space import Choice, Maybe
from ..targets.base import Target
from ..transforms.base import Trained


def stopper_of(given: str | dict[str, Any] | None, recipe: Recipe) -> dict[str, Any] | None:
    """{"kind": .., its fields}. `asha` and `asha(eta=2, min_budget=1)` as text. InputError if there is no such stopper, or no training to stop."""
    if given is None:
        return None
    if isinstance(given, str):
        match = re.fullmatch(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", given)
        if match is None:
            raise InputError("this is no stopper", got=given, allowed="a name such as asha, or asha(eta=2, min_budget=1)")
        given = {
            "kind": match[1],
            **{k.strip(): _number(v) for k, _, v in (part.partition("=") for part in (match[2] or "").split(",") if part.strip())},
        }
    kind, fields = str(given.get("kind")), {k: v for k, v in given.items() if k != "kind"}
    cls = registry.find("stoppers", kind)
    known = {f.name: f.default for f in dataclasses.fields(cls)}
    if set(fields) - set(known):
        raise InputError(f"{kind} has no such setting", got=", ".join(sorted(set(fields) - set(known))), allowed=", ".join(known))
    for name, value in fields.items():
        if isinstance(value, str) != isinstance(known[name], str) or not isinstance(value, (str, int, float, type(None))):
            raise InputError(
                f"{kind} cannot be set like this", got=f"{name}={value}", allowed="a word" if isinstance(known[name], str) else "a number"
            )
    cls(**fields)
    if not any(map(_can_pause, recipe.steps)):
        raise InputError(
            "a stopper needs training that can pause",
            got=str(recipe),
            allowed="steps such as train and distill",
            fix="leave it out, or add such a step",
        )
    return {"kind": kind, **fields}


def _can_pause(part: Any) -> bool:
    """Is the step, or one of those that a hole offers, training that a stopper can make wait?"""
    if isinstance(part, Maybe):
        return _can_pause(part.item)
    if isinstance(part, Choice):
        return any(map(_can_pause, part.items))
    if isinstance(part, Recipe):
        return any(map(_can_pause, part.steps))
    return isinstance(part, Trained) and part.pauses and part.epochs != 0


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def proxy_of(text: str | None, searching: bool) -> dict[str, Any] | None:
    """`synflow` or `synflow:0.25` as {"kind": "synflow", "keep": 0.25}: only nets that score like the best quarter are trained [default: half]."""
    if text is None:
        return None
    if not searching:
        raise InputError("a proxy ranks untrained nets, so it belongs to a search of architectures", got=text, fix="leave it out")
    kind, _, keep = text.partition(":")
    registry.find("models.proxies", kind)
    share = _number(keep) if keep else 0.5
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise InputError("the share that a proxy keeps is wrong", got=keep, allowed="a number above 0, up to 1: synflow:0.25")
    return {"kind": kind, "keep": float(share)}


def targets_of(text: str, threads: int = 1, batch: int = 1) -> dict[str, Any]:
    """What `--target` means: {"text", "choice" (text or a hole, as JSON), "runtimes": [..], "reference": the baseline's, "originals": [..]}.

    `auto` is every runtime (but torch, which has to be named) and dtype that runs here. A single target that cannot run here is an error; in
    `auto` it is left out.
    """

    def here(target: Target) -> bool:
        return registry.find("targets", target.runtime)().problem(target, None) is None

    if text.strip() == "auto":
        tried = [
            Target(runtime, dtype, threads=threads, batch=batch)
            for runtime in registry.names("targets")
            if registry.find("targets", runtime).automatic
            for dtype in ("fp32", "bf16")
        ]
        found = [t for t in tried if here(t)]
    else:
        found = []
        for part in text.split(","):
            t = Target.parse(part)
            t = replace(t, threads=threads if t.threads == 1 else t.threads, batch=batch if t.batch == 1 else t.batch)
            t.load_runtime()
            found.append(t)
    found = sorted(dict.fromkeys(found), key=lambda t: (t.runtime != "onnxruntime", text != "auto")) if text == "auto" else list(dict.fromkeys(found))
    names = [str(t) for t in found]
    reference = Target(found[0].runtime, threads=found[0].threads, batch=found[0].batch, device=found[0].device)
    originals = [Target(r, threads=reference.threads, batch=reference.batch) for r in registry.names("targets")]
    return {
        "text": text,
        "choice": names[0] if len(names) == 1 else encode(Choice(*names)),
        "runtimes": names,
        "reference": str(reference),
        "originals": [str(t) for t in originals if here(t)],
    }
