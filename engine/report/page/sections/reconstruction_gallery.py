"""Reconstructions: loss and LPIPS of each model, and the images beside their reconstructions on request."""

from functools import partial

from engine.report.page.blocks import Block, Column, DataTable, Picture, Section, Value
from engine.report.page.budget import Group, budget_of
from engine.report.page.evidence import Evidence, evidence_of
from engine.report.page.galleries import cut_galleries, picture_of, privacy_note
from engine.report.page.inputs import PageInput, PageOptions, Source
from engine.report.page.stored_pictures import StoredItem, items_of
from engine.report.page.thumbnails import BankImages
from engine.report.page.values import interval_value, number_value
from engine.report.record_values import at, number, text

#: Most images of a data set, and reconstructions of one by one model, that are shown.
_MOST, _SEEDS = 6, 1
_COLUMNS = (
    Column("data set"),
    Column("model"),
    Column("mode"),
    Column("images", numeric=True),
    Column("networks", numeric=True, hint="for each image, with different seeds"),
    Column("updates", numeric=True, hint="of a network's weights"),
    Column(
        "loss",
        numeric=True,
        hint="mean squared error of the feature map; of models with different maps it does not compare; "
        "95 % interval over images or patients",
    ),
    Column(
        "LPIPS",
        numeric=True,
        hint="perceptual distance to the image, mean of three networks; 0 is identical; 95 % interval over "
        "images or patients",
    ),
)
_CAPTION = (
    "Images reconstructed from a model's last feature map by a deep image prior (Anton et al., 2022): the "
    "smaller LPIPS, the more of the image its features keep."
)


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section; empty where no record is of reconstructions."""
    cells = evidence_of(page, "reconstruct")
    if not cells:
        return ()
    rows = tuple(map(_row, cells))
    blocks: list[Block] = [DataTable("table-reconstruction", _CAPTION, _COLUMNS, rows)]
    if options.thumbnails:
        shelves = [(source.name, _groups(source, cells)) for source in page.sources]
        budget = budget_of("reconstruction", page, options)
        blocks += cut_galleries("gallery-reconstruction", shelves, budget, "images with reconstructions")
    else:
        blocks.append(privacy_note("Images with their reconstructions"))
    return (Section("reconstruction", "Reconstruction", tuple(blocks)),)


def _row(cell: Evidence) -> tuple[Value, ...]:
    metrics, asked = cell.record.metrics, cell.record.asked
    by_image = metrics.get("by_image")
    networks = at(metrics, "seeds") or asked.get("seeds") or _most_seeds(metrics.get("items"))
    return (
        Value(cell.source.name),
        Value(cell.model),
        Value(cell.mode),
        number_value(float(len(by_image)) if isinstance(by_image, list) else float("nan"), "{:,.0f}"),
        number_value(number(networks), "{:.0f}"),
        number_value(number(asked.get("steps")), "{:,.0f}"),
        _measured(cell, "loss", "{:.3g}"),
        _measured(cell, "lpips", "{:.3f}"),
    )


def _most_seeds(items: object) -> int | None:
    """Return how many seeds the items of a record have."""
    bodies = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return len({number(item.get("seed")) for item in bodies}) or None


def _measured(cell: Evidence, name: str, form: str) -> Value:
    metrics = cell.record.metrics
    low, high = (number(at(metrics, f"{name}.interval.{end}")) for end in ("low", "high"))
    reason = text(at(metrics, f"{name}.reason")) or "no image gave a number"
    return interval_value(number(at(metrics, f"{name}.mean")), low, high, reason, form)


def _groups(source: Source, cells: tuple[Evidence, ...]) -> list[tuple[str, Group]]:
    """Return a group for each image of a data set: the image, then each model's reconstruction."""
    images = BankImages(source)
    by_image: dict[tuple[str, int], list[StoredItem]] = {}
    for cell in cells:
        if cell.source is source:
            shown: dict[int, int] = {}
            for item in items_of(cell, images):
                shown[item.row] = shown.get(item.row, 0) + 1
                if shown[item.row] <= _SEEDS:
                    by_image.setdefault((cell.mode, item.row), []).append(item)
    ranked = sorted(by_image.items(), key=lambda pair: -len(pair[1]))[:_MOST]
    return [
        (f"{items[0].image_id}" + f", {mode}" * (mode != "default"), partial(_pictures, items))
        for (mode, _), items in ranked
    ]


def _pictures(items: list[StoredItem]) -> tuple[Picture, ...]:
    first = items[0]
    pictures = [picture_of("image", partial(first.original, "kept"), f"Image {first.image_id}")]
    for item in items:
        loss, lpips = number(item.body.get("loss")), number(at(item.body, "lpips.mean"))
        distance = f"LPIPS {lpips:.3f}" if lpips == lpips else "LPIPS not known"
        numbers = f"loss {loss:.3g}, {distance}" if loss == loss else "undefined"
        alt = f"Reconstruction of image {first.image_id} from features of {item.cell.model}; {numbers}"
        pictures.append(picture_of(f"{item.cell.model}: {numbers}", item.reconstruction, alt))
    return tuple(pictures)
