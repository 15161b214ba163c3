"""What a study found, in words that a manager understands.

Two words are kept for what has been shown: "faster" (or "slower") only if the 95 % interval of the
speedup leaves out 1.0, and "certified" only if the certificate on the test split says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from . import units
from .provable import proof
from .rows import (
    Json,
    certified_text,
    constraint_text,
    drop,
    epochs,
    identity,
    lacks_proof,
    pair,
    reference,
    score,
    size_ratio,
    speed_claim,
    target_text,
    tested,
    violation_text,
)


def summary(front: Json) -> list[str]:
    """Sentences, most important first. `front`: the contents of front.json."""
    best, nearest, baseline = front.get("best"), front.get("nearest"), front.get("baseline")
    lines, named = [], reference(front)
    if best is not None and best.get("trial") is None:
        lines += _without_search(front, best, baseline)
    elif best is not None:
        lost = beaten(front, best)
        if lost and baseline is not None:
            lines += [f"The search did not beat the {named}: {_numbers(baseline, baseline, named)}."]
        found = "The best that it found" if lost else "Found"
        where = best.get("target") or target_text(front.get("target"))
        lines += [
            f"{found}: {best['label']} on {where}, {_numbers(best, baseline, named)}.",
            certificate(best, front.get("uncertified")),
            *lucky(front),
        ]
        lines += _unproven(front, best)
        lines += [] if lost else [_against_baselines(front, best, baseline)]
    elif nearest is not None:
        lines += [
            (
                "Nothing that the search tried meets every limit. "
                f"The nearest is {nearest['label']}, {_why_not(nearest)}: {_broken(front, nearest)}."
            ),
            f"Its numbers: {_numbers(nearest, baseline, named)}.",
            *_nearer(front, nearest),
            *([certificate(nearest)] if nearest.get("certificate") else []),
        ]
        kept = [named_entry(front, e) for e in front.get("front") or []]
        lines += [f"Among the baselines, these meet the limits: {', '.join(kept)}."] if kept else []
    elif front.get("front") and not (front.get("trials") or {}).get("complete"):
        lines.append(f"No candidate was measured, so there is nothing to compare: {_unmeasured(front)}.")
    elif front.get("front"):
        top = min(front["front"], key=lambda e: score(front, e))
        lines.append(
            "The search did not beat the baselines: none of its candidates offers anything that a baseline does not."
        )
        lines.append(f"The best baseline that meets the limits is {top['label']}, {_numbers(top, baseline, named)}.")
    else:
        lines.append(f"No candidate was measured, so there is nothing to compare: {_unmeasured(front)}.")
    return [*lines, *([] if best is None else [chosen(front)]), *notes(front)]


def _why_not(nearest: Json) -> str:
    """In which way the nearest candidate does not meet the limits."""
    broken = nearest.get("violations") or []
    proven = broken and all(map(lacks_proof, broken))
    return "which keeps within them and cannot be proven to" if proven else "which breaks them least"


def _without_search(front: Json, best: Json, baseline: Json | None) -> list[str]:
    """That a baseline is the best, and what the search has to show."""
    numbers = f"{best['label']} on {best.get('target') or target_text(front.get('target'))}, "
    numbers += _numbers(best, baseline, reference(front))
    proof = certificate(best, front.get("uncertified"))
    proof = " ".join([proof, *lucky(front)])
    if baseline is not None and identity(best) == identity(baseline):
        return _original(front, baseline)
    if not (front.get("trials") or {}).get("complete"):
        why = f"No candidate was measured ({_unmeasured(front)})."
        return [f"The best needs no search: {numbers}.", proof, why]
    lines = [f"The search did not beat what needs no search: {numbers}.", proof]
    top = front.get("searched")
    if top is not None:
        said = certified_text(top)
        lines.append(
            f"The best that it found: {top['label']}, {_numbers(top, baseline, reference(front))}"
            + (f"; on test {said}." if said else ".")
        )
    elif front.get("nearest") is not None:
        nearest = front["nearest"]
        lines.append(
            f"Of its candidates none meets every limit; nearest is {nearest['label']}: {_broken(front, nearest)}."
        )
    return lines


def _original(front: Json, baseline: Json) -> list[str]:
    """That the original itself is the best, and what comes next to it."""
    named, least = reference(front), listed([str(name) for name in front.get("minimize") or []])
    lines = [
        f"Nothing that was measured is better than the {named}, by {least}: the {named} meets the limits, and is the "
        f"best. {_numbers(baseline, baseline, named)[:1].upper()}{_numbers(baseline, baseline, named)[1:]}."
    ]
    top = front.get("searched")
    if top is not None:
        said = certified_text(top)
        lines.append(
            f"The best that the search found scores {exp(score(front, top)):.3f} times the {named}'s 1, where less is "
            f"better: {top['label']}, {_numbers(top, baseline, named)}" + (f"; on test {said}." if said else ".")
        )
    others = [e for e in front.get("baselines") or [] if e.get("feasible") and identity(e) != identity(baseline)]
    if others:
        near = min(others, key=lambda e: score(front, e))
        lines.append(
            f"Of what needs no search {near['label']} comes nearest, with {exp(score(front, near)):.3f} times: "
            f"{_numbers(near, baseline, named)}."
        )
    return lines


def lucky(front: Json) -> list[str]:
    """That the best's speed is the one that it was chosen by, if it is."""
    if front.get("retimed", True) is not False or front.get("running"):
        return []
    if front.get("timed_again"):
        return [
            "Its speed was measured again for the choice of the best, and not once more after that, so it may be a "
            "lucky measurement."
        ]
    return ["Its speed was not measured again after it was chosen for it, so it may be a lucky measurement."]


