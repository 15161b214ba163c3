"""A terminal that what is printed cannot command: names of files, classes and inputs, and texts of
logs come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# all control characters but tab and line end: C0, delete, C1, those that turn the direction; and
# bytes of a name that are no text
_SHOWN = dict.fromkeys(
    [*range(0x20), 0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)],
    "?",
)
del _SHOWN[0x09], _SHOWN[0x0A]


class SafeConsole(Console):
    """Shows control characters in what it prints as question marks; styles are its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for s in super().render(renderable, options):
            yield s if s.control else Segment(s.text.translate(_SHOWN), s.style)
