"""Saliency: attentive diffusion of each model, and its occlusion maps over the images on request."""

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

#: Most images of a data set whose maps are shown.
_MOST = 8
_COLUMNS = (
    Column("data set"),
    Column("model"),
    Column("mode"),
    Column("images", numeric=True),
    Column("stride", numeric=True, hint="step of the occluding square in pixels; 1 is exact, the study's"),
    Column(
        "attentive diffusion",
        numeric=True,
        hint="share of the pixels whose score exceeds the map's mean; 95 % interval over images or patients",
    ),
    Column("sd", numeric=True, hint="over images"),
    Column("least", numeric=True),
    Column("most", numeric=True),
)
_CAPTION = (
    "Attentive diffusion by occlusion (Anton et al., 2022): the larger, the more of the image a model's "
    "features depend on. Values of different strides do not compare."
)


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section; empty where no record is of saliency."""
    cells = evidence_of(page, "saliency")
    if not cells:
        return ()
    blocks: list[Block] = [DataTable("table-saliency", _CAPTION, _COLUMNS, tuple(map(_row, cells)))]
    if options.thumbnails:
        shelves = [(source.name, _groups(source, cells)) for source in page.sources]
        budget = budget_of("saliency", page, options)
        blocks += cut_galleries("gallery-saliency", shelves, budget, "images with their maps")
    else:
        blocks.append(privacy_note("Maps over the images"))
    return (Section("saliency", "Saliency", tuple(blocks)),)


def _row(cell: Evidence) -> tuple[Value, ...]:
    metrics, asked = cell.record.metrics, cell.record.asked
    items = metrics.get("items")
    reason = text(metrics.get("reason")) or "no image gave a map"
    low, high = number(at(metrics, "interval.low")), number(at(metrics, "interval.high"))
    return (
        Value(cell.source.name),
        Value(cell.model),
        Value(cell.mode),
        number_value(float(len(items)) if isinstance(items, list) else float("nan"), "{:,.0f}"),
        number_value(number(cell.record.used.get("stride", asked.get("stride"))), "{:.0f}"),
        interval_value(number(metrics.get("mean")), low, high, reason),
        number_value(number(metrics.get("sd"))),
        number_value(number(metrics.get("min"))),
        number_value(number(metrics.get("max"))),
    )


def _groups(source: Source, cells: tuple[Evidence, ...]) -> list[tuple[str, Group]]:
    """Return a group for each image of a data set: the image, then the map of each model over it."""
    images = BankImages(source)
    by_image: dict[tuple[str, int, int], list[StoredItem]] = {}
    for cell in cells:
        if cell.source is source:
            for item in items_of(cell, images):
                stride = number(cell.record.used.get("stride"))
                place = (cell.mode, int(stride) if stride == stride else 0, item.row)
                by_image.setdefault(place, []).append(item)
    # Images that most models have come first; `sorted` keeps the order of the draw among equals.
    ranked = sorted(by_image.items(), key=lambda pair: -len(pair[1]))[:_MOST]
    return [
        (_title(items[0], mode, stride), partial(_pictures, items)) for (mode, stride, _), items in ranked
    ]


def _title(item: StoredItem, mode: str, stride: int) -> str:
    return f"{item.image_id}, stride {stride}" + f", {mode}" * (mode != "default")


def _pictures(items: list[StoredItem]) -> tuple[Picture, ...]:
    first = items[0]
    pictures = [picture_of("image", partial(first.original, "map"), f"Image {first.image_id}")]
    for item in items:
        diffusion = number(item.body.get("attentive_diffusion"))
        value = f"{diffusion:.3f}" if diffusion == diffusion else "undefined"
        alt = (
            f"Occlusion map of {item.cell.model} over image {item.image_id}; attentive diffusion {value}. "
            "Colours from violet, least, to yellow, most, on a scale of its own."
        )
        pictures.append(picture_of(f"{item.cell.model}: {value}", item.overlay, alt))
    return tuple(pictures)
