"""The model card: what the artifact is, how it was made, what was measured,
and how to run it. Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from .. import registry
from ..deploy.predict import RUNTIMES
from ..errors import InputError
from ..targets.base import Target
from . import units
from .rows import (
    Json,
    constraint_text,
    drop,
    named,
    pair,
    recipe_steps,
    reference,
    size_ratio,
    target_text,
    tested,
    violation_text,
)
from .words import certificate, lucky, speed, unseen_classes

_DTYPES = {"float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"}


def model_card(front: Json, entry: Json, info: Json, config: Json) -> str:
    """MODEL_CARD.md of one entry. `info["inputs"]`: {name: {"shape": [...], "dtype": ...}}, batch
    first; `info["splits"]`: the data's report; `info["prepared"]`: how inputs are made."""
    front = named(front, config)
    task = plain(front.get("task"))
    parts = [
        f"# {task}: {plain(entry['label'])}",
        "",
        *_what(front, entry),
        "",
        "## How it was made",
        "",
        *(f"{i}. {plain(s)}" for i, s in enumerate(recipe_steps(entry.get("recipe"), reference(front)), 1)),
        "",
        *_recipe(entry),
        *_coverage(entry),
        "## What was measured",
        "",
        *_numbers(front, entry),
        "",
        " ".join(map(plain, [certificate(entry, front.get("uncertified")), *unseen_classes(front)])),
        "",
        *_limits(front, entry),
        "",
        "## How to run it",
        "",
        *([plain(info["prepared"]), ""] if info.get("prepared") else []),
        _asked(entry),
        "",
        *snippet(entry, info),
        "",
        "The weights that this file was made from, as a module of PyTorch (safetensors in `model/`; `make` makes the "
        "original's architecture):",
        "",
        "```python",
        "import featherweight as fw",
        "",
        f'module = fw.load_model("model"{_builder(entry, config)})',
        "```",
        "",
        "## Intended use and limits",
        "",
        *_use(info, config),
        "",
        "## Licence",
        "",
        "The licence of this model is that of the model and the data that it was made from. "
        "Featherweight adds no terms of its own; whoever passes the model on answers for its licence.",
        "",
        "## Identity",
        "",
        f"- artifact sha256: `{_code(entry.get('sha256'))}` (each file's is in `manifest.json`)",
        f"- target: `{_code(entry.get('target') or target_text(front.get('target')))}`",
        f"- study seed: {plain(front.get('seed'))}"
        + ("" if entry.get("trial") is None else f", trial {entry['trial']}"),
        "",
    ]
    return "\n".join(parts)