def _unmeasured(front: Json) -> str:
    """Why no candidate was measured."""
    trials = front.get("trials") or {}
    if front.get("running"):
        return "the study still runs"
    if front.get("broken_off"):
        return f"the run ended with an error, {front['broken_off']}"
    if trials.get("failed"):
        return "see the failures"
    if not front.get("finished", True):
        return "the study was interrupted"
    known = (front.get("budget") or {}).get("minutes") is not None
    needed = front.get("needed_minutes")
    enough = f"; about {needed} minutes would do for a first one" if needed else ""
    return f"the minutes were up before a trial had ended{enough}" if known else "no trial ended"


def named_entry(front: Json, entry: Json) -> str:
    """A baseline by its label, the first by what it is."""
    first = front.get("baseline") is not None and identity(entry) == identity(front["baseline"])
    return f"the {reference(front)}" if first else str(entry["label"])


def axes(front: Json) -> list[str]:
    """What entries are compared by: what is to be small, and the error."""
    asked = [str(name) for name in front.get("minimize") or []]
    return [*asked, *(["error"] if "error" not in asked else [])]


def chosen(front: Json) -> str:
    """By what entries are compared, and how the best is picked from the front."""
    asked = [str(name) for name in front.get("minimize") or []]
    floor = any(c.get("quantity") in ("drop", "metric") for c in front.get("constraints") or [])
    who = "of the candidates on the front that are certified (if none is: of all)" if floor else "of those on the front"
    least = f"the geometric mean of {listed(asked)}" if len(asked) > 1 else "".join(asked) or "what is minimized"
    return (
        f"Candidates are compared by {listed(axes(front))}; the best is, {who}, the one with the least "
        f"{least.removeprefix('the ')}, relative to the {reference(front)}, and of those within 1 % of it the one with "
        f"the least error; the {reference(front)} itself, where it meets the limits and nothing is better."
    )


