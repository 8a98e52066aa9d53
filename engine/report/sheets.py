"""Contact sheets of captioned pictures, drawn with Pillow.

They show images, which no record has, and so take results with their bank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture as decoded_picture
from engine.decode.source import ImageSource
from engine.embed.restore import images_of, one_file
from engine.errors import BadImage
from engine.evals.neighbours.audit import Audit
from engine.evals.neighbours.search import SearchResult
from engine.recipes import Recipe
from engine.report import text_drawing
from engine.report.drawing import save_picture
from stores.bank.reader import Bank

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.Image import Image

SIDE, MARGIN, LINE, FRAME = 160, 12, 17, 5
_PAPER, _INK, _GREY, _EDGE = "#ffffff", "#222222", "#c8c8c8", "#e6eaf0"
#: Kind of a tile -> colour of its frame. The colours are Okabe and Ito's, which colour-blind people can tell
#: apart; captions repeat the kind in words.
COLOURS = {"query": "#000000", "same": "#0072b2", "other": "#d55e00", "plain": "#9a9a9a"}
_WORDS = {"query": "the query", "same": "same class", "other": "other class", "plain": "class not known"}
#: A sheet with a header is at least as wide as this number of tiles.
_HEADER_TILES = 3


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        source, row: place of its file; without a source the tile is grey.
        captions: texts under it, each wrapped into as many lines as it needs.
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
    head: Sequence[str] = (),
) -> int:
    """Draw tiles in rows and write a PNG, SVG or PDF by the ending, atomically.

    A picture that cannot be read becomes a grey tile with the reason.

    Args:
        tiles: at least one.
        out: the file.
        columns: tiles in a row.
        recipe: decides how samples of more than 8 bits and EXIF orientations are shown.
        command: that draws, as `engine.report.drawing.save_picture` takes it.
        head: header above all tiles, to which a legend of the frames is added; empty for none.

    Returns:
        The number of grey tiles.

    Raises:
        Refused: the folder is not writable.
    """
    from PIL import Image, ImageDraw

    captions = [text_drawing.lines_of(text_drawing.measure(), tile.captions, SIDE) for tile in tiles]
    columns = min(columns, len(tiles))
    rows = range(-(-len(tiles) // columns))
    step = SIDE + MARGIN
    width = max(columns, _HEADER_TILES if head else 1) * step + MARGIN
    heights = [step + LINE * max(map(len, captions[row * columns : (row + 1) * columns])) for row in rows]
    kinds = [kind for kind in COLOURS if any(tile.source and tile.kind == kind for tile in tiles)]
    kinds = kinds if head else []
    title = text_drawing.lines_of(text_drawing.measure(), head, width - 2 * MARGIN)
    top = LINE * (len(title) + len(kinds)) + (MARGIN if title else 0)
    sheet = Image.new("RGB", (width, top + sum(heights) + MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    text_drawing.write(draw, MARGIN, MARGIN - 2, title, _INK)
    for i, kind in enumerate(kinds):
        _legend(draw, MARGIN, MARGIN + LINE * (len(title) + i), kind)
    grey = 0
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        x, y = MARGIN + column * step, top + MARGIN + sum(heights[:row])
        picture, reason = _tile_picture(tile, recipe or Recipe(depth="scale"))
        grey += bool(reason)
        sheet.paste(picture, (x, y))
        if reason:
            _write_cut(draw, x + FRAME + 4, y + SIDE // 2 - LINE, ["no picture:", reason], SIDE - 16, _INK)
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=COLOURS[tile.kind], width=FRAME)
        text_drawing.write(draw, x, y + SIDE + 2, captions[i], _INK)
    save_picture(sheet, out, command)
    return grey


def pictures_of(bank: Path | str, model: str, *, root: Path | None = None) -> ImageSource:
    """Return the source of the files that a model's features in a bank were made from.

    Call it before any work that is kept, because it may refuse.

    Args:
        bank: directory or URL.
        model: slug or feature name.
        root: the images' folder, if it has moved.

    Raises:
        Refused: as `engine.embed.restore.images_of`.
    """
    store = Bank.open(bank)
    return images_of(store, store.features(model).name, root=root)


def search_sheet(source: ImageSource, result: SearchResult, out: Path, *, image: Path | None = None) -> int:
    """Draw a query and its neighbours, and return the number of pictures that could not be read.

    Args:
        source: the bank's images, as `pictures_of` returns them.
        result: of the search.
        out: PNG, SVG or PDF by its ending.
        image: the query's file, if it is not an image of the bank.
    """
    report, copies = result.report, result.query.get("in_bank", [])
    query_row = copies[0] if copies else result.query
    label = str(query_row.get("label", ""))
    if result.row is not None:
        name, query = str(result.query["image_id"]), Tile(source, result.row, ())
    else:
        file = Path(str(image))
        name, query = file.name, Tile(one_file(file, source.limits), 0, ())
    in_bank = [_class(label), _split(query_row)] if copies or result.row is not None else []
    copy_of = [f"row {query_row['row']}: {query_row['image_id']}"] if copies else []
    tiles = [replace(query, captions=("query", *in_bank, name, *copy_of), kind="query")]
    for neighbour in result.found:
        kind = _agreement(label, neighbour.label)
        captions = (
            f"{neighbour.rank}: {report['distance']} {neighbour.distance:.4g}",
            _class(neighbour.label, kind),
            _split({"split": neighbour.split}),
            neighbour.image_id,
        )
        tiles.append(Tile(source, neighbour.row, captions, kind))
    head = (
        f"The {len(result.found)} nearest of {report['images']:,} images by {report['distance']} distance "
        f"of features of {report['model']}",
        "Under each picture: rank and distance, class, split, image id",
    )
    return contact_sheet(tiles, out, head=head)


def audit_sheet(
    source: ImageSource, image_ids: Sequence[str], audit: Audit, out: Path, *, pairs: int = 24
) -> int:
    """Draw the most similar pairs of an audit, and return the number of pictures that could not be read.

    Args:
        source: the bank's images, as `pictures_of` returns them.
        image_ids: of each row of the bank.
        audit: with the pairs.
        out: PNG, SVG or PDF by its ending.
        pairs: number of pairs that are drawn, two tiles each.
    """
    tiles = []
    similar = audit.pairs
    drawn_pairs = zip(
        similar.first[:pairs].tolist(),
        similar.second[:pairs].tolist(),
        similar.similarity[:pairs],
        strict=True,
    )
    for number, (first, second, similarity) in enumerate(drawn_pairs, start=1):
        kind = _agreement(audit.value("label", first), audit.value("label", second))
        splits = {audit.value("split", row) for row in (first, second)}
        across = " (pair across splits)" if len(splits - {""}) == 2 else ""
        for row in (first, second):
            captions = (
                f"pair {number}: cosine {similarity:.6f}",
                _class(audit.value("label", row), kind),
                _split({"split": audit.value("split", row)}) + across,
                image_ids[row],
            )
            tiles.append(Tile(source, row, captions, kind))
    report = audit.report
    head = (
        f"The {len(tiles) // 2} most similar of {report['pairs']:,} pairs with a cosine similarity of at "
        f"least {report['threshold']:g}, by features of {report['model']} ({report['images']:,} images)",
        "Two pictures a pair, side by side; under each: similarity, class, split, image id",
    )
    if tiles:
        return contact_sheet(tiles, out, command="bank audit", head=head)
    contact_sheet([Tile(None, 0, ("no pairs",))], out, columns=1, command="bank audit", head=head[:1])
    return 0


def _class(label: str, kind: str = "plain") -> str:
    marked = f" ({kind})" if kind in ("same", "other") else ""
    return f"class {label}{marked}" if label else "no class"


def _split(row: Mapping[str, Any]) -> str:
    return f"split {row['split']}" if row.get("split") else "no split"


def _legend(draw: "ImageDraw.ImageDraw", x: int, y: int, kind: str) -> None:
    """Draw a frame's colour and its meaning."""
    draw.rectangle((x, y, x + 11, y + 11), outline=COLOURS[kind], width=3)
    text_drawing.write(draw, x + 18, y - 2, [_WORDS[kind]], _INK)


