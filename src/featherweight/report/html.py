"""The report as one HTML file that needs no network: Plotly's script is inside, the tables are
there without script too."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ..store.artifacts import write_atomic
from . import grids, units
from .ahead import next_command
from .analysis import Analysis, analyse, why_not
from .analysis_figures import analysis_figures
from .differing import differing, latency_figure
from .figures import MAX_POINTS, figures
from .history import volume_note
from .provable import proof
from .rows import (
    Json,
    constraint_text,
    listing,
    metric_name,
    named,
    pair,
    recipe_steps,
    reference,
    size_ratio,
    speed_claim,
    target_text,
)
from .steps import waterfalls
from .words import axes, listed, summary, verb


def write(
    path: Path, front: Json, trials: Sequence[Json], info: Json, config: Json, found: Analysis | None = None
) -> Path:
    """Write the report; `front`, `trials`, `info` and `config` are those of `Study`,
    `found` what `analyse` makes of them (None: it is asked); config may hold the chosen
    candidate's "manifest", which tells what became of each layer. A reader sees the old page or
    the new, never half."""
    path = Path(path)
    write_atomic(path, render(front, trials, info, {"out": str(path.parent), **config}, found))
    return path


def render(front: Json, trials: Sequence[Json], info: Json, config: Json, found: Analysis | None = None) -> str:
    """The page's text. All that comes from users is escaped:
    by Jinja in the page, by `script_json` in the script's data."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    front = named(front, config)
    found = found or analyse(front, trials, config)
    share, seed = units.is_share(metric_name(front)), int(config.get("seed") or 0)
    plots = [
        *figures(front, trials, config),
        *waterfalls(front, trials),
        *([timed] if (timed := latency_figure(front)) is not None else []),
        *analysis_figures(found, trials, seed, share, reference(front)),
    ]
    difference, differences = differing(front)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    out = str(config.get("out") or "OUT")
    page = {
        "task": str(front.get("task")),
        "target": target_text(front.get("target")),
        "seed": front.get("seed"),
        "sections": _sections(plots, bool(found.arms)),
        "reference": reference(front),
        "axes": listed(axes(front)),
        "volume_note": volume_note(config.get("minimize") or [], reference(front)),
        "searching": config.get("mode") == "search",
        "summary": summary(front),
        "tiles": _tiles(front),
        "figures": plots,
        "why_not": why_not(found),
        "fits": grids.fit_grid(found),
        "features": grids.feature_grid(found, config),
        "arms": grids.arm_grid(found),
        "figures_json": Markup(script_json(plots)),
        "crowded": _crowded(trials),
        "front_table": grids.front_grid(front),
        "looks": grids.look_grid(front),
        "proof": proof(front["proof"], metric_name(front)) if front.get("proof") else "",
        "recipe": _recipe(front),
        "difference": difference,
        "differences": differences,
        "changed": grids.layer_grid(config.get("manifest") or {}),
        "trial_table": grids.trial_grid(front, trials),
        "trial_note": grids.trial_note(trials),
        "failures": grids.failure_grid(front, trials),
        "failure_note": grids.failure_note(trials),
        "measured": grids.measured_grid(front),
        "facts": _facts(front, trials, info, config),
        "clock": _clock(front),
        "retimed": front.get("retimed", True) is not False,
        "command": config.get("command", ""),
        "rerun": ""
        if front.get("call")  # of a task that no command can load
        else shlex.join(["featherweight", verb(config), f"{out}/run.yaml", "--out", f"{out}-again"]),
        "next": next_command(front, out),
        "plotly": Markup(get_plotlyjs().replace("</script", "<\\/script")),
        "style": Markup(_asset("page.css")),
        "script": Markup(_asset("page.js")),
    }
    return environment.from_string(_asset("page.html.j2")).render(page).lstrip()


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def script_json(data: Any) -> str:
    """JSON that cannot end a script element and has no NaN."""
    text = json.dumps(_finite(data), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sections(plots: Sequence[Json], credit: bool) -> list[tuple[str, str]]:
    has = {f["section"] for f in plots}
    drawn = [
        *([("tradeoffs", "Trade-offs")] if "tradeoffs" in has else []),
        *([("history", "History")] if "front" in has else []),
    ]
    drawn += [("analysis", "Analysis"), *([("credit", "Strategies")] if credit else [])]
    return [
        ("candidates", "Front"),
        *drawn,
        ("trials", "Trials"),
        ("failures", "Failures"),
        ("how", "What was measured"),
        ("again", "Do it again"),
    ]


def _tiles(front: Json) -> list[Json]:
    """The four numbers of the chosen candidate, large."""
    best, baseline = front.get("best"), front.get("baseline")
    if best is None or baseline is None:
        return []
    name, ends = metric_name(front), pair(best["speedup"].get("ci95"))
    interval = units.between(*(units.ratio(e) for e in ends)) if ends else "no interval"
    sizes = f"{units.size(best['size_bytes'])} against {units.size(baseline['size_bytes'])}"
    before = f"{reference(front)} {units.metric(baseline['metric']['value'], name)}"
    certificate = best.get("certificate") or {}
    return [
        {
            "name": f"speed, {reference(front)} = 1",
            "value": units.ratio(best["speedup"].get("ratio")),
            "note": f"{interval}; {speed_claim(best['speedup'])}",
        },
        {"name": "size", "value": units.percent(size_ratio(best, baseline)), "note": sizes},
        {
            "name": f"{name} ({best['metric'].get('split', 'valid')})",
            "value": units.metric(best["metric"]["value"], name),
            "note": before,
        },
        {
            "name": "on the test split",
            "value": units.change(certificate.get("drop"), name),
            "note": certificate.get("verdict", "no certificate"),
        },
    ]


def _crowded(trials: Sequence[Json]) -> str:
    n = sum(1 for t in trials if t.get("entry"))
    return (
        f"{n} candidates were measured; the plots show the front and an even selection of about {MAX_POINTS} others."
        if n > MAX_POINTS
        else ""
    )


def _recipe(front: Json) -> Json | None:
    entry = front.get("best") or front.get("nearest")
    return (
        None
        if entry is None
        else {
            "what": "best" if front.get("best") else "nearest",
            "steps": recipe_steps(entry.get("recipe"), reference(front)),
        }
    )


def _clock(front: Json) -> str:
    clocks = sorted({str(e["speedup"].get("clock")) for _, e in listing(front) if e["speedup"].get("clock")})
    words = {"cpu": "processor time, far steadier than wall time on a shared machine", "wall": "wall time"}
    return f" (of {' or '.join(words.get(c, c) for c in clocks)})" if clocks else ""


def _facts(front: Json, trials: Sequence[Json], info: Json, config: Json) -> list[tuple[str, Any]]:
    """What else is known, as (heading, tree of values)."""
    limits = [constraint_text(c, metric_name(front), reference(front)) for c in front.get("constraints") or []]
    asked = {
        "task": config.get("task"),
        "limits": limits,
        "to be minimised": config.get("minimize"),
        "strategy": config.get("strategy"),
        "budget": {k: v for k, v in (config.get("budget") or {}).items() if v is not None},
        "seed": front.get("seed"),
        "workers": config.get("workers"),
        "steps reused from the store": config.get("reuse"),
        "seconds of timing a candidate, at most": config.get("measure_seconds"),
    }
    steps, reused = (sum(int(t.get(k) or 0) for t in trials) for k in ("steps", "reused"))
    went = {k: units.seconds(float(v)) for k, v in (info.get("phases_s") or {}).items()}
    went["all trials together"] = units.seconds(sum(float(t.get("seconds") or 0) for t in trials))
    went["steps of trials taken from the store"] = f"{reused} of {steps}" + (
        f" ({units.percent(reused / steps)})" if steps else ""
    )
    found = [
        ("What was asked", {k: v for k, v in asked.items() if v is not None}),
        ("Where the time went", went),
        ("Baselines that could not be made", front.get("failed_baselines")),
        ("Data", info.get("splits")),
        ("Machine", info.get("machine")),
    ]
    return [(heading, value) for heading, value in found if value]
