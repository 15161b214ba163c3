"""Reading front.json: which entries are shown, in what order, and what follows from their numbers.
Plain data in and out."""

from __future__ import annotations

import json
from typing import Any

from .. import registry
from . import units

Json = dict[str, Any]


def pair(values: Any) -> tuple[float, float] | None:
    """An interval's two ends, or None if it was not measured."""
    if not isinstance(values, (list, tuple)) or len(values) != 2 or any(v is None for v in values):
        return None
    return float(values[0]), float(values[1])


def identity(entry: Json) -> tuple[Any, ...]:
    """What makes two lines of the table the same candidate."""
    return (entry.get("trial"), entry.get("label"), entry.get("target"), entry.get("sha256"))


def listing(front: Json) -> list[tuple[str, Json]]:
    """(role, entry) of every line, each entry once: the original, the other baselines, the front,
    the nearest if nothing is feasible.

    Roles: `original`, `baseline`, `front`, `best`, `nearest`;
    a baseline that is on the front stays among the baselines.
    """
    best, nearest = front.get("best"), front.get("nearest")
    wanted = [
        ("original", front.get("baseline")),
        *(("baseline", e) for e in front.get("baselines") or []),
        *(("front", e) for e in front.get("front") or []),
        ("best", best),
        ("nearest", None if best else nearest),
    ]
    out: dict[tuple[Any, ...], tuple[str, Json]] = {}
    for role, entry in wanted:
        if entry is None:
            continue
        key = identity(entry)
        if key not in out or (role == "best" and out[key][0] == "front"):
            out[key] = (role, entry)
    return list(out.values())


def is_best(front: Json, entry: Json) -> bool:
    """Is this the entry that the study chose?"""
    return front.get("best") is not None and identity(front["best"]) == identity(entry)


def named(front: Json, config: Json) -> Json:
    """`front` with what its baseline is called: the task's own model is "the original", without one
    the baseline is "the fixed net"."""
    return {"reference": "fixed net" if config.get("baseline") else "original", **front}


def reference(front: Json) -> str:
    """What the baseline is called, without an article: `original` or `fixed net`."""
    return str(front.get("reference") or "original")


def metric_name(front: Json) -> str:
    """The name of the metric that the study was about."""
    return str(((front.get("baseline") or {}).get("metric") or {}).get("name", "metric"))


def drop(entry: Json, baseline: Json | None) -> float | None:
    """How much worse the metric is than the baseline's, on the split that the search saw;
    negative if it is better."""
    if baseline is None:
        return None
    sign = 1.0 if entry["metric"].get("higher_is_better", True) else -1.0
    return sign * (float(baseline["metric"]["value"]) - float(entry["metric"]["value"]))


def size_ratio(entry: Json, baseline: Json | None) -> float | None:
    """Bytes as a multiple of the baseline's."""
    if baseline is None or not baseline.get("size_bytes"):
        return None
    return float(entry["size_bytes"]) / float(baseline["size_bytes"])


def speed_claim(speedup: Json) -> str:
    """`faster`, `slower` or `no difference shown`: a claim is made only if the 95 %
    interval leaves out 1.0."""
    from ..measure.latency import faster

    return "no difference shown" if pair(speedup.get("ci95")) is None else faster(speedup)


def latency_interval(entry: Json) -> tuple[float, float] | None:
    """The 95 % interval of the latency as a multiple of the baseline's (the reciprocal
    of the speedup's)."""
    ends = pair(entry["speedup"].get("ci95"))
    return None if ends is None or ends[0] <= 0 else (1.0 / ends[1], 1.0 / ends[0])


def target_text(target: Any) -> str:
    """A target as it is written on the command line."""
    if not isinstance(target, dict):
        return str(target)
    if target.get("runtimes"):
        return ", ".join(map(str, target["runtimes"]))
    if "runtime" not in target:
        return ", ".join(f"{k} {v}" for k, v in target.items())
    parts = [str(target["runtime"])] + ([str(target["dtype"])] if target.get("dtype", "fp32") != "fp32" else [])
    parts += [f"{k}={target[k]}" for k in ("threads", "batch") if target.get(k, 1) != 1]
    return ":".join(parts + ([f"device={target['device']}"] if target.get("device", "cpu") != "cpu" else []))


def constraint_text(constraint: Any, metric_name: str = "", reference: str = "original") -> str:
    """A constraint (JSON or text) in words: `drop at most 1.0 point`,
    `latency at most 0.70x the original's`."""
    if not isinstance(constraint, dict) or "quantity" not in constraint:
        return str(constraint)
    quantity, bound = str(constraint["quantity"]), float(constraint["bound"])
    if quantity == "drop":
        return f"{metric_name or 'metric'} drop at most {units.difference(bound, metric_name)}"
    if quantity == "metric":
        return f"{metric_name or 'metric'} at least {units.metric(bound, metric_name)}"
    return f"{quantity} at most " + (
        f"{units.ratio(bound)} the {reference}'s" if constraint.get("relative") else quantity_text(quantity, bound)
    )


