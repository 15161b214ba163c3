"""The report as one HTML file that needs no network: Plotly's script is inside, the tables are there without script too."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from . import units
from .figures import MAX_POINTS, figures
from .rows import (
    Json,
    constraint_text,
    drop,
    identity,
    is_best,
    listing,
    pair,
    recipe_steps,
    size_ratio,
    speed_claim,
    target_text,
    trial_label,
    verdict_text,
)
from .table import COLUMNS, ROLES, cells
from .words import command, next_command, summary

MAX_ROWS = 1000  # a page with more rows is slow to open; all are in study.db
MAX_FAILURES = 200
Cell = dict[str, Any]


def write(path: Path, front: Json, trials: Sequence[Json], info: Json, config: Json) -> Path:
    """Write the report; `front`, `trials`, `info`, `config` are those of `Study`. Written beside and renamed, so never half a page."""
    path = Path(path)
    text = render(front, trials, info, {"out": str(path.parent), **config})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def render(front: Json, trials: Sequence[Json], info: Json, config: Json) -> str:
    """The page's text. Everything that comes from users is escaped, in the tables by Jinja, in the script's data by `_script_json`."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    plots = figures(front, trials, config)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    sections = [("candidates", "Front"), *([("tradeoffs", "Trade-offs"), ("history", "History")] if plots else []), ("trials", "Trials"), ("failures", "Failures"),
                ("how", "What was measured"), ("again", "Do it again")]
    out = str(config.get("out") or "OUT")
    return environment.from_string(_asset("page.html.j2")).render(
        task=str(front.get("task")),
        target=target_text(front.get("target")),
        seed=front.get("seed"),
        sections=sections,
        summary=summary(front),
        tiles=_tiles(front),
        figures=plots,
        figures_json=Markup(_script_json(plots)),
        crowded=_crowded(trials),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        front_table=_front_table(front),
        recipe=_recipe(front),
        trial_table=_trial_table(front, trials),
        trial_note=_trial_note(trials),
        failures=_failures(trials),
        failure_note=_failure_note(trials),
        measured=_measured(front),
        facts=_facts(front, trials, info, config),
        clock=_clock(front),
        command=command(config),
        rerun=f"featherweight optimize {out}/run.yaml --out {out}-again",
        next=next_command(front, out),
    )


