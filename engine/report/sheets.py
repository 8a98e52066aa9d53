"""Contact sheets: pictures side by side with captions, drawn with Pillow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.decode.reference import picture
from engine.decode.sniff import sniff
from engine.decode.source import ImageSource
from engine.errors import BadImage
from engine.evals.audit import Audit
from engine.evals.search import SearchResult
from engine.recipes import Recipe
from engine.report.drawing import save_picture
from engine.restore import images_of, one_file
from stores.read import Bank

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.Image import Image

SIDE, MARGIN, LINE, FRAME = 160, 12, 17, 4
_PAPER, _INK, _GREY, _EDGE = "#ffffff", "#222222", "#c8c8c8", "#e6eaf0"
#: Frames of tiles: the query, one that agrees with it, one that does not, one that cannot be judged.
COLOURS = {"query": "#1f4e9c", "same": "#2a7f62", "other": "#c1440e", "plain": "#9a9a9a"}


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        source, row: where its file is; `None` source draws a grey tile.
        captions: lines under it, cut where they are too long.
        kind: of the frame, a key of `COLOURS`.
    """

    source: ImageSource | None
    row: int
    captions: Sequence[str]
    kind: str = "plain"


def contact_sheet(
    tiles: Sequence[Tile],
    out: Path,
    *,
    columns: int = 6,
    recipe: Recipe | None = None,
    command: str = "search",
) -> int:
    """Draw tiles in rows and write a PNG, SVG or PDF by the ending, whole or not at all.

    A picture that cannot be read becomes a grey tile that names the reason.

    Args:
        tiles: at least one.
        columns: tiles a row.
        recipe: says how deep samples and EXIF turns are shown.
        command: that draws, as `engine.report.drawing.save_picture` takes it.

    Returns:
        How many tiles are grey.

    Raises:
        Refused: the folder is not writable.
    """
    from PIL import Image, ImageDraw

    lines = max(len(tile.captions) for tile in tiles)
    width, height = SIDE + MARGIN, SIDE + MARGIN + LINE * lines
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    grey = 0
    for at, tile in enumerate(tiles):
        x, y = MARGIN + at % columns * width, MARGIN + at // columns * height
        picture, reason = _picture(tile, recipe or Recipe(depth="scale"))
        grey += bool(reason)
        sheet.paste(picture, (x, y))
        if reason:
            _text(draw, x + FRAME + 4, y + SIDE // 2 - LINE, ["no picture:", reason], SIDE - 16, _INK)
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=COLOURS[tile.kind], width=FRAME)
        _text(draw, x, y + SIDE + 2, tile.captions, SIDE, _INK)
    save_picture(sheet, out, command)
    return grey


def pictures_of(bank: Path | str, model: str, *, root: Path | None = None) -> ImageSource:
    """Find the files that a model's features in a bank were made from; call it before work that is kept.

    Args:
        model: slug or feature name.
        root: the images' folder, where it has moved.

    Raises:
        Refused: as `engine.restore.images_of`.
    """
    store = Bank.open(bank)
    return images_of(store, store.features(model).name, root=root)


def search_sheet(source: ImageSource, result: SearchResult, out: Path, *, image: Path | None = None) -> int:
    """Draw a query and its neighbours; returns how many pictures could not be read.

    Args:
        source: the bank's images, of `pictures_of`.
        image: the query's file, where it was not an image of the bank.
    """
    label = str(result.query.get("label", ""))
    if result.row is not None:
        tiles = [Tile(source, result.row, ("query", label, str(result.query["image_id"])), "query")]
    else:
        file = Path(str(image))
        own = one_file(file, source.limits)
        tiles = [Tile(own, 0, ("query", "", file.name), "query")]
    for each in result.found:
        captions = (f"{each.rank}: {each.distance:.4g}", each.label or "(no label)", each.image_id)
        tiles.append(Tile(source, each.row, captions, _agreement(label, each.label)))
    return contact_sheet(tiles, out)


def audit_sheet(
    source: ImageSource, image_ids: Sequence[str], found: Audit, out: Path, *, pairs: int = 24
) -> int:
    """Draw the most similar pairs, two tiles each; returns how many pictures could not be read.

    Args:
        source: the bank's images, of `pictures_of`.
        image_ids: of each row of the bank.
    """
    tiles = []
    near = found.pairs
    for a, b, similarity in zip(
        near.first[:pairs].tolist(), near.second[:pairs].tolist(), near.similarity[:pairs], strict=True
    ):
        kind = _agreement(found.value("label", a), found.value("label", b))
        for row, about in ((a, f"cosine {similarity:.6f}"), (b, "")):
            where, label = found.value("split", row) or "(no split)", found.value("label", row)
            tiles.append(Tile(source, row, (about, label or "(no label)", where, image_ids[row]), kind))
    if tiles:
        return contact_sheet(tiles, out, command="bank audit")
    contact_sheet([Tile(None, 0, ("no pairs",))], out, command="bank audit")
    return 0


def _agreement(a: str, b: str) -> str:
    if not (a and b):
        return "plain"
    return "same" if a == b else "other"


def _picture(tile: Tile, recipe: Recipe) -> tuple["Image", str]:
    """The whole picture, fitted into a square, and why it is grey if it is."""
    from PIL import Image

    canvas = Image.new("RGB", (SIDE, SIDE), _EDGE)
    try:
        if tile.source is None:
            raise BadImage("missing", "no file")
        data = tile.source.read(tile.row)
        header = sniff(data, recipe, tile.source.limits)
        image = picture(data, header, recipe).convert("RGB")
    except BadImage as error:
        canvas.paste(_GREY, (0, 0, SIDE, SIDE))
        return canvas, error.code
    room = SIDE - 2 * FRAME
    scale = room / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Small pictures keep their pixels visible.
    filter = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    image = image.resize(size, filter, reducing_gap=3.0)
    canvas.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return canvas, ""


def shortened(text: str, room: float, length: Callable[[str], float]) -> str:
    """The text, or as much of its beginning as fits with an ellipsis; at least that.

    Args:
        room: that there is.
        length: of a text, in the same unit; not smaller for a longer text.
    """
    if length(text) <= room:
        return text
    fits, over = 0, len(text)
    while over - fits > 1:
        middle = (fits + over) // 2
        if length(text[:middle] + "…") <= room:
            fits = middle
        else:
            over = middle
    return text[:fits] + "…"


def _text(draw: "ImageDraw.ImageDraw", x: int, y: int, lines: Sequence[str], room: int, colour: str) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(13)
    for at, line in enumerate(lines):
        text = "".join(c if c.isprintable() else "?" for c in line[: room + 1])
        text = shortened(text, room, lambda part: draw.textlength(part, font))
        draw.text((x, y + at * LINE), text, fill=colour, font=font)
