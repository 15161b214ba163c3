"""Reading front.json: which entries are shown, in what order, and what follows from their numbers.
Plain data in and out."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .. import registry
from ..errors import FeatherweightError
from ..limits import objectives
from ..recipe import decode
from ..records import Entry
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
    a baseline that is on the front stays among the baselines, the best is the best.
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
        if key not in out or role == "best":
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


def score(front: Json, entry: Json) -> float:
    """The mean logarithm of the objectives relative to the baseline's, as `StudyState.score`: less
    is better, 0 is the baseline."""
    asked = [str(name) for name in front.get("minimize") or ["latency", "size"]]
    values = objectives(Entry.from_json(entry), Entry.from_json(front["baseline"]), asked)
    return sum(math.log(max(v, 1e-12)) for v in values) / len(values)


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


def violation_text(violation: Json, entry: Json, reference: str = "original", samples: int | None = None) -> str:
    """What a violated constraint allows, what was measured of the entry and by how much it is
    broken. samples: of the test split, None: not known."""
    quantity, name = _quantity(violation), _metric(entry)
    value, bound = _measured(violation, entry, reference)
    word, asked = ("least", "asked") if quantity == "metric" else ("most", "allowed")
    what = {"metric": name, "drop": f"{name} drop"}.get(quantity, quantity)
    text = f"{what} is {value}{',' if ',' in value else ''} where at {word} {bound} is {asked}"
    if "chance" in violation and _held(violation) and quantity == "drop":
        text = f"{name} is {units.change(float(violation['value']), name)}, and {bound} is allowed"
    if "chance" not in violation or (violation["chance"] == 0.0 and quantity == "drop" and not _held(violation)):
        return text
    likely, wanted = odds(violation["chance"], violation["confidence"])
    return f"{text}: the chance of a certificate {_tested(samples)} is {likely}, and {wanted} is asked for"


def verdict_text(entry: Json, samples: int | None = None) -> str:
    """Whether an entry meets the limits; if not, which it breaks, what was measured and what is
    allowed; of a drop that is allowed but cannot be proven the chance of a certificate, and if that
    is all it lacks, it is `not proven`. samples: of the test split, None: not known."""
    if entry.get("feasible"):
        return "met"
    broken = entry.get("violations") or []
    word = "not proven" if broken and all(map(lacks_proof, broken)) else "broken"
    said = ", ".join(_short(v, entry, samples) for v in broken)
    return f"{word}: {said}" if said else word


def lacks_proof(violation: Json) -> bool:
    """Is it a floor that holds as it was measured, and only cannot be proven?"""
    return "chance" in violation and _held(violation)


def chance_text(entry: Json) -> str | None:
    """The chance of a certificate; of an entry that has too small a one never as that which is
    asked for. None if there is none."""
    if entry.get("chance") is None:
        return None
    for violation in entry.get("violations") or []:
        if "chance" in violation:
            return odds(violation["chance"], violation["confidence"])[0]
    return units.percent(entry["chance"])


def certified_text(entry: Json) -> str | None:
    """The verdict of a certificate, and what one that is not certifiable needs: `not certifiable:
    needs about 900 more test samples`. None if there is no certificate."""
    certificate = entry.get("certificate") or {}
    verdict, needs = certificate.get("verdict"), str(certificate.get("needs") or "")
    if verdict is None:
        return None
    if verdict != "not certifiable" or not needs:
        return str(verdict)
    more = re.match(r"about [0-9,]+ more test samples( to refute it)?", needs)
    return f"{verdict}: needs {more[0]}" if more else f"{verdict}: {needs}"


def odds(chance: float, wanted: float) -> tuple[str, str]:
    """A chance that is too small, and the one that is asked for, as texts that differ."""
    likely, asked = units.percent(chance), units.percent(wanted)
    if likely == asked:
        likely = f"{100 * chance:.1f} %"
    return (f"just under {asked}" if float(likely.split()[0]) >= float(asked.split()[0]) else likely), asked


def epochs(entry: Json) -> int:
    """Epochs that the candidate's own steps trained, those before the search not counted."""
    steps = [fields for step in (entry.get("recipe") or {}).get("recipe") or [] for fields in step.values()]
    return sum(int(f["epochs"]) for f in steps if isinstance(f, dict) and isinstance(f.get("epochs"), int))