def listed(names: Sequence[str]) -> str:
    """`latency, size and error`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def notes(front: Json) -> list[str]:
    """What the test split can prove, what was asked, how many trials ran and what they cost."""
    trials, cache, budget = front.get("trials") or {}, front.get("cache") or {}, front.get("budget") or {}
    name = _metric(front.get("baseline") or {})
    limits = "; ".join(constraint_text(c, name, reference(front)) for c in front.get("constraints") or []) or "none"
    text = f"Limits asked for: {limits}."
    counts = (
        f"{units.many(trials.get('complete', 0), 'trial')} measured, {trials.get('failed', 0)} failed, "
        f"{trials.get('stopped', 0)} stopped early"
    )
    done = sum(int(trials.get(k, 0)) for k in ("complete", "failed", "stopped"))
    if budget.get("trials") and budget.get("minutes") and front.get("finished") and not front.get("ended"):
        counts += f" of {budget['trials']}: the minutes allowed no more" if done < int(budget["trials"]) else ""
    if budget.get("spent_s") is not None:
        counts += f", in {units.seconds(float(budget['spent_s']))}"
    steps, reused = cache.get("steps", 0), cache.get("reused", 0)
    if steps:
        counts += f"; {reused} of {steps} steps came from the cache"
    known = simpler(front)
    known += [proof(front["proof"], name)] if front.get("proof") else []
    known += unseen_classes(front)
    return [*known, text, counts + ".", *_unfinished(front)]


def simpler(front: Json) -> list[str]:
    """What the valid split gives without a network, and whether that is better than what there
    is."""
    found, base = front.get("yardsticks") or [], front.get("baseline")
    if not found or base is None:
        return []
    name, sign = _metric(base), -1 if base["metric"].get("higher_is_better") is False else 1
    told = "; ".join(f"{one['name']}: {units.metric(one['metric']['value'], name)}" for one in found)
    top = max(found, key=lambda one: sign * float(one["metric"]["value"]))
    best = front.get("best") or base
    who = "the best" if front.get("best") else f"the {reference(front)}"
    better = sign * (float(top["metric"]["value"]) - float(best["metric"]["value"])) > 0
    said = f" {who[0].upper()}{who[1:]} is worse than that: {units.metric(best['metric']['value'], name)}."
    return [f"Without a network, on the valid split: {told}.{said if better else ''}"]


def trial_lines(trial: Json, front: Json) -> list[str]:
    """What became of a trial. trial: as JSON, with its reason and entry."""
    entry, state = trial.get("entry"), str(trial.get("state"))
    took = f" in {units.seconds(float(trial['seconds']))}" if trial.get("seconds") else ""
    steps = f", {trial.get('reused', 0)} of {trial['steps']} steps from the cache" if trial.get("steps") else ""
    lines = [f"Trial {trial['number']}: {'waits at a rung' if trial.get('paused') else state}{took}{steps}."]
    lines += [f"  {path} = {value}" for path, value in (trial.get("filling") or {}).items()]
    if trial.get("reason"):
        lines.append(f"Why: {trial['reason']}")
    if entry is not None:
        lines.append(
            f"{entry['label']} on {entry['target']}: {_numbers(entry, front.get('baseline'), reference(front))}."
        )
        broken = entry.get("violations") or []
        lines.append(f"Limits: {_broken(front, entry)}." if broken else "Limits: it meets them all.")
        if entry.get("certificate"):
            lines.append(certificate(entry))
    return lines


def unseen_classes(front: Json) -> list[str]:
    """Of which classes nothing was shown."""
    out = []
    for split, says in (("test", "certificates say"), ("valid", "the chance of a certificate knows")):
        names = (front.get("unseen_classes") or {}).get(split) or []
        if names:
            some = f"{', '.join(names[:10])}{', ..' if len(names) > 10 else ''}"
            out.append(f"The {split} split has no sample of {some}: {says} nothing of them.")
    return out


def _unfinished(front: Json) -> list[str]:
    """That the last run did not come to its end, and why, if that is known."""
    if front.get("running"):
        return ["The study still runs: this is what it knows so far."]
    if front.get("finished", True):
        return []
    if front.get("broken_off"):
        return [f"The last run ended with an error: {front['broken_off']}."]
    return ["The last run did not come to its end: it was interrupted."]


def speed(entry: Json, reference: str = "original") -> str:
    """The speedup against the baseline in words, with its interval and the claim that the interval
    allows. reference: what the baseline is."""
    value = entry["speedup"].get("ratio")
    ends = pair(entry["speedup"].get("ci95"))
    claim = speed_claim(entry["speedup"])
    if value is None:
        return "speed not measured"
    if ends is None:
        return f"{claim} in speed (time ratio {units.ratio(float(value))}, no interval)"
    low, high = (units.ratio(e) if units.ratio(e) != "1.00x" or e == 1 else f"{e:.3f}x" for e in ends)
    interval = f"95 % interval {units.between(low, high)}"
    if claim == "faster":
        return f"{units.ratio(float(value))} faster than the {reference} ({interval})"
    if claim == "slower":
        return f"slower than the {reference}: {units.ratio(float(value))} its speed ({interval})"
    return f"{claim} in speed against the {reference} ({units.ratio(float(value))}, {interval})"


def certificate(entry: Json, why: str | None = None) -> str:
    """What the test split says about the drop, with n and the interval. why: there is none, if that
    is known."""
    c = entry.get("certificate")
    if not c:
        text = "The drop has no certificate: nothing is known of this candidate on the test split"
        return f"{text}, because {why}." if why else f"{text}."
    name = _metric(entry)
    ends = pair(c.get("ci95"))
    interval = (
        f" (95 % interval of the drop {units.between(*(units.difference(e, name) for e in ends))})" if ends else ""
    )
    text = f"on {c.get('n')} {c.get('split', 'test')} samples that the search never saw, {name} is "
    if c.get("min_metric") is not None:
        return _of_its_own(c, name, text)
    text += units.change(c.get("drop"), name)
    limit = c.get("max_drop")
    allowed = f", where {units.difference(limit, name)} is allowed" if limit is not None else ""
    if c.get("verdict") == "certified":
        most = c.get("upper")
        bound = f", proven to be at most {units.difference(most, name)} worse" if most is not None and most > 0 else ""
        bound = ", proven to be no worse" if most is not None and most <= 0 else bound
        sure = "; with 95 % confidence no certificate of this study is wrong" if limit is not None else interval
        return f"Certified: {text}{bound}{allowed}{sure}."
    if c.get("verdict") == "measured":
        return f"{text[0].upper()}{text[1:]}{interval}. No floor was asked for, so nothing is certified."
    if c.get("verdict") == "refuted":
        return f"Refuted: {text}{allowed}{interval}."
    needs = c.get("needs")
    more = f" ({needs})" if needs else ""
    hidden = ""
    if c.get("upper") is not None and ends and c["upper"] > ends[1] and limit is not None and ends[1] <= limit:
        hidden = f"; with failures that so few samples need not show, up to {units.difference(c['upper'], name)}"
    return f"Not certifiable with this test split{more}: {text}{allowed}{interval}{hidden}."


def _of_its_own(c: Json, name: str, text: str) -> str:
    """A certificate of the metric itself. text: how it begins."""
    text += units.metric(c["value"], name)
    asked = f", where {units.metric(c['min_metric'], name)} is asked"
    if c.get("verdict") == "certified":
        least = f", proven to be at least {units.metric(c['lower'], name)}"
        return f"Certified: {text}{least}{asked}; with 95 % confidence no certificate of this study is wrong."
    if c.get("verdict") == "refuted":
        return f"Refuted: {text}{asked}."
    more = f" ({c['needs']})" if c.get("needs") else ""
    return f"Not certifiable with this test split{more}: {text}{asked}."


def feasible(front: Json) -> bool:
    """Is there anything to take that meets every limit: a candidate, a baseline, or, compared with
    some, the original?"""
    tried = bool((front.get("trials") or {}).get("complete"))
    return front.get("best") is not None or (tried and front.get("nearest") is None and bool(front.get("front")))


def verb(config: Json) -> str:
    """The command that makes such a study: `optimize` or `search`."""
    return "search" if config.get("mode") == "search" else "optimize"


def _metric(entry: Json) -> str:
    return str((entry.get("metric") or {}).get("name", ""))


def _numbers(entry: Json, baseline: Json | None, reference: str) -> str:
    """Speed, size and metric of an entry against the baseline."""
    name = _metric(entry)
    value = (
        f"{name} {units.metric(entry['metric'].get('value'), name)} on the "
        f"{entry['metric'].get('split', 'valid')} split"
    )
    if baseline is None or identity(entry) == identity(baseline):
        return f"{units.size(entry['size_bytes'])}, {value}"
    share = size_ratio(entry, baseline)
    small = (
        f"{units.percent(share)} of its size ({units.size(entry['size_bytes'])} against "
        f"{units.size(baseline['size_bytes'])})"
    )
    change = units.change(drop(entry, baseline), name)
    return f"{speed(entry, reference)}, {small}, {value} ({change})"


def _broken(front: Json, entry: Json) -> str:
    """Which limits it breaks."""
    said = [violation_text(v, entry, reference(front), tested(front)) for v in entry.get("violations") or []]
    return "; ".join(said) or "it has not been judged"


def _excess(entry: Json) -> float:
    return sum(float(v["excess"]) for v in entry.get("violations") or [])


def _nearer(front: Json, nearest: Json) -> list[str]:
    """That a baseline breaks the limits no more than what was found, if one does."""
    baseline = front.get("baseline")
    others = [
        e
        for e in front.get("baselines") or []
        if not e.get("feasible") and (baseline is None or identity(e) != identity(baseline))
    ]
    top = min(others, key=_excess, default=None)
    if top is None or _excess(top) > _excess(nearest):
        return []
    return [f"The baseline {top['label']} is as near or nearer, without a search: {_broken(front, top)}."]


def _trained(entry: Json) -> str:
    count = epochs(entry)
    return units.many(count, "epoch") if count else "no training"


def beaten(front: Json, best: Json) -> bool:
    """Does the baseline itself meet every limit, and is it better than the best by what is
    minimized?"""
    baseline = front.get("baseline")
    return bool(baseline and baseline.get("feasible")) and score(front, baseline or {}) < score(front, best) - 1e-9


def _unproven(front: Json, best: Json) -> list[str]:
    """What was better by the objectives than the best one, and why it is not the best."""
    if (best.get("certificate") or {}).get("verdict") != "certified":
        return []
    better = [
        e
        for e in front.get("front") or []
        if e.get("trial") is not None
        and (e.get("certificate") or {}).get("verdict") != "certified"
        and score(front, e) < score(front, best)
    ]
    if not better:
        return []
    top = min(better, key=lambda e: score(front, e))
    c = top.get("certificate") or {}
    why = (
        f"its drop on test was {units.difference(c.get('drop'), _metric(top))}"
        + (f" ({c['needs']})" if c.get("needs") else "")
        if c
        else f"its chance of a certificate was {units.percent(top.get('chance'))}, and it was not looked at"
    )
    return [
        f"Not proven, and so not the best: {top['label']}, {units.ratio(float(top['speedup']['ratio']))} and "
        f"{units.size(top['size_bytes'])}; {why}."
    ]


def _against_baselines(front: Json, best: Json, baseline: Json | None) -> str:
    """What one gets without a search: plain int8, random cutting,
    the baseline on other runtimes."""
    others = [
        e
        for e in front.get("baselines") or []
        if e.get("feasible") and (baseline is None or identity(e) != identity(baseline))
    ]
    if not others:
        return "No baseline (plain int8, random cutting, other runtimes) meets the limits."
    top = min(others, key=lambda e: score(front, e))
    verdict = certified_text(top)
    trained = f" ({_trained(top)}; the best had {_trained(best)})" if epochs(top) != epochs(best) else ""
    ratio = pair(top["speedup"].get("ci95"))
    interval = f", 95 % interval {units.between(*(units.ratio(r) for r in ratio))}" if ratio else ""
    return (
        f"Without a search the best baseline that meets the limits is {top['label']}{trained}: "
        f"speed {units.ratio(float(top['speedup']['ratio']))} the {reference(front)}'s{interval}, "
        f"{units.percent(size_ratio(top, baseline))} of its size" + (f"; on test {verdict}." if verdict else ".")
    )