def _agreement(first_label: str, second_label: str) -> str:
    """Return the kind of a frame: whether two labels agree, if both are known."""
    if not (first_label and second_label):
        return "plain"
    return "same" if first_label == second_label else "other"


def _tile_picture(tile: Tile, recipe: Recipe) -> tuple["Image", str]:
    """Return the uncropped picture, fitted into a square, and the reason if it is grey instead."""
    from PIL import Image

    canvas = Image.new("RGB", (SIDE, SIDE), _EDGE)
    try:
        if tile.source is None:
            raise BadImage("missing", "no file")
        data = tile.source.read(tile.row)
        header = sniff(data, recipe, tile.source.limits)
        image = decoded_picture(data, header, recipe).convert("RGB")
    except BadImage as error:
        canvas.paste(_GREY, (0, 0, SIDE, SIDE))
        return canvas, error.code
    room = SIDE - 2 * FRAME
    scale = room / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # The pixels of small pictures stay visible.
    filter = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    image = image.resize(size, filter, reducing_gap=3.0)
    canvas.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return canvas, ""


def shortened(text: str, room: float, length: Callable[[str], float]) -> str:
    """Return the text, or as much of its beginning as fits with an ellipsis; at least the ellipsis.

    Args:
        text: to cut.
        room: length that is available.
        length: function from a text to its length, in the same unit; must not decrease as the text grows.
    """
    if length(text) <= room:
        return text
    fitting, too_many = 0, len(text)
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if length(text[:middle] + "…") <= room:
            fitting = middle
        else:
            too_many = middle
    return text[:fitting] + "…"


def _write_cut(
    draw: "ImageDraw.ImageDraw", x: int, y: int, lines: Sequence[str], room: int, colour: str
) -> None:
    """Draw lines below each other, each cut to `room` pixels."""
    font = text_drawing.font()
    for i, line in enumerate(lines):
        text = shortened(
            text_drawing.printable(line[: room + 1]), room, lambda part: draw.textlength(part, font)
        )
        draw.text((x, y + i * LINE), text, fill=colour, font=font)
