"""Errors that say what was got, what is allowed and how to fix it."""

from __future__ import annotations

LONGEST = 500  # characters of a value that are shown


class Whole(str):
    """A text that an error tells to its end, however long it is."""


def shown(value: object, longest: int = LONGEST) -> str:
    """A value as text of at most so many characters; a longer one ends with " .."."""
    try:
        text = str(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a {type(value).__name__} that is too long to be written"
    return text if len(text) <= longest or isinstance(value, Whole) else f"{text[:longest]} .."


def _short(value: object) -> object:
    """The value itself, if it is short."""
    text = shown(value)
    short = value is None or (len(text) <= LONGEST and not (isinstance(value, int) and abs(value) > 2**1000))
    return value if short or isinstance(value, Whole) else text


class FeatherweightError(Exception):
    """Base of every error that a user can cause and mend.

    `what` is one sentence; `got`, `allowed` and `fix` are added where they are known, the first two
    cut to `LONGEST` characters.
    """

    def __init__(self, what: str, *, got: object = None, allowed: object = None, fix: str | None = None) -> None:
        self.what, self.got, self.allowed, self.fix = shown(what, 2 * LONGEST), _short(got), _short(allowed), fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.got is not None:
            lines.append(f"  got: {self.got}")
        if self.allowed is not None:
            lines.append(f"  allowed: {self.allowed}")
        if self.fix is not None:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class InputError(FeatherweightError):
    """A value, a file or an option is not what it has to be."""


class RecipeError(FeatherweightError):
    """A recipe is malformed, or its steps stand in an order that cannot work."""


class TaskError(FeatherweightError):
    """A task cannot be loaded, or its data cannot be split."""


class TargetError(FeatherweightError):
    """A model cannot be exported to, loaded by or run on a target."""


class StoreError(FeatherweightError):
    """A study or an artifact cannot be read or written."""


class DiskError(StoreError):
    """A disk is full, or cannot be written: no fault of what was tried."""


class NoStudy(StoreError, InputError):
    """There is no study where one was named."""


class MissingExtra(FeatherweightError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed", fix=f"pip install 'featherweight[{extra}]'"
        )
