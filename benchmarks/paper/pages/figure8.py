"""Figure 8 of the paper."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.picture_figures import few_models
from engine.report.page.inputs import Source

TITLE = "saliency maps of three models, with attentive diffusion"

#: As in the paper.
MODELS = ("moco-cxr-d121", "byol", "supervised-r50")


def show(sources: Sequence[Source], out: Path, mode: str = "default", root: Path | None = None) -> None:
    """Draw the figure from the pictures of a study."""
    few_models("figure8", sources, "saliency", MODELS, out, mode, root)
