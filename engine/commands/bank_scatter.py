"""`embank bank scatter`: the images of a bank in the plane."""

from typing import Annotated

from engine.commands.checking import check_output
from engine.commands.choices import Projection
from engine.commands.declaring import PROTOCOL, WHAT, option
from engine.commands.options import BankPath, Force, Json, OneModel, PictureOut, Seed, Split
from engine.commands.showing import show

Color = Annotated[
    str | None,
    option(
        WHAT,
        "--color",
        metavar="COLUMN",
        help="Column of the manifest that colours the points.",
        show_default="label",
    ),
]
Method = Annotated[
    Projection,
    option(PROTOCOL, "--method", help="Principal components, or UMAP (needs embank[umap])."),
]


def bank_scatter(
    bank: BankPath,
    model: OneModel,
    out: PictureOut,
    color: Color = None,
    split: Split = None,
    method: Method = Projection.pca,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Draw the embeddings of a model in the plane: at most 20,000 images, the same ones for all models.

    Principal components are of centred, unscaled embeddings in float64; the axes say how much of the variance
    they have. UMAP shows neighbourhoods: its axes and distances between groups mean nothing. -o takes the
    picture: .png, .svg or .pdf.
    """
    from engine.evals.scatter.project import project
    from engine.report.scatter_figure import print_scatter, scatter_figure

    check_output(out, bank, "bank scatter", force)
    projection = project(bank, model, method.value, color, split, seed)
    report = projection.report
    scatter_figure(projection.coordinates, projection.cells, report, out)
    show({"bank": bank, **report, "file": out}, json, lambda: print_scatter(report, out))
