"""The report: tables in Markdown and plots of all results, also of those that miss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import play
import plots
import stats
from stats import Means, Row

TABLES = ("nas201", "hpolib", "hpobench")  # whose optimum is known; ranks are over these
# whose score after so many evaluations is the goal of "evaluations until"
GOAL = ("optuna-tpe", 200)


def write(rows: Sequence[Row], folder: Path, tag: str, control: str) -> str:
    """Writes tables.md, ranks-*.png and curves-*.png to `folder`; the text of tables.md."""
    current = [r for r in rows if r["version"] == play.version(r["method"], tag)]
    if not current:
        raise SystemExit(f"there are no results of tag {tag} in {folder}: run.py GROUP first")
    parts = [
        "Score: regret (single objective), the least error (`sklearn`), 1 - share of the true front's hypervolume "
        "(`nas201-multi`)."
    ]
    parts.append("Mean over seeds +- standard error; (n) where the seeds are not as many as of most.")
    for group in sorted({r["problem"].partition("/")[0] for r in current}):
        runs = stats.longest(r for r in current if r["problem"].partition("/")[0] == group)
        for problem in sorted({p for p, _ in runs}):
            parts.append(problem_table(problem, {m: v for (p, m), v in runs.items() if p == problem}))
            plots.curves(
                problem,
                {m: v for (p, m), v in runs.items() if p == problem},
                folder / f"curves-{problem.replace('/', '-')}.png",
            )
        parts += ranked(runs, group, folder, control)
    runs = stats.longest(r for r in current if r["problem"].partition("/")[0] in TABLES)
    if runs:
        parts += ranked(runs, "all tables", folder, control)
        parts.append(until(runs))
        parts.append(against_arms(runs, control))
    text = "\n\n".join(p for p in parts if p) + "\n"
    (folder / "tables.md").write_text(text)
    return text


def problem_table(problem: str, runs: dict[str, list[Row]]) -> str:
    """A row a method, sorted by the score at the last mark that most of them reached."""
    by_mark = {n: stats.means({(problem, m): v for m, v in runs.items()}, n) for n in stats.MARKS}
    marks = [n for n in stats.MARKS if by_mark[n]]
    most = max(len(v) for v in runs.values())
    if not marks:
        return f"### {problem}\n\nNo search has {stats.MARKS[0]} evaluations."
    lines = [
        f"### {problem}",
        "",
        f"| method | {' | '.join(map(str, marks))} | duplicates | ms a proposal |",
        f"|---|{'---|' * (len(marks) + 2)}",
    ]

    def place(m: str) -> list[float]:
        return [by_mark[n][problem, m].mean if (problem, m) in by_mark[n] else math.inf for n in reversed(marks)]

    for m in sorted(runs, key=place):
        cells = [cell(by_mark[n].get((problem, m)), most) for n in marks]
        n = max(sum(r["evaluations"] for r in runs[m]), 1)
        duplicates = 100 * sum(r["duplicates"] for r in runs[m]) / n
        lines.append(
            f"| {m} | {' | '.join(cells)} | {duplicates:.1f} % | "
            f"{1000 * sum(r['propose_s'] for r in runs[m]) / n:.2f} |"
        )
    return "\n".join(lines)


def cell(mean: stats.Mean | None, most: int) -> str:
    if mean is None:
        return "-"
    spread = "" if math.isnan(mean.error) else f" +- {mean.error:.2g}"
    return f"{mean.mean:.4g}{spread}" + (f" ({mean.n})" if mean.n != most else "")


def ranked(runs: dict[tuple[str, str], list[Row]], title: str, folder: Path, control: str) -> list[str]:
    """Mean ranks at each mark, the tests, and the critical-difference plot; methods that lack a
    table are named and left out."""
    out = []
    for n in stats.MARKS:
        scores: Means = stats.means(runs, n)
        problems, methods = stats.complete(scores)
        if len(methods) < 2 or len(problems) < 2:
            continue
        rank = stats.ranks(scores, problems, methods)
        p = stats.friedman(scores, problems, methods)
        difference = stats.critical_difference(len(methods), len(problems))
        holm = stats.wilcoxon_holm(scores, problems, methods, control) if control in methods else {}
        left = sorted({m for _, m in scores} - set(methods))
        lines = [f"### Mean rank after {n} evaluations, {title} ({len(problems)} searches)", ""]
        tested = "" if p is None else f"Friedman p = {p:.2g}; "
        lines.append(
            f"{tested}critical difference {difference:.2f} (Nemenyi, 0.05)."
            + (f" Not on all: {', '.join(left)}." if left else "")
        )
        lines += ["", f"| method | mean rank | p against {control} (Wilcoxon, Holm) |", "|---|---|---|"]
        lines += [
            f"| {m} | {rank[m]:.2f} | {f'{holm[m]:.2g}' if m in holm else ''} |"
            for m in sorted(rank, key=lambda m: rank[m])
        ]
        out.append("\n".join(lines))
        name = f"ranks-{title.replace(' ', '-')}-{n}.png"
        plots.critical_difference(rank, difference, f"Mean rank after {n} evaluations, {title}", folder / name)
    return out


def until(runs: dict[tuple[str, str], list[Row]]) -> str:
    """How many evaluations each method needs to have the mean score that the goal's
    method has in the end."""
    method, evaluation = GOAL
    goals = {p: m.mean for (p, name), m in stats.means(runs, evaluation).items() if name == method}
    if not goals:
        return ""
    problems, methods = sorted(goals), sorted({m for _, m in runs})
    lines = [
        f"### Evaluations until the mean score of {method} after {evaluation}",
        "",
        f"| method | {' | '.join(problems)} |",
    ]
    lines.append(f"|---|{'---|' * len(problems)}")
    for m in methods:
        needed = [stats.reaches(runs[p, m], goals[p]) if (p, m) in runs else None for p in problems]
        lines.append(f"| {m} | {' | '.join('-' if n is None else str(n) for n in needed)} |")
    return "\n".join(lines)


def against_arms(runs: dict[tuple[str, str], list[Row]], control: str) -> str:
    """The control's score beside that of the best other strategy of ours on each
    table, at each mark."""
    lines = [f"### {control} against the best other strategy of ours on each table", ""]
    lines += [
        "| search | evaluations | best other | its score | " + control + " | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for n in stats.MARKS:
        scores = stats.means(runs, n)
        for problem in sorted({p for p, m in scores if m == control}):
            others = {m: s.mean for (p, m), s in scores.items() if p == problem and m in play.ours() and m != control}
            if others:
                mine, name = scores[problem, control].mean, min(others, key=lambda m: others[m])
                best = others[name]
                ratio = 1.0 if mine == best else mine / best if best > 0 else math.inf
                lines.append(f"| {problem} | {n} | {name} | {best:.4g} | {mine:.4g} | {ratio:.2f} |")
    return "\n".join(lines) if len(lines) > 4 else ""