def _script_json(data: Any) -> str:
    """JSON that cannot end a script element or break a line, and has no NaN."""
    text = json.dumps(_finite(data), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(text: Any, sort: Any = None) -> Cell:
    return {"text": str(text), "sort": text if sort is None else sort}


def _table(caption: str, head: Sequence[tuple[str, str]], rows: list[Json], sortable: bool = False) -> Json:
    """head: (text, kind) with kind "n" for numbers, "w" for what may be long, "" else."""
    return {"caption": caption, "head": [{"text": t, "number": k == "n", "wide": k == "w"} for t, k in head], "rows": rows, "sortable": sortable}


def _tiles(front: Json) -> list[Json]:
    """The four numbers of the chosen candidate, large."""
    best, baseline = front.get("best"), front.get("baseline")
    if best is None or baseline is None:
        return []
    name, ends = str(best["metric"]["name"]), pair(best["speedup"].get("ci95"))
    interval = units.between(*(units.ratio(e) for e in ends)) if ends else "no interval"
    certificate = best.get("certificate") or {}
    return [
        {"name": "speed, original = 1", "value": units.ratio(best["speedup"].get("ratio")), "note": f"{interval}; {speed_claim(best['speedup'])}"},
        {
            "name": "size",
            "value": units.percent(size_ratio(best, baseline)),
            "note": f"{units.size(best['size_bytes'])} against {units.size(baseline['size_bytes'])}",
        },
        {
            "name": f"{name} ({best['metric'].get('split', 'valid')})",
            "value": units.metric(best["metric"]["value"], name),
            "note": f"original {units.metric(baseline['metric']['value'], name)}",
        },
        {
            "name": "drop on the test split",
            "value": units.difference(certificate.get("drop"), name),
            "note": certificate.get("verdict", "no certificate"),
        },
    ]


def _crowded(trials: Sequence[Json]) -> str:
    n = sum(1 for t in trials if t.get("entry"))
    return f"{n} candidates were measured; the plots show the front and an even selection of about {MAX_POINTS} others." if n > MAX_POINTS else ""


def _front_table(front: Json) -> Json:
    name = str(((front.get("baseline") or {}).get("metric") or {}).get("name", "metric"))
    rows = []
    for role, e in listing(front):
        best = is_best(front, e)
        words = "best" if best else ROLES[role]
        trial = "" if e.get("trial") is None else f" (trial {e['trial']})"
        kept = "-" if role == "original" else verdict_text(e)
        rows.append({"best": best, "cells": [_cell(words), _cell(f"{e['label']}{trial}"), _cell(e.get("target", "")), *(_cell(_broken_up(c)) for c in cells(e, front.get("baseline"))), _cell(kept)]})
    head = [("", ""), ("candidate", "w"), ("target", ""), *((c.replace("metric", name), "" if c == "certificate" else "n") for c in COLUMNS), ("limits", "w")]
    return _table("Every number with its 95 % interval in brackets. Size and speedup are against the original.", head, rows)


def _recipe(front: Json) -> Json | None:
    entry = front.get("best") or front.get("nearest")
    return None if entry is None else {"what": "best" if front.get("best") else "nearest", "steps": recipe_steps(entry.get("recipe"))}


def _rank(trial: Json) -> tuple[float, float]:
    e = trial.get("entry")
    if not e:
        return (math.inf, math.inf)
    return (sum(float(v.get("excess", 0)) for v in e.get("violations") or []), float(e["size_bytes"]) / max(float(e["speedup"]["ratio"]), 1e-9))


def _trial_table(front: Json, trials: Sequence[Json]) -> Json:
    shown = trials if len(trials) <= MAX_ROWS else sorted(sorted(trials, key=_rank)[:MAX_ROWS], key=lambda t: int(t["number"]))
    name = str(((front.get("baseline") or {}).get("metric") or {}).get("name", "metric"))
    top = {identity(e) for e in front.get("front") or []}
    head = [("trial", "n"), ("state", ""), ("candidate", "w"), ("target", ""), (name, "n"), ("drop", "n"), ("latency", "n"), ("speedup [95 %]", "n"), ("size", "n"), ("memory", "n"),
            ("parameters", "n"), ("MACs", "n"), ("limits", "w"), ("time", "n"), ("reused steps", "n")]
    rows = [{"best": bool(t.get("entry")) and is_best(front, t["entry"]), "cells": _trial_cells(t, front.get("baseline"), name, top)} for t in shown]
    return _table("All trials. Click a heading to sort.", head, rows, sortable=True)


def _broken_up(text: str) -> str:
    """Intervals and ratios on a second line, so that the table fits the page."""
    return text.replace(" [", "\n[").replace(" (", "\n(")


def _trial_cells(t: Json, baseline: Json | None, name: str, top: set[tuple[Any, ...]]) -> list[Cell]:
    e = t.get("entry")
    out = [_cell(t["number"]), _cell(t["state"]), _cell(trial_label(t)), _cell((e or t).get("target") or "")]
    if e:
        text = [_broken_up(c) for c in cells(e, baseline)]
        out += [
            _cell(units.metric(e["metric"]["value"], name), e["metric"]["value"]),
            _cell(text[1], drop(e, baseline)),
            _cell(text[2], e["latency_ms"].get("median")),
            _cell(text[3], e["speedup"].get("ratio")),
            _cell(text[4], e["size_bytes"]),
            _cell(text[5], e.get("peak_memory_bytes")),
            _cell(units.count(e.get("params")), e.get("params")),
            _cell(units.count(e.get("macs")), e.get("macs")),
            _cell("on the front" if identity(e) in top else verdict_text(e)),
        ]
    else:
        out += [_cell("") for _ in range(8)] + [_cell("")]
    return [*out, _cell(units.seconds(t.get("seconds")), t.get("seconds")), _cell(f"{t.get('reused') or 0} of {t.get('steps') or 0}", t.get("reused") or 0)]


def _trial_note(trials: Sequence[Json]) -> str:
    if len(trials) <= MAX_ROWS:
        return ""
    return f"The {MAX_ROWS} best of {len(trials)} trials (those that meet the limits first, then the smallest and quickest). All of them are in study.db."


def _failed(trials: Sequence[Json]) -> list[Json]:
    return [t for t in trials if t["state"] == "failed"]


def _failures(trials: Sequence[Json]) -> Json:
    rows = [{"best": False, "cells": [_cell(t["number"]), _cell(trial_label(t)), _cell(t.get("reason") or "no reason was recorded"), _cell(units.seconds(t.get("seconds")), t.get("seconds"))]}
            for t in _failed(trials)[:MAX_FAILURES]]
    return _table("Trials that failed, with the reason. A failed trial never ends a study.", [("trial", "n"), ("candidate", "w"), ("reason", "w"), ("time", "n")], rows, sortable=True)


def _failure_note(trials: Sequence[Json]) -> str:
    failed = _failed(trials)
    reasons = Counter((str(t.get("reason") or "no reason was recorded").splitlines() or [""])[0] for t in failed).most_common(5)
    text = f"{len(failed)} of {len(trials)} trials failed. Most often: " + "; ".join(f"{reason} ({n}x)" for reason, n in reasons) + "."
    return text + (f" The first {MAX_FAILURES} are listed." if len(failed) > MAX_FAILURES else "")


def _measured(front: Json) -> Json:
    """How well each line of the front table was measured: samples, timings, load, parity."""
    rows = []
    for _, e in listing(front):
        lat, s, parity = e["latency_ms"], e["speedup"], e.get("parity") or {}
        load = lat.get("load")
        agrees = ", ".join(f"{k.replace('_', ' ')} {v:.3g}" if isinstance(v, float) else f"{k.replace('_', ' ')} {v}" for k, v in parity.items())
        rows.append(
            {
                "best": is_best(front, e),
                "cells": [
                    _cell(e["label"]),
                    _cell(e["metric"].get("n", "")),
                    _cell(units.milliseconds(lat.get("median"))),
                    _cell(units.milliseconds(lat.get("p90"))),
                    _cell(units.milliseconds(lat.get("cpu_median"))),
                    _cell(lat.get("n", "")),
                    _cell(units.percent(load) if isinstance(load, (int, float)) else units.NONE),
                    _cell(s.get("clock", "")),
                    _cell(agrees or units.NONE),
                    _cell(str(e.get("sha256", ""))[:12]),
                ],
            }
        )
    head = [("candidate", "w"), ("samples", "n"), ("median", "n"), ("p90", "n"), ("CPU median", "n"), ("timings", "n"), ("foreign load", "n"), ("clock", ""), ("parity with PyTorch", "w"), ("sha256", "")]
    return _table("Times are of one inference; foreign load is the share of the machine that other programs used meanwhile.", head, rows)


def _clock(front: Json) -> str:
    clocks = sorted({str(e["speedup"].get("clock")) for _, e in listing(front) if e["speedup"].get("clock")})
    words = {"cpu": "processor time, far steadier than wall time on a shared machine", "wall": "wall time"}
    return f" (of {' or '.join(words.get(c, c) for c in clocks)})" if clocks else ""


def _facts(front: Json, trials: Sequence[Json], info: Json, config: Json) -> list[tuple[str, Any]]:
    """What else is known, as (heading, tree of values)."""
    name = str(((front.get("baseline") or {}).get("metric") or {}).get("name", ""))
    steps, reused = (sum(int(t.get(k) or 0) for t in trials) for k in ("steps", "reused"))
    asked = {
        "task": config.get("task"),
        "limits": [constraint_text(c, name) for c in front.get("constraints") or []],
        "to be minimised": config.get("minimize"),
        "strategy": config.get("strategy"),
        "budget": {k: v for k, v in (config.get("budget") or {}).items() if v is not None},
        "seed": front.get("seed"),
        "workers": config.get("workers"),
        "steps reused from the store": config.get("reuse"),
        "seconds of timing a candidate, at most": config.get("measure_seconds"),
    }
    went = {**{k: units.seconds(float(v)) for k, v in (info.get("phases_s") or {}).items()},
            "all trials together": units.seconds(sum(float(t.get("seconds") or 0) for t in trials)),
            "steps taken from the cache": f"{reused} of {steps}" + (f" ({units.percent(reused / steps)})" if steps else "")}
    found = [("What was asked", {k: v for k, v in asked.items() if v is not None}), ("Where the time went", went), ("Baselines that could not be made", front.get("failed_baselines")), ("Data", info.get("splits")),
             ("Machine", info.get("machine"))]
    return [(heading, value) for heading, value in found if value]
