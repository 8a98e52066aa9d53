"""Figures 6, 8, A5 and A6 of the paper from the pictures of a study: a few models, or models x data sets."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.names import DATASETS, dataset_label, model_label
from benchmarks.paper.picture_sheet import Sheet, Tile
from benchmarks.paper.pictures import Kind, Shown, shown
from benchmarks.paper.results_table import ORDER
from engine.report.page.inputs import Source

ORIGINAL = "original"
_DATASET = "chexpert"
_SAYS = {
    "saliency": "Occlusion maps (jet, 60 % over the image, each on its own scale); below each its attentive "
    "diffusion, the share of pixels above the map's mean",
    "reconstruct": "Images reconstructed from the last feature map of a model (deep image prior); below each "
    "the mean LPIPS of three networks (0 is identical), or the loss where LPIPS is not known",
}


def few_models(
    name: str,
    sources: Sequence[Source],
    kind: Kind,
    models: Sequence[str],
    out: Path,
    mode: str,
    root: Path | None,
) -> None:
    """Draw an image and its pictures by a few models, side by side.

    Args:
        name: of the page, e.g. `figure6`.
        models: the paper's; where one has no picture another model stands for it, and the figure says so.
        root: folder of the images, where they have moved.

    Raises:
        Refused: as `benchmarks.paper.pictures.shown`, or the folder is not writable.
    """
    available = shown(sources, kind, mode, root=root)
    dataset = _first(_DATASET, dict.fromkeys(picture.dataset for picture in available))
    own = {picture.model: picture for picture in available if picture.dataset == dataset}
    others = [model for model in _ordered(own, ORDER) if model not in models]
    chosen = [*(model for model in models if model in own), *others][: len(models)]
    first = own[chosen[0]]
    row = dataset_label(dataset)
    tiles = {(row, ORIGINAL): Tile(first.original, first.image_id)}
    tiles |= {(row, model_label(model)): Tile(own[model].drawn, own[model].caption) for model in chosen}
    header = [_title(name, mode), _SAYS[kind], *_stand_ins(dataset, models, chosen)]
    Sheet(header, [row], [ORIGINAL, *map(model_label, chosen)], tiles, side=200).draw(out, f"paper {name}")


def all_models(
    name: str, sources: Sequence[Source], kind: Kind, out: Path, mode: str, root: Path | None
) -> None:
    """Draw the pictures of all models and data sets as a grid, the originals in its first row.

    Args, Raises: as `few_models`.
    """
    available = shown(sources, kind, mode, root=root)
    datasets = _ordered({picture.dataset for picture in available}, (*DATASETS, "imagenet"))
    models = _ordered({picture.model for picture in available}, ORDER)
    tiles: dict[tuple[str, str], Tile] = {}
    for picture in available:
        column = dataset_label(picture.dataset)
        tiles.setdefault((ORIGINAL, column), Tile(picture.original, picture.image_id))
        tiles[model_label(picture.model), column] = Tile(picture.drawn, picture.caption)
    rows = [ORIGINAL, *map(model_label, models)]
    columns = [dataset_label(dataset) for dataset in datasets]
    header = [_title(name, mode), _SAYS[kind]]
    Sheet(header, rows, columns, tiles).draw(out, f"paper {name}")


def _title(name: str, mode: str) -> str:
    return (
        f"Figure {name.removeprefix('figure').upper()} of Anton et al. (2022), from our records, mode {mode}"
    )


def _first(wanted: str, names: dict[str, None]) -> str:
    return wanted if wanted in names else next(iter(names))


def _ordered(names: "set[str] | dict[str, Shown]", order: Sequence[str]) -> list[str]:
    """Return names in the paper's order, then the others by name."""
    return [*(name for name in order if name in names), *sorted(set(names) - set(order))]


def _stand_ins(dataset: str, wanted: Sequence[str], chosen: Sequence[str]) -> list[str]:
    missing = [model_label(model) for model in wanted if model not in chosen]
    said = []
    if dataset != _DATASET:
        said.append(f"Not the paper's image: {dataset_label(dataset)} stands for {dataset_label(_DATASET)}")
    if missing:
        said.append(f"Without a picture here: {', '.join(missing)}; other models stand for them")
    return said
