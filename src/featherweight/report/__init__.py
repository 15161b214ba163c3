"""What a study found, for people: words, terminal tables, the HTML report and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..study import Study
    from .analysis import Analysis


def write_report(study: Study, path: Path, out: Path, found: Analysis | None = None) -> Path:
    """The report of the study in the folder `out`, as one HTML file at `path`. Returns the path.

    found: what `analysis.analyse` made of the study, if it was asked before.
    """
    from . import html

    return html.write(path, study.front_json(), study.trials(), study.info(), {**study.config, "out": str(out)}, found)
