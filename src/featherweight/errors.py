"""Errors that say what was got, what is allowed and how to fix it."""

from __future__ import annotations


class FeatherweightError(Exception):
    """Base of every error that a user can cause and mend.

    `what` is one sentence; `got`, `allowed` and `fix` are added where they are known.
    """

    def __init__(self, what: str, *, got: object = None, allowed: object = None, fix: str | None = None) -> None:
        self.what, self.got, self.allowed, self.fix = what, got, allowed, fix
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
