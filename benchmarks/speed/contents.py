"""What it costs to keep the SHA-256 of every image file that is read: decoding with it against without.

Both contenders decode the same files by `turbo`, in turns, in one process; ratios are taken round by round.

    python -m benchmarks.speed.contents [--rounds 9]
"""

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.images import ImageClass, write_images
from benchmarks.speed.common import (
    finish,
    interleaved,
    machine,
    markdown_table,
    parser,
    rate,
    ratio,
    say,
)
from benchmarks.speed.decode import CLASSES
from engine.decode import ImageSource, Limits, make_decoder
from engine.decode.contents import Contents
from engine.recipes import Recipe
from engine.runtime import usable_cores
from stores.bank.contents import unknown

#: The largest share of the time of decoding that it may take.
TARGET = 0.03


def run(
    *, classes: Sequence[tuple[ImageClass, int]] = CLASSES, rounds: int = 9, threads: int | None = None
) -> dict[str, Any]:
    """Measure every class of images.

    Args:
        rounds: timed passes over all files of a class.
        threads: of the decoder; None takes one a core.

    Returns:
        `{machine, rounds, target, classes: {name: {images, kilobytes, rate, cost}}}`: `rate` in images a
        second, with contents kept, and `cost`, the time with them over the time without, as spreads.
    """
    results: dict[str, Any] = {}
    threads = threads or usable_cores()
    for kind, count in classes:
        say(f"{kind.name}: {count} files")
        with tempfile.TemporaryDirectory() as folder:
            results[kind.name] = _measure(write_images(Path(folder), kind, count), rounds, threads)
    return {"machine": machine(), "rounds": rounds, "target": 1 + TARGET, "classes": results}


def _measure(paths: Sequence[Path], rounds: int, threads: int) -> dict[str, Any]:
    uris = [str(path) for path in paths]
    plain = ImageSource(Path(), uris, limits=Limits(), allow_outside=True)
    keeping = ImageSource(
        Path(), uris, limits=Limits(), allow_outside=True, contents=Contents(unknown(len(paths)))
    )
    with closing(make_decoder("turbo", Recipe(), device="cpu", threads=threads, batch_size=32)) as decoder:

        def decode(source: ImageSource) -> None:
            for _ in decoder.stream(
                source, [range(i, min(i + 32, len(paths))) for i in range(0, len(paths), 32)]
            ):
                pass

        seconds = interleaved(
            {"without": lambda: decode(plain), "with": lambda: decode(keeping)}, rounds=rounds
        )
    return {
        "images": len(paths),
        "kilobytes": sum(path.stat().st_size for path in paths) / len(paths) / 1e3,
        "rate": rate(len(paths), seconds["with"]),
        "cost": ratio(seconds["with"], seconds["without"]),
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    rows = [
        [name, one["images"], f"{one['kilobytes']:.0f}", str(one["rate"]), str(one["cost"])]
        for name, one in result["classes"].items()
    ]
    return markdown_table(["images", "files", "kB", "images/s with contents", "time with / without"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options_of = parser(__doc__.partition("\n")[0])
    options_of.add_argument("--rounds", type=int, default=9, help="timed passes over all files of a class")
    options = options_of.parse_args(arguments)
    result = run(rounds=options.rounds)
    finish(result, table(result), options)


if __name__ == "__main__":
    main()
