"""What there is to choose from: every method of every group, from the registry, plug-ins' too."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any

from .. import registry
from ..errors import InputError

GROUPS = {  # as a person calls them
    "transforms": "steps of a recipe",
    "nets": "architectures, for `Build`",
    "strategies": "what proposes candidates (`--strategy`)",
    "stoppers": "what ends weak trials early (`--stopper`)",
    "targets": "runtimes (`--target`)",
    "models.criteria": "what matters least, for `Prune`",
    "models.proxies": "scores of untrained nets (`--proxy`)",
}


@dataclass(frozen=True)
class Field:
    """One setting. range: what it may be; search: what a space opens it to
    ("": it stays as it is)."""

    name: str
    kind: str
    default: str
    range: str
    search: str
    doc: str


@dataclass(frozen=True)
class Method:
    """about: its docstrings, those of its file and of its class; papers: what they cite."""

    group: str
    name: str
    summary: str
    about: str
    papers: tuple[str, ...]
    fields: tuple[Field, ...]
    home: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def methods(group: str) -> list[Method]:
    """All of a group, by name; one that cannot be loaded says why, and the others are there."""
    return [_described(group, name) for name in registry.names(group)]


def _described(group: str, kind: str) -> Method:
    try:
        return describe(group, kind)
    except InputError as e:  # of a plug-in, whose author it is for
        return Method(group, kind, f"cannot be loaded: {e.what}", str(e), (), (), "")


def find(name: str) -> list[Method]:
    """The methods of a name, in any group. InputError with the near names if there is none."""
    kind = name.strip().lower().replace("-", "_")
    found = [describe(group, kind) for group in GROUPS if kind in registry.names(group)]
    if not found:
        known = sorted({n for group in GROUPS for n in registry.names(group)})
        raise InputError("there is no such method", got=name, allowed=", ".join(known))
    return found


def describe(group: str, kind: str) -> Method:
    """What a method says of itself. InputError if it cannot be loaded."""
    cls = registry.find(group, kind)
    module = sys.modules[cls.__module__]
    file, own = inspect.cleandoc(module.__doc__ or ""), inspect.cleandoc(_own_doc(cls))
    about = "\n\n".join(part for part in (file, own) if part)
    papers = dict.fromkeys(re.findall(r"arXiv[: ]\s*(\d{4}\.\d{4,5})", about))
    summary = " ".join((file or own).split("\n\n")[0].split())
    return Method(group, kind, summary, about, tuple(papers), _fields(cls), f"{cls.__module__}.{cls.__qualname__}")


def _own_doc(cls: type) -> str:
    """The docstring that the class itself has: a dataclass without one is given its signature."""
    doc = cls.__dict__.get("__doc__") or ""
    return "" if doc.startswith(f"{cls.__name__}(") else doc


def _fields(cls: Any) -> tuple[Field, ...]:
    if not dataclasses.is_dataclass(cls):
        return ()
    out = []
    for f in dataclasses.fields(cls):
        facts = {k: f.metadata.get(k) for k in ("legal", "search")}
        shown = {k: "" if v is None else str(v) for k, v in facts.items()}
        kind = f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type))
        default = "needed" if f.default is dataclasses.MISSING else repr(f.default)
        out.append(Field(f.name, kind, default, shown["legal"], shown["search"], f.metadata.get("doc", "")))
    return tuple(out)


def page() -> str:
    """All built-in methods as one Markdown page."""
    lines = [
        "# Methods",
        "",
        "Made from the registry by `python scripts/pages.py`. In the terminal: `featherweight methods`.",
        "",
    ]
    for group, meaning in GROUPS.items():
        lines += [f"## {group}: {meaning}", ""]
        for m in (describe(group, name) for name in sorted(registry.built_in(group))):
            lines += [f"### {m.name}", "", m.summary, ""]
            if m.papers:
                lines += ["Source: " + ", ".join(f"[arXiv:{p}](https://arxiv.org/abs/{p})" for p in m.papers), ""]
            if m.fields:
                lines += ["| field | type | default | may be | a space opens | meaning |", "|---|---|---|---|---|---|"]
                lines += ["| " + " | ".join(_cell(v) for v in dataclasses.astuple(f)) + " |" for f in m.fields]
                lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
