"""Contact sheets: pictures side by side with captions, drawn with Pillow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.decode.formats.sniff import sniff
from engine.decode.pillow import picture
from engine.decode.source import ImageSource
from engine.embed.restore import images_of, one_file
from engine.errors import BadImage
from engine.evals.neighbours.audit import Audit
from engine.evals.neighbours.search import SearchResult
from engine.recipes import Recipe
from engine.report import lettering
from engine.report.drawing import save_picture
from stores.bank.reader import Bank

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.Image import Image

SIDE, MARGIN, LINE, FRAME = 160, 12, 17, 5
_PAPER, _INK, _GREY, _EDGE = "#ffffff", "#222222", "#c8c8c8", "#e6eaf0"
#: Frames of tiles: the query, one that agrees with it, one that does not, one that cannot be judged. The
#: colours are Okabe and Ito's, which people tell apart who see no red or no green; captions say it in words.
COLOURS = {"query": "#000000", "same": "#0072b2", "other": "#d55e00", "plain": "#9a9a9a"}
_WORDS = {"query": "the query", "same": "same class", "other": "other class", "plain": "class not known"}
#: Tiles whose width a head has at least.
_LEAST = 3


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        source, row: where its file is; `None` source draws a grey tile.
        captions: texts under it, each broken into as many lines as it needs.
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
    """Draw tiles in rows and write a PNG, SVG or PDF by the ending, whole or not at all.

    A picture that cannot be read becomes a grey tile that names the reason.

    Args:
        tiles: at least one.
        columns: tiles a row.
        recipe: says how deep samples and EXIF turns are shown.
        command: that draws, as `engine.report.drawing.save_picture` takes it.
        head: what stands above all tiles; with it stands a legend of the frames.

    Returns:
        How many tiles are grey.

    Raises:
        Refused: the folder is not writable.
    """
    from PIL import Image, ImageDraw

    captions = [lettering.lines_of(lettering.measure(), tile.captions, SIDE) for tile in tiles]
    columns = min(columns, len(tiles))
    rows = range(-(-len(tiles) // columns))
    step = SIDE + MARGIN
    width = max(columns, _LEAST if head else 1) * step + MARGIN
    heights = [step + LINE * max(map(len, captions[row * columns : (row + 1) * columns])) for row in rows]
    kinds = [kind for kind in COLOURS if any(tile.source and tile.kind == kind for tile in tiles)]
    kinds = kinds if head else []
    title = lettering.lines_of(lettering.measure(), head, width - 2 * MARGIN)
    top = LINE * (len(title) + len(kinds)) + (MARGIN if title else 0)
    sheet = Image.new("RGB", (width, top + sum(heights) + MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    lettering.write(draw, MARGIN, MARGIN - 2, title, _INK)
    for at, kind in enumerate(kinds):
        _legend(draw, MARGIN, MARGIN + LINE * (len(title) + at), kind)
    grey = 0
    for at, tile in enumerate(tiles):
        row, column = divmod(at, columns)
        x, y = MARGIN + column * step, top + MARGIN + sum(heights[:row])
        picture, reason = _picture(tile, recipe or Recipe(depth="scale"))
        grey += bool(reason)
        sheet.paste(picture, (x, y))
        if reason:
            _text(draw, x + FRAME + 4, y + SIDE // 2 - LINE, ["no picture:", reason], SIDE - 16, _INK)
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=COLOURS[tile.kind], width=FRAME)
        lettering.write(draw, x, y + SIDE + 2, captions[at], _INK)
    save_picture(sheet, out, command)
    return grey


def pictures_of(bank: Path | str, model: str, *, root: Path | None = None) -> ImageSource:
    """Find the files that a model's features in a bank were made from; call it before work that is kept.

    Args:
        model: slug or feature name.
        root: the images' folder, where it has moved.

    Raises:
        Refused: as `engine.embed.restore.images_of`.
    """
    store = Bank.open(bank)
    return images_of(store, store.features(model).name, root=root)


def search_sheet(source: ImageSource, result: SearchResult, out: Path, *, image: Path | None = None) -> int:
    """Draw a query and its neighbours; returns how many pictures could not be read.

    Args:
        source: the bank's images, of `pictures_of`.
        image: the query's file, where it was not an image of the bank.
    """
    report, same = result.report, result.query.get("in_bank", [])
    of = same[0] if same else result.query
    label = str(of.get("label", ""))
    if result.row is not None:
        name, query = str(result.query["image_id"]), Tile(source, result.row, ())
    else:
        file = Path(str(image))
        name, query = file.name, Tile(one_file(file, source.limits), 0, ())
    known = [_class(label), _split(of)] if same or result.row is not None else []
    itself = [f"row {of['row']}: {of['image_id']}"] if same else []
    tiles = [replace(query, captions=("query", *known, name, *itself), kind="query")]
    for each in result.found:
        kind = _agreement(label, each.label)
        captions = (
            f"{each.rank}: {report['distance']} {each.distance:.4g}",
            _class(each.label, kind),
            _split({"split": each.split}),
            each.image_id,
        )
        tiles.append(Tile(source, each.row, captions, kind))
    head = (
        f"The {len(result.found)} nearest of {report['images']:,} images by {report['distance']} distance "
        f"of features of {report['model']}",
        "Under each picture: rank and distance, class, split, image id",
    )
    return contact_sheet(tiles, out, head=head)


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
    rows = zip(
        near.first[:pairs].tolist(), near.second[:pairs].tolist(), near.similarity[:pairs], strict=True
    )
    for number, (a, b, similarity) in enumerate(rows, start=1):
        kind = _agreement(found.value("label", a), found.value("label", b))
        splits = {found.value("split", row) for row in (a, b)}
        across = " (pair across splits)" if len(splits - {""}) == 2 else ""
        for row in (a, b):
            captions = (
                f"pair {number}: cosine {similarity:.6f}",
                _class(found.value("label", row), kind),
                _split({"split": found.value("split", row)}) + across,
                image_ids[row],
            )
            tiles.append(Tile(source, row, captions, kind))
    report = found.report
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


def _split(of: Mapping[str, Any]) -> str:
    return f"split {of['split']}" if of.get("split") else "no split"


def _legend(draw: "ImageDraw.ImageDraw", x: int, y: int, kind: str) -> None:
    """A frame's colour and what it stands for."""
    draw.rectangle((x, y, x + 11, y + 11), outline=COLOURS[kind], width=3)
    lettering.write(draw, x + 18, y - 2, [_WORDS[kind]], _INK)


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
