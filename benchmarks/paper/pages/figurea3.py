"""Figure A3: transfer accuracy against the mean LPIPS of reconstructions, with the fits of section 5.3."""

from pathlib import Path

from benchmarks.paper.experiments import missing, provenance, transfers
from benchmarks.paper.relations import Relation, lpips, shown
from benchmarks.paper.scatter import about, draw_panels, points_table, statistics_table
from benchmarks.paper.style import save
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "transfer accuracy against LPIPS of reconstructed images, by data set"


def relations(values: Values) -> tuple[Relation, ...]:
    """Return the panels.

    Raises:
        Refused: none has three models with both numbers.
    """
    panels = shown([lpips(values, experiment) for experiment in transfers(values)])
    if not panels:
        raise missing("figure A3", "an accuracy and three LPIPS of three models on one data set")
    return panels


def caption(values: Values) -> str:
    """Return what is shown, n, and where the values are from."""
    return (
        "Figure A3. Accuracy (x) and LPIPS between image and reconstruction (y): mean of AlexNet, SqueezeNet and "
        "VGG-16, vertical bars: their standard deviation (divisor 3). χ²/ν: reduced chi-square with ν = n - 2 of "
        "a line weighted by these deviations through the ImageNet models, as in section 5.3 of the paper. "
        f"{about(relations(values))} {provenance(values)}"
    )


def draw(values: Values, out: Path) -> None:
    """Draw the figure. Raises Refused if values are lacking."""
    save(lambda: draw_panels(relations(values), caption(values)), out, "figurea3")


def table(values: Values) -> DataTable:
    """Return the correlations and the weighted lines. Raises Refused if values are lacking."""
    return statistics_table("figurea3", caption(values), relations(values))


def points(values: Values) -> DataTable:
    """Return the points. Raises Refused if values are lacking."""
    return points_table("figurea3-points", caption(values), relations(values))
