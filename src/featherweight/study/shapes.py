"""What the events of a study's log are made of: a log may come from anybody, with seals and all,
and what is told of it later relies on this."""

from __future__ import annotations

from typing import Any

from ..records import Entry, Event

_NUMBERS = ("drop", "n", "level", "upper", "p", "max_drop", "min_metric", "value", "lower", "looks")
_KEPT = ("copies", "sets")  # what the data's report counts of copies, and of labels that contradict


def check_recipe(data: Any) -> None:
    """TypeError if JSON data are no steps by name, each with its fields."""
    steps = data.get("recipe") if isinstance(data, dict) else data
    if not isinstance(steps, list) or not all(map(_by_name, steps)):
        raise TypeError(f"recipe {data!r:.200}")


def check_proposal(event: Event) -> None:
    """TypeError if an event proposes no trial."""
    check_recipe(event["recipe"])
    odd = [k for k in ("filling", "note", "features", "proxy") if not isinstance(event.get(k, {}), dict)]
    if odd or not isinstance(event["target"], str) or not _number(event.get("propose_s", 0.0)):
        raise TypeError(f"{odd[0] if odd else 'target or propose_s'} of trial {event['trial']}")


def check_entry(entry: Entry) -> None:
    """ValueError or TypeError if a measurement says what none says."""
    entry.check()
    check_recipe(entry.recipe)
    odd = [name for name in ("parity", "coverage", "filling") if not isinstance(getattr(entry, name), dict)]
    if (
        odd
        or not isinstance(entry.violations, list)
        or not isinstance(entry.graph, str | None)
        or not isinstance(entry.trial, int | None)
    ):
        raise TypeError(f"{', '.join(odd) or 'violations, graph or trial'} of {entry.label!r:.80}")


def check_info(info: Any) -> None:
    """TypeError if JSON data are not what a study knows of its data and its machine."""
    if not isinstance(info, dict) or not all(isinstance(info.get(k, {}), dict) for k in ("machine", "metric")):
        raise TypeError(f"info {info!r:.80}")
    splits = info.get("splits", {})
    if not isinstance(splits, dict) or not _by_name(info.get("inputs", {})):
        raise TypeError(f"splits {splits!r:.80}, or inputs")
    fits = {name: _counts(splits.get(name) or {}) for name in ("sizes", "evidence")}

    classes = {} if splits.get("classes") is None else splits["classes"]
    fits["classes"] = _by_name(classes) and all(map(_counts, classes.values()))
    fits["class_names"] = _texts(splits.get("class_names"))
    for name in ("duplicates", "label_conflicts"):
        part = splits.get(name, {})
        fits[name] = isinstance(part, dict) and all(isinstance(part.get(k, 0), int) for k in _KEPT)
    if wrong := [name for name, fit in fits.items() if not fit]:
        raise TypeError(f"splits: {wrong[0]} {splits[wrong[0]]!r:.80}")


def check_yardstick(said: Any) -> None:
    """TypeError if JSON data are no value of something simpler, with its name."""
    quality = said.get("metric") if isinstance(said, dict) else None
    if not isinstance(quality, dict) or not isinstance(said.get("name"), str) or not _number(quality.get("value")):
        raise TypeError(f"yardstick {said!r:.80}")


def check_certificate(said: Any) -> None:
    """TypeError if JSON data are no certificate: a verdict in words, numbers, and what is told of
    the samples behind them."""
    if not isinstance(said, dict) or not isinstance(said.get("verdict"), str):
        raise TypeError(f"certificate {said!r:.80}")
    odd = [k for k in _NUMBERS if not _number(said.get(k, 0))]
    odd += [k for k in ("reason", "split", "needs") if not isinstance(said.get(k), str | int | float | None)]
    odd += [] if "ci95" not in said or _interval(said["ci95"]) else ["ci95"]
    odd += [] if said.get("chance") is None or _number(said["chance"]) else ["chance"]
    odd += [] if _differences(said.get("differences")) else ["differences"]
    if odd:
        raise TypeError(f"certificate: {odd[0]} {said[odd[0]]!r:.80}")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _interval(ends: Any) -> bool:
    return isinstance(ends, list) and len(ends) == 2 and all(map(_number, ends))


def _differences(said: Any) -> bool:
    """Are these what `measure.differences` tells: rows of words and numbers, and how many?"""
    if said is None:
        return True
    rows = [said.get(k) or [] for k in ("classes", "mistakes", "samples")] if isinstance(said, dict) else [0]
    counts = [said.get(k, 0) for k in ("lost", "won")] if isinstance(said, dict) else []
    return all(isinstance(part, list) and all(map(_row, part)) for part in rows) and all(map(_number, counts))


def _row(said: Any) -> bool:
    """Words and numbers by name; of what is counted, numbers."""
    return isinstance(said, dict) and all(isinstance(v, str) or _number(v) for v in said.values())


def _by_name(data: Any) -> bool:
    """Is it JSON data with mappings by name?"""
    return isinstance(data, dict) and all(isinstance(v, dict) for v in data.values())


def _counts(data: Any) -> bool:
    """Are these numbers of samples by name?"""
    return isinstance(data, dict) and all(isinstance(v, int) and 0 <= v < 2**63 for v in data.values())


def _texts(data: Any) -> bool:
    """Names, or none?"""
    return data is None or isinstance(data, list) and all(isinstance(v, str) for v in data)
