"""Draw the pictures of the architecture page: `python docs/draw_pictures.py` writes them into docs/pictures.

The rooms and their rows come from the import rules in `pyproject.toml`, which a test holds against the code:
the picture shows what is enforced.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
INK, PAPER, ROOM, STORE, LINE = "#1d2733", "#ffffff", "#dbe9f6", "#fbe6cf", "#5b6b7c"
WIDTH, ROW, GAP, PAD = 860, 48, 10, 10

#: What each room is for; a room without a line shows its name alone.
WHAT = {
    "embank": "public names",
    "quickstart": "first run",
    "doctor": "checks the machine",
    "report": "tables, figures",
    "study": "plans of many runs",
    "commands": "one file a command group; the only room with typer",
    "evals": "few-shot, k-NN, search, audit, probe, invariance, saliency",
    "embed": "plan, work, certify, repair, restore",
    "decode": "files to pixels",
    "models": "catalogue, weights, encoder",
    "datasets": "one file a data set",
    "kernels": "arrays in, arrays out",
    "recipes": "preprocessing as data",
    "normalise": "pixels to input",
    "versions": "of packages that matter",
    "dicom_file": "headers",
    "malloc": "memory given back",
    "cluster": "worker processes",
    "faults": "faults of the machine",
    "errors": "value, rule, remedy",
    "pipeline": "stages and queues",
    "runtime": "device, precision",
    "executors": "serial, processes, dask",
    "manifest": "the list of images",
    "backends": "disk and buckets",
    "bank": "commit, seal, read",
    "maintenance": "verify, relabel, remove",
    "members": "images in archives",
}


def rooms_of_the_engine() -> list[list[str]]:
    """Return the rows of the engine, top first: each may import from those below."""
    settings = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (rule for rule in settings["contracts"] if rule["name"] == "Rows of the engine")
    return [
        [name for name in re.split(r"[|: ]+", row) if name and "(" not in name] for row in contract["layers"]
    ]


def box(x: float, y: float, width: float, height: float, title: str, note: str, fill: str) -> str:
    middle = x + width / 2
    lines = wrapped(note, int(width / 6.2))
    top = y + height / 2 + 5 - 7.5 * len(lines)
    text = f'<text x="{middle:.0f}" y="{top:.0f}" class="t">{escape(title)}</text>'
    for number, line in enumerate(lines, 1):
        text += f'<text x="{middle:.0f}" y="{top + 15 * number:.0f}" class="n">{escape(line)}</text>'
    size = f'width="{width:.0f}" height="{height:.0f}"'
    shape = f'<rect x="{x:.0f}" y="{y:.0f}" {size} rx="6" fill="{fill}"/>'
    return shape + text


def wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def row(names: Iterable[str], y: float, left: float, width: float, fill: str, height: float = ROW) -> str:
    names = list(names)
    box_width = (width - GAP * (len(names) - 1)) / len(names)
    return "".join(
        box(left + number * (box_width + GAP), y, box_width, height, name, WHAT.get(name, ""), fill)
        for number, name in enumerate(names)
    )


def picture(body: str, width: float, height: float, title: str) -> str:
    style = (
        f"text{{font-family:sans-serif;fill:{INK};text-anchor:middle}}.t{{font-size:14px;font-weight:bold}}"
        f".n{{font-size:11.5px}}.l{{font-size:12px;fill:{LINE}}}rect{{stroke:{LINE};stroke-width:1}}"
        f"path{{stroke:{LINE};stroke-width:1.6;fill:none;marker-end:url(#a)}}"
    )
    arrow = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        f'<polygon points="0,0 8,4 0,8" fill="{LINE}"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><title>{escape(title)}</title><style>{style}</style>{arrow}'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="{PAPER}" style="stroke:none"/>{body}</svg>\n'
    ).replace("><", ">\n<")


def house() -> str:
    """Draw the rooms: `cli.py` on top, the rows of the engine, the stores below."""
    rows = rooms_of_the_engine()
    left, inner = 16, WIDTH - 32
    body = row(["cli.py"], 16, left, inner * 0.62, ROOM, 40) + row(
        ["benchmarks"], 16, left + inner * 0.62 + GAP, inner * 0.38 - GAP, ROOM, 40
    )
    y = 16 + 40 + GAP
    height = len(rows) * (ROW + GAP) + 30
    body += f'<rect x="{left}" y="{y}" width="{inner}" height="{height}" rx="8" fill="#f4f8fc"/>'
    body += f'<text x="{left + 32}" y="{y + 19}" class="l">engine</text>'
    for number, names in enumerate(rows):
        body += row(names, y + 26 + number * (ROW + GAP), left + PAD, inner - 2 * PAD, ROOM)
    y += height + GAP
    body += f'<rect x="{left}" y="{y}" width="{inner}" height="{ROW + 40}" rx="8" fill="#fff8ef"/>'
    body += f'<text x="{left + 118}" y="{y + 19}" class="l">stores (know nothing of torch)</text>'
    rooms = sorted(
        (path.parent.name for path in (HERE.parent / "stores").glob("*/__init__.py")),
        key=["manifest", "maintenance", "bank", "members", "backends"].index,
    )
    body += row(rooms, y + 28, left + PAD, inner - 2 * PAD, STORE)
    return picture(body, WIDTH, y + ROW + 56, "The rooms of embank; each may import from the rows below it")


#: Rooms that an image passes, what happens there, and what goes on to the next.
WAY = (
    ("manifest", "row i: path, label, patient", "row numbers"),
    ("plan", "chunks not yet done", "rows of a chunk"),
    ("source", "opens the file, takes its SHA-256", "bytes"),
    ("decode", "recipe on the GPU or CPU", "uint8 [B, 224, 224, 3]"),
    ("encode", "frozen backbone, bf16 or fp32", "float32 [B, d]"),
    ("commit", "write, flush, read back, mark", "a chunk and its marker"),
    ("seal", "SHA-256 of every file", "the bank"),
)
AFTER = (
    ("features", "mapped, read only", "[N, d]"),
    ("evaluation", "kernels on whole studies", "numbers"),
    ("record", "one document a run", "JSON"),
    ("report", "tables and figures", ""),
)


def way() -> str:
    """Draw the way of an image into the bank, and of its features out of it."""
    body, wide, high = "", 174, 62
    places: list[tuple[float, float]] = []
    steps = [*WAY, *AFTER]
    columns = 4
    for number in range(len(steps)):
        line, column = divmod(number, columns)
        column = column if line % 2 == 0 else columns - 1 - column
        places.append((16 + column * (wide + 44), 16 + line * (high + 58)))
    for number, ((name, note, gives), (x, y)) in enumerate(zip(steps, places, strict=True)):
        body += box(x, y, wide, high, name, note, ROOM if number < len(WAY) else STORE)
        if number + 1 == len(steps):
            break
        nx, ny = places[number + 1]
        if ny == y:
            start, end = (x + wide, nx - 2) if nx > x else (x, nx + wide + 2)
            body += f'<path d="M{start:.0f} {y + high / 2:.0f} H{end:.0f}"/>'
            middle = (start + end) / 2
            body += f'<text x="{middle:.0f}" y="{y + high + 16:.0f}" class="l">{escape(gives)}</text>'
        else:
            body += f'<path d="M{x + wide / 2:.0f} {y + high:.0f} V{ny - 2:.0f}"/>'
            side = -1 if x > 100 else 1
            at = f'x="{x + wide / 2 + side * 78:.0f}" y="{(y + high + ny) / 2 + 4:.0f}"'
            body += f'<text {at} class="l">{escape(gives)}</text>'
    return picture(body, 16 + columns * (wide + 44) - 28, places[-1][1] + high + 28, "The way of an image")


PICTURES = {"rooms.svg": house, "way.svg": way}


def main() -> None:
    """Write every picture."""
    for name, draw in PICTURES.items():
        (HERE / "pictures" / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
