"""Figure 6 of the paper."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.picture_figures import few_models
from engine.report.page.inputs import Source

TITLE = "original image and reconstructions from two models"

#: As in the paper.
MODELS = ("pirl", "supervised-d121")


def show(sources: Sequence[Source], out: Path, mode: str = "default", root: Path | None = None) -> None:
    """Draw the figure from the pictures of a study."""
    few_models("figure6", sources, "reconstruct", MODELS, out, mode, root)
