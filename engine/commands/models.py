"""`embank models`: the catalogue of backbones."""

from typing import TYPE_CHECKING

import typer

from engine.commands.declaring import command
from engine.commands.models_choose import models_choose
from engine.commands.options import ConvertedOut, Force, FromFile, Json, Slug, Weights
from engine.commands.processes import terminable
from engine.commands.showing import show

if TYPE_CHECKING:
    from stores.json_types import JsonObject

app = typer.Typer(help="The catalogue of backbones.", no_args_is_help=True)


command(app, "choose")(models_choose)


@command(app, "list")
def models_list(json: Json = False) -> None:
    """List the catalogue, and the families from which any NAME is accepted."""
    from engine.models import catalogue
    from engine.report.catalogue_text import print_models

    rows = catalogue()
    show(rows, json, lambda: print_models(rows))


@command(app, "show")
def models_show(slug: Slug, weights: Weights = None, json: Json = False) -> None:
    """Show all that is known of a model: architecture, weights, preprocessing, feature, paper, licence."""
    from engine.models.catalog.lookup import describe
    from engine.report.catalogue_text import print_model

    facts = describe(slug, weights=weights)
    show(facts, json, lambda: print_model(facts))


@command(app, "fetch")
def models_fetch(slug: Slug, from_file: FromFile = None, json: Json = False) -> None:
    """Download published weights, check, pin and convert them. Run it again to resume."""
    from engine.models.catalog.lookup import published
    from engine.models.checkpoints.checkpoint_cache import convert, fetch, read_fitted
    from engine.report import console

    source, architecture = published(slug)
    if from_file is not None:  # a file that does not fit is not taken into the cache
        read_fitted(source, architecture, from_file)
    with terminable(), console.transfer_progress(source.file) as update:
        fetch(source, from_file=from_file, progress=update)
    _show_converted(convert(source, architecture), json)


@command(app, "convert")
def models_convert(
    slug: Slug,
    from_file: FromFile = None,
    out: ConvertedOut = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Convert a published file to safetensors again, with its provenance; nothing is downloaded.

    -o takes the weights: .safetensors.
    """
    from engine.models.catalog.lookup import published
    from engine.models.checkpoints.checkpoint_cache import convert
    from stores.outputs import check_file

    source, architecture = published(slug)
    if out is not None:
        for path, kind in ((out, ".safetensors"), (out.with_suffix(".json"), ".json")):
            check_file(path, (kind,), force=force, inputs=(from_file, source.source))
    _show_converted(convert(source, architecture, source=from_file, out=out), json)


def _show_converted(report: "JsonObject", json: bool) -> None:
    from engine.report.catalogue_text import print_converted

    show(report, json, lambda: print_converted(report))
