"""Figure A6 of the paper."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.picture_figures import all_models
from engine.report.page.inputs import Source

TITLE = "saliency maps of all models on all data sets"


def show(sources: Sequence[Source], out: Path, mode: str = "default", root: Path | None = None) -> None:
    """Draw the figure from the pictures of a study."""
    all_models("figurea6", sources, "saliency", out, mode, root)