def label(entry: Json) -> str:
    """What an entry is called in tables: its label, and its trial, or of a baseline how long it was
    trained."""
    if entry.get("trial") is not None:
        return f"{entry['label']} (trial {entry['trial']})"
    count = epochs(entry)
    return f"{entry['label']} ({units.many(count, 'epoch')})" if count else str(entry["label"])


def tested(front: Json) -> int | None:
    """Samples of the test split; None if nothing has to be shown on it."""
    return (front.get("proof") or {}).get("samples")


def _tested(samples: int | None) -> str:
    return "on test" if samples is None else f"with {samples:,} test samples"


def _quantity(violation: Json) -> str:
    return str(violation.get("constraint", "a constraint")).split(" ", 1)[0]


def _metric(entry: Json) -> str:
    return str((entry.get("metric") or {}).get("name", ""))


def _held(violation: Json) -> bool:
    """Is a broken floor one that holds as it was measured, and only cannot be proven?"""
    value, bound = float(violation["value"]), float(violation["bound"])
    return value <= bound if _quantity(violation) == "drop" else value >= bound


def _short(violation: Json, entry: Json, samples: int | None) -> str:
    """A violation in a few words: `drop 1.95 points, allowed 1 point`."""
    value, bound = _measured(violation, entry)
    if "chance" in violation and _held(violation):
        likely, wanted = odds(violation["chance"], violation["confidence"])
        proof = f"not provable {_tested(samples)} (chance {likely}, {wanted} asked)"
        return f"{_quantity(violation)} {value}, {proof}"
    return f"{_quantity(violation)} {value}, allowed {bound}"


def _measured(violation: Json, entry: Json, reference: str | None = None) -> tuple[str, str]:
    """What was measured of what a constraint is about, and what it allows. Of a latency the slow
    end of its interval is judged: `0.79x, up to 0.82x with 95 %`. What breaks a limit never reads
    like the limit. reference: what a multiple is of, if it is to be said."""
    name, quantity = _metric(entry), _quantity(violation)
    relative = quantity == "latency" and str(violation.get("constraint", "")).endswith("x")

    def show(value: float) -> str:
        if quantity == "drop":
            return units.difference(value, name)
        if quantity == "metric":
            return units.metric(value, name)
        return units.ratio(value) if relative else quantity_text(quantity, value)

    of = f" the {reference}'s" if relative and reference else ""
    value, bound = show(float(violation["value"])), show(float(violation["bound"]))
    if value == bound and not ("chance" in violation and _held(violation)):
        value = f"just {'under' if quantity == 'metric' else 'over'} {bound}"
    if quantity == "latency":
        ratio = (entry.get("speedup") or {}).get("ratio")
        middle = 1.0 / float(ratio) if relative and ratio else (entry.get("latency_ms") or {}).get("median")
        if middle is not None and show(middle) != value:
            return f"{show(middle)}{of}, up to {value} with 95 %", f"{bound}{of}"
    return f"{value}{of}", f"{bound}{of}"


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
    out = [_step(s) for s in steps if not _idle(s)]
    return out or [f"The {'original model' if reference == 'original' else reference}, as it is"]


def _idle(step: Any) -> bool:
    """Does a filled step leave the model as it is?"""
    if not isinstance(step, dict) or len(step) != 1:
        return False
    kind, fields = next(iter(step.items()))
    if kind not in registry.names("transforms") or not isinstance(fields, dict):
        return False
    try:
        return bool(decode(step).idle)
    except FeatherweightError:  # of another release, or a plug-in's
        return False


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
