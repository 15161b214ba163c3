"""What a test split can prove, in words: before a study runs, while it does, and in its report."""

from __future__ import annotations

from . import units
from .rows import Json


def proof(outlook: Json, name: str) -> str:
    """What the test split can prove. outlook: of `proof.chance.outlook`, or `attainable`; name: of
    the metric."""
    if "min_metric" in outlook:
        return _attainable(outlook, name)
    floor, most = units.difference(outlook["max_drop"], name), outlook["provable"]
    text = f"With {outlook['samples']:,} test samples, a floor of {floor} "
    which = "an assumption, none was measured yet" if outlook["assumed"] else "the middle one of those measured"
    if outlook["differing"] is not None:
        other = f"{units.percent(outlook['differing'])} of the samples otherwise than the original"
        who = f"a candidate that decides {other} ({which})"
    else:
        who = (
            f"a candidate whose drop varies by {units.difference(outlook['sd'], name)} from sample to sample ({which})"
        )
    if most is not None and most >= 0:
        text += f"can be certified for {who} if its true drop is under about {units.difference(most, name)}"
    else:
        better = "better than the original" + (
            f" by about {units.difference(-most, name)}" if most is not None else ", and by much"
        )
        text += f"can be certified for {who} only if it is {better}; {_easier(outlook, name)}"
    if outlook["needed"] is None:
        text = f"{text}; no number of samples would certify one of {units.difference(outlook['half'], name)}."
    else:
        text += f"; a drop of {units.difference(outlook['half'], name)} needs about {_rounded(outlook['needed']):,}."
    if (suited := outlook.get("suited")) is not None:
        text += f" A floor of about {units.difference(suited, name)} would suit so many: they certify a half of it."
    return text


def _attainable(outlook: Json, name: str) -> str:
    """What the test split can prove of a floor of the metric itself."""
    floor = units.metric(outlook["min_metric"], name)
    text = f"With {outlook['samples']:,} test samples, {name} of {floor} can "
    if outlook["provable"] is None:
        text += "not be certified for any candidate"
    else:
        text += (
            f"be certified for a candidate whose true {name} is over about {units.metric(outlook['provable'], name)}"
        )
    if outlook["as_good"] is None:
        return f"{text}."
    as_good = f"one as good as the original ({units.metric(outlook['as_good'], name)} on valid)"
    if outlook["needed"] is None:
        return f"{text}; no number of samples would certify {as_good}."
    return f"{text}; {as_good} needs about {_rounded(outlook['needed']):,}."


def _easier(outlook: Json, name: str) -> str:
    """Which candidates can be certified where the middle one cannot."""
    if (outlook.get("hidden") or 0.0) >= outlook["max_drop"]:
        least = units.difference(outlook["hidden"], name)
        return (
            f"so must any other be, for failures that none of so few samples shows may cost {least}: "
            "ask for a floor over that, or test on more samples"
        )
    if outlook["differing"] is None:
        return "one whose drop varies less may be certified without that"
    if not outlook.get("even"):
        return "so must any other be, even one that hardly differs"
    return f"one that decides under {units.percent(outlook['even'])} otherwise may be certified without that"


def _rounded(number: int) -> int:
    """Up to two digits."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step
