"""What a study found, for people: words, terminal tables, the HTML report and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..study import Study


def write_report(study: Study, path: Path) -> Path:
    """The study's HTML report at `path`. Returns the path."""
    from . import html

    return html.write(path, study.front_json(), study.trials(), study.info(), study.config)