def plain(text: Any) -> str:
    """Text that Markdown (and HTML in it) shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", " ".join(str(text).split()))


def _code(text: Any) -> str:
    return " ".join(str(text).split()).replace("`", "'")


def _what(front: Json, entry: Json) -> list[str]:
    target = _code(entry.get("target") or target_text(front.get("target")))
    return [
        f"A model for the task {plain(front.get('task'))}, made by Featherweight for the target `{target}`: "
        f"{units.size(entry['size_bytes'])}, "
        f"{units.count(entry.get('params'))} parameters. {plain(speed(entry, reference(front))).capitalize()}."
        + " ".join(["", *lucky(front)])
        + ("" if entry.get("feasible") else " **It does not meet the limits of its study: see below.**")
    ]


def _recipe(entry: Json) -> list[str]:
    if not entry.get("recipe"):
        return []
    return ["The exact recipe:", "", "```json", json.dumps(entry["recipe"], indent=1).replace("```", "'''"), "```", ""]


def _coverage(entry: Json) -> list[str]:
    """What runs in integers and what does not, for a quantized artifact."""
    found = entry.get("coverage") or {}
    if not found:
        return []

    def counted(what: Json) -> str:
        return ", ".join(f"{n} {plain(name)}" for name, n in what.items()) or "none"

    layers = [f"- {n} layers: {plain(how)}" for how, n in (found.get("layers") or {}).items()]
    return [
        (
            f"Operators that compute with integers: {counted(found.get('quantized') or {})}. "
            f"In floating point: {counted(found.get('float') or {})}."
        ),
        "",
        *layers,
        *([""] if layers else []),
    ]


def _numbers(front: Json, entry: Json) -> list[str]:
    baseline = front.get("baseline")
    name = str(entry["metric"]["name"])
    other = baseline or {}

    def row(what: str, mine: str, theirs: str) -> str:
        return f"| {plain(what)} | {plain(mine)} | {plain(theirs)} |"

    def metric(e: Json) -> str:
        if not e:
            return units.NONE
        ends = pair(e["metric"].get("ci95"))
        interval = (
            f" (95 % interval {units.between(*(units.metric(v, name) for v in ends))}, n = {e['metric'].get('n')})"
            if ends
            else f" (n = {e['metric'].get('n')})"
        )
        return units.metric(e["metric"].get("value"), name) + interval

    def latency(e: Json) -> str:
        lat = e.get("latency_ms") or {}
        return (
            (
                f"{units.milliseconds(lat.get('median'))} median, {units.milliseconds(lat.get('p90'))} p90 "
                f"(n = {lat.get('n')})"
            )
            if lat
            else units.NONE
        )

    speeds = pair(entry["speedup"].get("ci95"))
    interval = (
        (
            f" (95 % interval {units.between(*(units.ratio(s) for s in speeds))}, "
            f"{entry['speedup'].get('clock', 'wall')} time)"
        )
        if speeds
        else ""
    )
    split = entry["metric"].get("split", "valid")
    return [
        f"| | this model | the {reference(front)} |",
        "|---|---|---|",
        row(f"{name} on the {split} split", metric(entry), metric(other)),
        row("drop", units.difference(drop(entry, baseline), name), ""),
        row("latency of one inference", latency(entry), latency(other)),
        row(f"speed, {reference(front)} = 1", units.ratio(entry["speedup"].get("ratio")) + interval, "1.00x"),
        row(
            "size",
            f"{units.size(entry['size_bytes'])} ({units.percent(size_ratio(entry, baseline))})",
            units.size(other.get("size_bytes")),
        ),
        row(
            "peak memory of a process",
            units.size(entry.get("peak_memory_bytes")),
            units.size(other.get("peak_memory_bytes")),
        ),
        row("parameters", units.count(entry.get("params")), units.count(other.get("params"))),
        row("multiply-accumulates", units.count(entry.get("macs")), units.count(other.get("macs"))),
    ]


def _limits(front: Json, entry: Json) -> list[str]:
    name = str(entry["metric"]["name"])
    asked = "; ".join(constraint_text(c, name, reference(front)) for c in front.get("constraints") or []) or "none"
    broken = [violation_text(v, entry, reference(front), tested(front)) for v in entry.get("violations") or []]
    said = (entry.get("certificate") or {}).get("verdict")
    if not entry.get("feasible"):
        told = "This model does **not** meet all of them on the validation split"
    elif said == "certified":
        told = "This model meets all of them: the floor by its certificate, the others as they were measured"
    elif said is not None and floor(front):
        told = "This model meets them as far as the validation split tells; that it keeps the floor is not proven"
    else:
        told = "This model meets all of them on the validation split"
    return [
        f"Limits that were asked for: {plain(asked)}. {told}" + (f": {plain('; '.join(broken))}." if broken else ".")
    ]


def floor(front: Json) -> bool:
    """Was a floor asked for?"""
    return any(c.get("quantity") in ("drop", "metric") for c in front.get("constraints") or [])


def _use(info: Json, config: Json) -> list[str]:
    out = [
        "It is meant for inputs like those it was measured on, and nothing is known about others: "
        "shift, rare classes and misuse were not tested. "
        "The numbers above hold for the machine, the runtime and the threads named here; "
        "measure again where it will run (`featherweight measure FOLDER`)."
    ]
    machine = info.get("machine") or {}
    facts = [
        f"{k.replace('_', ' ')}: {v}"
        for k, v in machine.items()
        if isinstance(v, (str, int, float)) and not isinstance(v, bool)
    ]
    if facts:
        out += ["", "- machine: " + plain("; ".join(facts))]
    for key, value in (info.get("splits") or {}).items():
        if isinstance(value, (dict, list)) and len(value) > 20:
            value = f"{len(value)} values, see report.html"
        out.append(
            f"- data, {plain(str(key).replace('_', ' '))}: "
            f"{plain(value if isinstance(value, (str, int, float)) else json.dumps(value))}"
        )
    return out


def _asked(entry: Json) -> str:
    """How the model is asked, in words."""
    ours = "`featherweight predict FOLDER SAMPLE` asks the model, and `featherweight verify FOLDER` tells whether it "
    ours += "gives here what it gave where it was made. "
    alone = "`python predict.py SAMPLE` and `python predict.py --check` do so without Featherweight "
    alone += "(`pip install -r requirements.txt`). "
    known = str(entry.get("target", "")).split(":")[0] in RUNTIMES
    return ours + (alone if known else "") + "What goes in and comes out is in `deployment.json`."


def _builder(entry: Json, config: Json) -> str:
    """The second argument of `load_model`: none of a net that its recipe builds."""
    steps = (entry.get("recipe") or {}).get("recipe") or []
    if steps and "build" in steps[0]:
        return ""
    ref = config.get("task") or {}
    return f", fw.load_task({json.dumps(ref)}).build" if "kind" in ref else ", make"


def _example(inputs: Json, batch: int) -> list[str]:
    """Source lines that make example inputs; a dtype that numpy does not have is refused as
    text, never run."""
    lines = ["inputs = {"]
    for name, spec in inputs.items():
        dtype = str(spec["dtype"]).removeprefix("np.").removeprefix("numpy.")
        shape: Sequence[int] = [batch, *(int(d) for d in list(spec["shape"])[1:])]
        lines.append(
            f"    {str(name)!r}: np.zeros({tuple(shape)!r}, dtype=np.{dtype if dtype in _DTYPES else 'float32'}),  "
            "# your data here"
        )
    return [*lines, "}"]


def snippet(entry: Json, info: Json) -> list[str]:
    """A fenced Python example that loads and runs the artifact from its folder,
    or a sentence if the runtime has none."""
    text, inputs = str(entry.get("target", "")), info.get("inputs") or {}
    runtime = text.split(":")[0]
    try:
        target = Target.parse(text)
        body = registry.find("targets", runtime)().snippet(target, _example(inputs, target.batch)) if inputs else None
    except InputError:  # of another version, or of a plug-in that is not here
        body = None
    if body is None:
        return [f"Load the files named in `manifest.json` with {plain(runtime or 'its runtime')}."]
    own = runtime in registry.built_in("targets")  # called as its package is
    return [
        "In the folder of this file" + (f" (`pip install {runtime} numpy`):" if own else ":"),
        "",
        "```python",
        *body,
        "print(output.shape)",
        "```",
    ]
