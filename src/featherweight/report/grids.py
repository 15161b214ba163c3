"""The report's tables as data for its template: {"caption", "head", "rows", "sortable"}, each cell
with its text and what it sorts by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from . import units
from .analysis import Analysis
from .importance import MIN_TRIALS, Importance, floor
from .rows import (
    Json,
    certified_text,
    drop,
    filling_text,
    identity,
    is_best,
    label,
    listing,
    metric_name,
    reference,
    tested,
    trial_label,
    verdict_text,
)
from .steps import layer_changes
from .table import COLUMNS, ROLES, cells

MAX_ROWS = 1000  # a page with more rows is slow to open; all are in study.db
MAX_FAILURES = 200
NO_REASON = "no reason was recorded"

# heading, kind ("n" for numbers, "w" for what may be long, "" else; with "+" what is shown only if
# all columns are asked for), text of a row, what it sorts by (None: the text)
Column = tuple[str, str, Callable[[Any], Any], Callable[[Any], Any] | None]


def grid(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Any],
    best: Callable[[Any], bool],
    sortable: bool = False,
    filtered: bool = False,
) -> Json:
    """filtered: it is long, and has a field that picks its rows by a text."""
    head = [{"text": h, "number": "n" in kind, "wide": "w" in kind, "more": "+" in kind} for h, kind, _, _ in columns]
    body = [
        {"best": best(r), "cells": [_cell(text(r), text if sort is None else sort, r) for _, _, text, sort in columns]}
        for r in rows
    ]
    return {"caption": caption, "head": head, "rows": body, "sortable": sortable, "filtered": filtered}


def _cell(text: Any, sort: Callable[[Any], Any], row: Any) -> Json:
    value = sort(row)
    return {"text": str(text), "sort": "" if value is None else value}


def _stacked(text: str) -> str:
    """Intervals and ratios on a second line, so that the table fits the page."""
    return text.replace(" [", "\n[").replace(" (", "\n(")


def front_grid(front: Json) -> Json:
    """Baselines, front and the chosen one."""
    baseline, name = front.get("baseline"), metric_name(front)
    measured = [
        (_stacked(c.replace("metric", name)), "" if c == "certificate" else "n", _nth(i, baseline), None)
        for i, c in enumerate(COLUMNS)
    ]
    columns: list[Column] = [
        (
            "",
            "",
            lambda r: "best" if is_best(front, r[1]) else reference(front) if r[0] == "original" else ROLES[r[0]],
            None,
        ),
        (
            "candidate",
            "w",
            lambda r: label(r[1]),
            None,
        ),
        ("target", "", lambda r: r[1].get("target", ""), None),
        *measured,
        ("limits", "w", lambda r: "-" if r[0] == "original" else verdict_text(r[1], tested(front)), None),
    ]
    caption = f"Every number with its 95 % interval in brackets. Size and speedup are against the {reference(front)}."
    return grid(caption, columns, listing(front), lambda r: is_best(front, r[1]))


def _nth(i: int, baseline: Json | None) -> Callable[[Any], str]:
    return lambda r: _stacked(cells(r[1], baseline)[i])


def layer_grid(manifest: Json) -> Json:
    """What became of each layer of the chosen candidate."""
    columns: list[Column] = [
        ("layer", "w", lambda r: r["layer"], None),
        ("width before", "n", lambda r: "" if r["before"] is None else r["before"], None),
        ("after", "n", lambda r: "" if r["after"] is None else r["after"], None),
        ("kept", "n", lambda r: units.percent(r["after"] / r["before"]) if r["before"] else "", None),
        ("stored and run", "", lambda r: r["held"], None),
        ("left whole, because", "w", lambda r: r["whole"], None),
    ]
    rows = layer_changes(manifest)
    shown = [c for i, c in enumerate(columns) if i == 0 or any(c[2](r) != "" for r in rows)]
    caption = "Widths are channels or units of what is cut together, named after the layer that makes them."
    return grid(caption, shown, rows, lambda r: False, sortable=True, filtered=len(rows) > 20)


def trial_grid(front: Json, trials: Sequence[Json]) -> Json:
    """Every trial, at most MAX_ROWS of them: then the best, in order of number; and the finalists
    as they were trained on."""
    shown = (
        list(trials)
        if len(trials) <= MAX_ROWS
        else sorted(sorted(trials, key=_rank)[:MAX_ROWS], key=lambda t: int(t["number"]))
    )
    shown += [_finalist(f) for f in front.get("finalists") or []]
    baseline, name = front.get("baseline"), metric_name(front)
    top = {identity(e) for e in front.get("front") or []}

    def limits(e: Json) -> str:
        return "on the front" if identity(e) in top else verdict_text(e, tested(front))

    def of_entry(
        heading: str, kind: str, text: Callable[[Json], Any], sort: Callable[[Json], Any] | None = None
    ) -> Column:
        """A column that is empty for trials without an entry."""

        def guarded(f: Callable[[Json], Any]) -> Callable[[Any], Any]:
            return lambda t: f(t["entry"]) if t.get("entry") else ""

        return heading, kind, guarded(text), None if sort is None else guarded(sort)

    columns: list[Column] = [
        ("trial", "n", lambda t: t["number"], None),
        ("state", "", lambda t: t["state"], None),
        ("filling", "w", lambda t: filling_text(t.get("filling")) or trial_label(t), None),
        of_entry(name, "n", lambda e: units.metric(e["metric"]["value"], name), lambda e: e["metric"]["value"]),
        of_entry(
            "drop",
            "n",
            lambda e: units.difference(drop(e, baseline), name).replace(" point", "\npoint"),
            lambda e: drop(e, baseline),
        ),
        of_entry(
            "latency",
            "n+",
            lambda e: units.milliseconds(e["latency_ms"].get("median")),
            lambda e: e["latency_ms"].get("median"),
        ),
        of_entry(
            "speedup\n[95 %]", "n", lambda e: _stacked(cells(e, baseline)[3]), lambda e: e["speedup"].get("ratio")
        ),
        of_entry("size", "n", lambda e: _stacked(cells(e, baseline)[4]), lambda e: e["size_bytes"]),
        of_entry(
            "memory", "n+", lambda e: units.size(e.get("peak_memory_bytes")), lambda e: e.get("peak_memory_bytes")
        ),
        of_entry(
            "params\n(MACs)",
            "n+",
            lambda e: f"{units.count(e.get('params'))}\n({units.count(e.get('macs'))})",
            lambda e: e.get("params"),
        ),
        of_entry("limits", "", limits),
        of_entry("on test", "+", lambda e: certified_text(e) or ""),
        ("time\n(reused)", "n+", _time, lambda t: t.get("seconds")),
        ("target", "+", lambda t: (t.get("entry") or t).get("target") or "", None),
        ("candidate", "w+", trial_label, None),
    ]
    return grid(
        "Click a heading to sort.",
        columns,
        shown,
        lambda t: bool(t.get("entry")) and is_best(front, t["entry"]),
        sortable=True,
        filtered=True,
    )


def _finalist(found: Json) -> Json:
    """A trial that was trained on, as a row."""
    state = f"finalist, {units.many(found['epochs'], 'epoch')} more"
    return {"number": found["trial"], "state": state, "filling": found["entry"].get("filling"), "entry": found["entry"]}


def _time(trial: Json) -> str:
    """What a trial took, and how many of its steps came from the store."""
    if "steps" not in trial:  # a finalist: its time is not told by itself
        return ""
    return f"{units.seconds(trial.get('seconds'))}\n({trial.get('reused') or 0} of {trial.get('steps') or 0})"


def _rank(trial: Json) -> tuple[float, float]:
    """Feasible ones first, then small and quick."""
    e = trial.get("entry")
    if not e:
        return (math.inf, math.inf)
    return (
        sum(float(v.get("excess", 0)) for v in e.get("violations") or []),
        float(e["size_bytes"]) / max(float(e["speedup"]["ratio"]), 1e-9),
    )


def trial_note(trials: Sequence[Json]) -> str:
    """That trials were left out, if they were."""
    if len(trials) <= MAX_ROWS:
        return ""
    first = "those that meet the limits first, then the smallest and quickest"
    return f"The {MAX_ROWS} best of {len(trials)} trials ({first}). All of them are in study.db."


def _failed(trials: Sequence[Json]) -> list[Json]:
    return [t for t in trials if t["state"] == "failed"]


def failure_grid(front: Json, trials: Sequence[Json]) -> Json:
    """The failed trials with their reasons, at most MAX_FAILURES of them, and finalists that could
    not be trained on."""
    known = {t["number"]: t for t in trials}
    after = [
        {**known.get(f["trial"], {}), "number": f["trial"], "reason": f"trained longer: {f['reason']}", "seconds": None}
        for f in front.get("unfinished_finalists") or []
    ]
    columns: list[Column] = [
        ("trial", "n", lambda t: t["number"], None),
        ("candidate", "w", trial_label, None),
        ("reason", "w", lambda t: t.get("reason") or NO_REASON, None),
        ("time", "n", lambda t: units.seconds(t.get("seconds")), lambda t: t.get("seconds")),
    ]
    caption = "Trials that failed, with the reason. A failed trial never ends a study."
    return grid(caption, columns, [*_failed(trials)[:MAX_FAILURES], *after], lambda t: False, sortable=True)


def failure_note(trials: Sequence[Json]) -> str:
    """How many trials failed and the commonest reasons."""
    failed = _failed(trials)
    if not failed:
        return "No trial failed, but finalists could not be trained longer; they stand as they were searched."
    reasons = Counter((str(t.get("reason") or NO_REASON).splitlines() or [""])[0] for t in failed).most_common(5)
    text = (
        f"{len(failed)} of {len(trials)} trials failed. Most often: "
        + "; ".join(f"{reason} ({n}x)" for reason, n in reasons)
        + "."
    )
    return text + (f" The first {MAX_FAILURES} are listed." if len(failed) > MAX_FAILURES else "")


def look_grid(front: Json) -> Json:
    """What was looked at on the test split, in this order, and what came of it."""
    name, looks = metric_name(front), list(enumerate(front.get("looks") or [], 1))
    columns: list[Column] = [
        ("look", "n", lambda r: r[0], None),
        ("candidate", "w", lambda r: label(r[1]), None),
        ("verdict", "", lambda r: r[1].get("verdict", ""), None),
        ("chance before", "n", lambda r: units.percent(r[1].get("chance")), None),
        ("level", "n", lambda r: units.NONE if r[1].get("level") is None else f"{r[1]['level']:.2g}", None),
        (f"{name} drop on test", "n", lambda r: units.difference(r[1].get("drop"), name), None),
        ("speedup", "n", lambda r: units.ratio(r[1].get("speedup")), None),
        ("size", "n", lambda r: units.size(r[1].get("size_bytes")), None),
        ("it needs", "w", lambda r: r[1].get("needs") or "", None),
    ]
    shown = [c for i, c in enumerate(columns) if i < 3 or any(c[2](r) not in ("", units.NONE) for r in looks)]
    caption = (
        "The order was decided on valid: first the sequence from which most could be expected, surest first; "
        "then what else was likely, surest first. What another entry beats in everything was not looked at. "
        "A certificate passes its level on to the next look."
    )
    best = front.get("best") or {}
    return grid(caption, shown, looks, lambda r: all(r[1][k] == best.get(k) for k in ("label", "trial", "target")))


def measured_grid(front: Json) -> Json:
    """How well each line of the front table was measured: samples, timings, load, parity."""

    def time_of(key: str) -> Callable[[Json], str]:
        return lambda e: units.milliseconds(e["latency_ms"].get(key))

    columns: list[Column] = [
        ("candidate", "w", lambda e: e["label"], None),
        ("samples", "n", lambda e: e["metric"].get("n", ""), None),
        ("median", "n", time_of("median"), None),
        ("p90", "n", time_of("p90"), None),
        ("CPU median", "n", time_of("cpu_median"), None),
        ("timings", "n", lambda e: e["latency_ms"].get("n", ""), None),
        ("foreign load", "n", lambda e: units.percent(e["latency_ms"].get("load")), None),
        ("clock", "", lambda e: e["speedup"].get("clock", ""), None),
        ("parity with PyTorch", "w", _parity, None),
        ("sha256", "", lambda e: str(e.get("sha256", ""))[:12], None),
    ]
    caption = "Times are of one inference; foreign load is the share of the machine that other programs used meanwhile."
    return grid(caption, columns, [e for _, e in listing(front)], lambda e: is_best(front, e))


def _parity(entry: Json) -> str:
    parity = entry.get("parity") or {}
    texts = [f"{k.replace('_', ' ')} {f'{v:.3g}' if isinstance(v, float) else v}" for k, v in parity.items()]
    return ", ".join(texts) or units.NONE


def fit_grid(found: Analysis) -> Json:
    """How far the importances can be trusted: what the ensembles explain of trials that
    they did not see."""
    columns: list[Column] = [
        ("objective", "", lambda i: i.objective.replace("error", "drop"), None),
        ("trials", "n", lambda i: i.n, None),
        ("out-of-bag R2", "n", lambda i: units.NONE if i.r2 is None else f"{i.r2:.2f}", None),
        ("verdict", "w", _trust, None),
        (
            "most important",
            "w",
            lambda i: ", ".join(f"{s.path} {s.share:.0%} [{s.low:.0%}, {s.high:.0%}]" for s in i.shares[:3]) or "-",
            None,
        ),
    ]
    caption = (
        "How much of each objective the ensembles explain of trials that they did not see (1 is all, "
        "0 or less nothing)."
    )
    return grid(caption, columns, [i for i in found.importances if i.n >= MIN_TRIALS], lambda i: False)


def _trust(fit: Importance) -> str:
    if fit.r2 is None:
        return "it did not vary"
    return "importances shown" if fit.shares else f"below {floor(fit.n):.2f}: no importance is claimed"


def feature_grid(found: Analysis, config: Json) -> Json:
    """Rank correlation of what was known beforehand with the metric."""
    proxy = config.get("proxy") or {}
    columns: list[Column] = [
        ("feature", "w", lambda c: f"{c.feature} (the proxy)" if c.feature == proxy.get("kind") else c.feature, None),
        ("trials", "n", lambda c: c.n, None),
        ("rank correlation", "n", lambda c: f"{c.rho:+.2f}", None),
        ("95 % interval", "n", lambda c: f"{c.low:+.2f} to {c.high:+.2f}", None),
    ]
    caption = (
        "Spearman's rank correlation with the metric, + where more goes with better; "
        "intervals by bootstrap over the measured trials."
    )
    if proxy:
        caption += (
            f" Only what the proxy kept ({units.percent(float(proxy.get('keep') or 1.0))}) was trained, "
            "which makes its own correlation look smaller."
        )
    return grid(caption, columns, found.correlations, lambda c: c.feature == proxy.get("kind"))


def arm_grid(found: Analysis) -> Json:
    """What each strategy of the portfolio was given and what it brought."""
    columns: list[Column] = [
        ("strategy", "", lambda a: a.name, None),
        ("trials", "n", lambda a: a.trials, None),
        ("measured", "n", lambda a: a.measured, None),
        ("within limits", "n", lambda a: a.feasible, None),
        ("on the front", "n", lambda a: f"{a.front} ({units.percent(a.front_share)})", lambda a: a.front),
        ("time of its trials", "n", lambda a: units.seconds(a.seconds), lambda a: a.seconds),
    ]
    return grid("What each strategy was given and what it found.", columns, found.arms, lambda a: False, sortable=True)