def quantity_text(quantity: str, value: float) -> str:
    """A value of a constrained quantity with its unit: latency in ms, size and memory in bytes,
    the rest counts."""
    if quantity in ("latency", "latency_ms"):
        return units.milliseconds(value)
    return units.size(value) if quantity in ("size", "memory") else units.count(value)


def violation_text(violation: Json, metric_name: str = "", reference: str = "original") -> str:
    """What a violated constraint allows, what was measured and by how much it is broken."""
    text = str(violation.get("constraint", "a constraint"))
    quantity = text.split(" ", 1)[0]
    value, bound = float(violation["value"]), float(violation["bound"])
    if quantity == "drop":
        shown = [units.difference(v, metric_name) for v in (value, bound)]
    elif quantity == "metric":
        shown = [units.metric(v, metric_name) for v in (value, bound)]
    elif quantity == "latency" and text.endswith("x"):
        shown = [f"{units.ratio(v)} the {reference}'s" for v in (value, bound)]
    else:
        shown = [quantity_text(quantity, v) for v in (value, bound)]
    word = "least" if quantity == "metric" else "most"
    name = (
        metric_name or "metric"
        if quantity == "metric"
        else f"{metric_name} drop".strip()
        if quantity == "drop"
        else quantity
    )
    text = f"{name} is {shown[0]} where at {word} {shown[1]} is allowed"
    if "chance" not in violation:
        return text
    likely, wanted = units.percent(violation["chance"]), units.percent(violation["confidence"])
    if violation["chance"] == 0.0 and quantity == "drop" and value > bound:
        return text
    return f"{text}: the chance of a certificate is {likely}, and {wanted} is asked for"


def verdict_text(entry: Json, metric_name: str = "") -> str:
    """Whether an entry meets the limits; if not, which it breaks, what was measured and what is
    allowed; of a drop that is allowed but cannot be proven the chance of a certificate."""
    if entry.get("feasible"):
        return "met"
    said = [_short(v, metric_name) for v in entry.get("violations") or []]
    return "broken: " + ", ".join(said) if said else "broken"


def _short(violation: Json, metric_name: str) -> str:
    """A violation in a few words: `drop 1.95 points, allowed 1`."""
    text, value, bound = str(violation.get("constraint", "?")), violation["value"], violation["bound"]
    quantity = text.split(" ", 1)[0]
    if quantity in ("drop", "metric"):
        show = units.difference if quantity == "drop" else units.metric
        if "chance" in violation and (value <= bound if quantity == "drop" else value >= bound):
            likely = units.percent(violation["chance"])
            return f"{quantity} {show(value, metric_name)}, certified with a chance of {likely}"
        return f"{quantity} {show(value, metric_name)}, allowed {show(bound, metric_name)}"
    if quantity == "latency" and text.endswith("x"):
        return f"latency {units.ratio(value)}, allowed {units.ratio(bound)}"
    return f"{quantity} {quantity_text(quantity, value)}, allowed {quantity_text(quantity, bound)}"


def filling_text(filling: Json | None) -> str:
    """A filling as `prune.ratio=0.5, quantize=on`."""
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in (filling or {}).items())


def trial_label(trial: Json) -> str:
    """What a trial is called in tables: its entry's label, else its recipe, else its filling."""
    entry = trial.get("entry")
    if entry:
        return str(entry["label"])
    recipe = trial.get("recipe")
    return recipe if isinstance(recipe, str) else filling_text(trial.get("filling")) or json.dumps(recipe)


def recipe_steps(recipe: Any, reference: str = "original") -> list[str]:
    """One sentence a step of a filled recipe's JSON; `as it is` alone for the empty recipe."""
    steps = (
        recipe.get("recipe", [])
        if isinstance(recipe, dict)
        else recipe
        if isinstance(recipe, list)
        else [recipe]
        if recipe
        else []
    )
    out = [_step(s) for s in steps]
    return out or [f"The {'original model' if reference == 'original' else reference}, as it is"]


def _step(step: Any) -> str:
    if not isinstance(step, dict) or len(step) != 1:
        return str(step)
    kind, fields = next(iter(step.items()))
    shown = (
        ", ".join(f"{k.replace('_', ' ')} {_value(v)}" for k, v in (fields or {}).items() if v not in (None, [], ""))
        if isinstance(fields, dict)
        else _value(fields)
    )
    said = registry.find("transforms", kind).says if kind in registry.names("transforms") else ""
    return (said or kind.replace("_", " ").capitalize()) + (f": {shown}" if shown else "")


def _value(value: Any) -> str:
    if isinstance(value, dict) and "recipe" in value:
        return "(" + " > ".join(recipe_steps(value)) + ")"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).strip('"')
