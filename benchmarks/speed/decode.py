"""Image files to uint8 squares of 224: embank's decoders compared with Pillow in a DataLoader, the usual way.

All contenders alternate in one process, so that a busy machine slows them alike; ratios are taken round by
round. Before the measurement, worker processes have been started and every contender has decoded all files
once.

    python -m benchmarks.speed.decode                     # generated images
    python -m benchmarks.speed.decode --data FOLDER       # each sub-folder of images is one class
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.images import FUNDUS, LARGE_XRAY, PNG, XRAY, ImageClass, write_images
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
from engine.decode import Decoder, ImageSource, Limits, available_decoders, make_decoder
from engine.decode.parity import TOLERANCE, pixel_parity
from engine.recipes import Recipe
from engine.runtime import usable_cores

BASELINE = "Pillow in a DataLoader"
#: Target gains over the baseline.
TARGET_GAINS = {"turbo": 1.8, "turbo-dct": 7.0}

#: Generated classes: kind, and number of files.
CLASSES: tuple[tuple[ImageClass, int], ...] = (
    (XRAY, 256),
    (PNG, 96),
    (replace(FUNDUS, name="fundus-3300", width=3300, height=2500), 16),
    (LARGE_XRAY, 24),
)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"}


class Pictures(Dataset[torch.Tensor]):
    """Dataset of files through Pillow and torchvision's transforms: uint8 [S, S, 3]."""

    def __init__(self, paths: Sequence[Path], recipe: Recipe) -> None:
        self.paths = list(paths)
        self.transform = v2.Compose(
            [v2.Resize(recipe.size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(recipe.side)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            return torch.from_numpy(np.array(self.transform(image.convert("RGB"))))


def run(
    *,
    data: Path | None = None,
    classes: Sequence[tuple[ImageClass, int]] = CLASSES,
    rounds: int = 5,
    device: str = "cpu",
    batch_size: int = 32,
    threads: int | None = None,
    workers: int = 2,
    decoders: Sequence[str] = ("turbo", "turbo-dct", "dali", "reference"),
    most: int = 256,
) -> dict[str, Any]:
    """Measure every decoder on every class of images.

    Args:
        data: folder whose sub-folders of images are the classes; None generates `classes`.
        classes: kinds of images, and number of files of each.
        rounds: timed passes over all files of a class.
        device: of the pixels; the baseline leaves them in host memory.
        batch_size: of all contenders.
        threads: of each decoder; None takes one per core.
        workers: of the DataLoader.
        decoders: names; those that are not installed are listed under `skipped`.
        most: files of each class of `data`, at most.

    Returns:
        `{machine, ..., skipped, classes: {name: {images, megapixels, kilobytes, contenders}}}` with, for each
        contender, `rate` (images per second) and `gain` (its ratio to the baseline's) as {n, median, min,
        max}, `seconds` of each round, and `mean_difference` and `worst_image` to Pillow in levels of 255.
    """
    facts = machine()
    threads = threads or usable_cores()
    available = available_decoders()
    skipped = {name: why for name in decoders if (why := available[name.removesuffix("-dct")])}
    names = [name for name in decoders if name not in skipped]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in _files(data, classes, Path(folder), most):
            say(f"{name}: {len(paths)} files")
            with contextlib.ExitStack() as stack:
                opened = {n: stack.enter_context(_decoder(n, device, threads, batch_size)) for n in names}
                results[name] = _measure(paths, opened, rounds, batch_size, workers)
    return {
        "machine": facts,
        "device": device,
        "threads": threads,
        "loader_workers": workers,
        "batch_size": batch_size,
        "rounds": rounds,
        "target_gains": TARGET_GAINS,
        "target_difference": TOLERANCE,
        "skipped": skipped,
        "classes": results,
    }


def _decoder(name: str, device: str, threads: int, batch_size: int) -> Decoder:
    return make_decoder(
        name.removesuffix("-dct"),
        Recipe(),
        device=device,
        threads=threads,
        batch_size=batch_size,
        dct=name.endswith("-dct"),
    )


def _files(
    data: Path | None, classes: Sequence[tuple[ImageClass, int]], folder: Path, most: int
) -> Iterable[tuple[str, list[Path]]]:
    if data is None:
        for kind, count in classes:
            yield kind.name, write_images(folder, kind, count)
        return
    for sub in sorted(path for path in data.iterdir() if path.is_dir()):
        paths = sorted(path for path in sub.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if paths:
            yield sub.name, paths[:most]


def _measure(
    paths: Sequence[Path], decoders: dict[str, Decoder], rounds: int, batch_size: int, workers: int
) -> dict[str, Any]:
    recipe = Recipe()
    source = ImageSource(Path(), [str(path) for path in paths], limits=Limits(), allow_outside=True)
    batches = [range(i, min(i + batch_size, len(paths))) for i in range(0, len(paths), batch_size)]
    loader: DataLoader[Any] = DataLoader(
        Pictures(paths, recipe), batch_size, num_workers=workers, persistent_workers=workers > 0
    )
    contenders: dict[str, Callable[[], None]] = {BASELINE: lambda: _exhaust(loader)}
    for name, decoder in decoders.items():
        contenders[name] = lambda decoder=decoder: _exhaust(decoder.stream(source, batches))  # type: ignore[misc]
    seconds = interleaved(contenders, rounds=rounds)
    sizes = [Image.open(path).size for path in paths]
    measurements: dict[str, Any] = {}
    for name in contenders:
        measurements[name] = {
            "rate": rate(len(paths), seconds[name]),
            "gain": ratio(seconds[BASELINE], seconds[name]),
            "seconds": seconds[name],
        }
    for name, decoder in decoders.items():
        parity = pixel_parity(source, range(len(paths)), recipe, decoder, batch_size=batch_size)
        measurements[name] |= {
            "mean_difference": parity["mean"],
            "worst_image": parity["worst_image_mean"],
            "failed": parity["failed"] + parity["disagreed"],
        }
    return {
        "images": len(paths),
        "megapixels": float(np.mean([w * h / 1e6 for w, h in sizes])),
        "kilobytes": float(np.mean([path.stat().st_size / 1e3 for path in paths])),
        "contenders": measurements,
    }


def _exhaust(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass


def table(result: dict[str, Any]) -> str:
    """Format the result as Markdown, with a row for each class and contender."""
    columns = ["images", "contender", "img/s", "gain", "mean difference", "worst image"]
    rows: list[list[Any]] = []
    for name, measurements in result["classes"].items():
        kind = f"{name} ({measurements['megapixels']:.1f} Mpx, {measurements['kilobytes']:.0f} kB)"
        for contender, numbers in measurements["contenders"].items():
            differences = [numbers.get(key) for key in ("mean_difference", "worst_image")]
            rows.append(
                [
                    kind,
                    contender,
                    numbers["rate"],
                    "1" if contender == BASELINE else numbers["gain"],
                    *("" if d is None else f"{d:.4f}" for d in differences),
                ]
            )
    note = (
        f"To 224 x 224, {result['threads']} threads, DataLoader with {result['loader_workers']} workers; "
        f"medians (ranges) of {result['rounds']} rounds taken in turns; differences to Pillow in levels of "
        f"255, target {result['target_difference']}. Skipped: {', '.join(result['skipped']) or 'nothing'}.\n"
    )
    return markdown_table(columns, rows) + "\n" + note


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--data", type=Path, help="folder; each sub-folder of images is one class")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--device", default="cpu")
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--threads", type=int)
    options.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    options.add_argument("--decoder", action="append", help="repeat; default all")
    options.add_argument("--most", type=int, default=256, help="files of each sub-folder")
    args = options.parse_args(arguments)
    names = {"decoders": args.decoder} if args.decoder else {}
    result = run(
        data=args.data,
        rounds=args.rounds,
        device=args.device,
        batch_size=args.batch_size,
        threads=args.threads,
        workers=args.workers,
        most=args.most,
        **names,
    )
    finish(result, table(result), args)


if __name__ == "__main__":
    main()
