"""Random resized crops of 224 for training: embank's decoders compared with ImageFolder in a DataLoader.

The baseline is the usual way: torchvision's `ImageFolder`, `RandomResizedCrop` and `RandomHorizontalFlip` on
Pillow images, in worker processes. All contenders alternate in one process; ratios are taken round by round.

    python -m benchmarks.speed.crops                     # generated images
    python -m benchmarks.speed.crops --data FOLDER       # a folder of a sub-folder for every class
"""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.images import FUNDUS, PHOTO, XRAY, ImageClass, write_images
from benchmarks.speed.common import finish, interleaved, machine, markdown_table, parser, rate, ratio, say
from engine.decode import (
    ImageSource,
    RandomCrops,
    TrainingBatch,
    TrainingDecoder,
    available_decoders,
    make_training_decoder,
)
from engine.recipes import Recipe
from engine.runtime import usable_cores

BASELINE = "ImageFolder in a DataLoader"
#: Target gain over the baseline of the decoder that `auto` takes on the CPU.
TARGET_GAINS = {"turbo": 1.3}
#: Generated classes: kind, and number of files.
CLASSES: tuple[tuple[ImageClass, int], ...] = ((XRAY, 192), (PHOTO, 192), (FUNDUS, 24))


def run(
    *,
    data: Path | None = None,
    classes: Sequence[tuple[ImageClass, int]] = CLASSES,
    rounds: int = 5,
    epochs: int = 4,
    device: str = "cpu",
    batch_size: int = 32,
    threads: int | None = None,
    workers: int = 2,
    decoders: Sequence[str] = ("turbo", "dali", "reference"),
    most: int = 256,
) -> dict[str, Any]:
    """Measure every decoder on every set of images, with new crops in every round.

    Args:
        data: folder whose sub-folders of images are the classes of one set; None generates `classes`.
        classes: kinds of images, a set each, and number of files of each.
        rounds: timed, of all contenders.
        epochs: over a set in one round: rounds of less than a second would measure a machine's short bursts.
        device: of the pixels; the baseline leaves them in host memory.
        batch_size: of all contenders.
        threads: of each decoder; None takes one per core.
        workers: of the DataLoader.
        decoders: names; those that are not installed are listed under `skipped`.
        most: files of `data`, at most, evenly from all of it.

    Returns:
        `{machine, ..., skipped, sets: {name: {images, megapixels, kilobytes, failed, contenders}}}` with, for
        each contender, `rate` (images per second) and `gain` (its ratio to the baseline's) as {n, median,
        min, max}, and `seconds` of each round.
    """
    facts = machine()
    threads = threads or usable_cores()
    available = available_decoders()
    skipped = {name: available[name] for name in decoders if available[name]}
    options = {"device": device, "threads": threads, "batch_size": batch_size}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        opened = {
            name: stack.enter_context(make_training_decoder(name, Recipe(), RandomCrops(0), **options))  # type: ignore[arg-type]
            for name in decoders
            if name not in skipped
        }
        for name, images in _sets(data, classes, Path(folder)):
            say(f"{name}: {len(images.samples)} files")
            results[name] = _measure(images, opened, rounds, epochs, batch_size, workers, most)
    return {
        "machine": facts,
        "device": device,
        "threads": threads,
        "loader_workers": workers,
        "batch_size": batch_size,
        "rounds": rounds,
        "epochs": epochs,
        "target_gains": TARGET_GAINS,
        "skipped": skipped,
        "sets": results,
    }


def _sets(
    data: Path | None, classes: Sequence[tuple[ImageClass, int]], folder: Path
) -> Iterator[tuple[str, ImageFolder]]:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(Recipe().side, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    if data is not None:
        yield data.name, ImageFolder(str(data), transform)
        return
    for kind, count in classes:
        root = folder / "sets" / kind.name
        write_images(root, kind, count)
        yield kind.name, ImageFolder(str(root), transform)


def _measure(
    images: ImageFolder,
    decoders: dict[str, TrainingDecoder],
    rounds: int,
    epochs: int,
    batch_size: int,
    workers: int,
    most: int,
) -> dict[str, Any]:
    count = min(most, len(images.samples))
    chosen = np.linspace(0, len(images.samples) - 1, count).round().astype(int).tolist()
    paths = [Path(images.samples[i][0]) for i in chosen]
    source = ImageSource(Path(), [str(path) for path in paths], allow_outside=True)
    subset: Dataset[Any] = Subset(images, chosen)
    loader: DataLoader[Any] = DataLoader(
        subset, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    contenders: dict[str, Callable[[], None]] = {BASELINE: lambda: _exhaust(loader, epochs)}
    failed: dict[str, int] = {}
    for name, decoder in decoders.items():
        contenders[name] = _Epochs(name, decoder, source, batch_size, epochs, failed)
    seconds = interleaved(contenders, rounds=rounds)
    sizes = [Image.open(path).size for path in paths]
    return {
        "images": count,
        "megapixels": float(np.mean([w * h / 1e6 for w, h in sizes])),
        "kilobytes": float(np.mean([path.stat().st_size / 1e3 for path in paths])),
        "failed": failed,
        "contenders": {
            name: {
                "rate": rate(count * epochs, seconds[name]),
                "gain": ratio(seconds[BASELINE], seconds[name]),
                "seconds": seconds[name],
            }
            for name in contenders
        },
    }


class _Epochs:
    """Decoding of some epochs a call, in new orders and with new crops; counts failed rows in `failed`."""

    def __init__(
        self,
        name: str,
        decoder: TrainingDecoder,
        source: ImageSource,
        size: int,
        epochs: int,
        failed: dict[str, int],
    ) -> None:
        self._name, self._decoder, self._source = name, decoder, source
        self._size, self._epochs, self._failed = size, epochs, failed
        self._numbers = itertools.count()

    def __call__(self) -> None:
        batches = (
            batch for epoch in itertools.islice(self._numbers, self._epochs) for batch in self._epoch(epoch)
        )
        decoded = self._decoder.stream(self._source, batches)
        self._failed[self._name] = sum(len(batch.failures) for batch in decoded)

    def _epoch(self, epoch: int) -> Iterator[TrainingBatch]:
        order = torch.randperm(len(self._source), generator=torch.Generator().manual_seed(epoch)).tolist()
        for i in range(0, len(order), self._size):
            yield TrainingBatch(order[i : i + self._size], epoch)


def _exhaust(loader: Iterable[Any], epochs: int) -> None:
    for _ in range(epochs):
        for _ in loader:
            pass


def table(result: dict[str, Any]) -> str:
    """Format the result as Markdown, with a row for each set and contender."""
    rows: list[list[Any]] = []
    for name, measured in result["sets"].items():
        kind = f"{name} ({measured['megapixels']:.2f} Mpx, {measured['kilobytes']:.0f} kB)"
        for contender, numbers in measured["contenders"].items():
            gain = "1" if contender == BASELINE else numbers["gain"]
            rows.append([kind, contender, numbers["rate"], gain])
    note = (
        f"Random crops to 224 x 224, {result['threads']} threads, DataLoader with "
        f"{result['loader_workers']} workers; medians (ranges) of {result['rounds']} rounds of "
        f"{result['epochs']} epochs taken in turns. "
        f"Target gains: {result['target_gains']}. Skipped: {', '.join(result['skipped']) or 'nothing'}.\n"
    )
    return markdown_table(["images", "contender", "img/s", "gain"], rows) + "\n" + note


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--data", type=Path, help="folder of a sub-folder for every class")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--epochs", type=int, default=4, help="of a round")
    options.add_argument("--device", default="cpu")
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--threads", type=int)
    options.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    options.add_argument("--decoder", action="append", help="repeat; default all")
    options.add_argument("--most", type=int, default=256, help="files of the folder")
    args = options.parse_args(arguments)
    names = {"decoders": args.decoder} if args.decoder else {}
    result = run(
        data=args.data,
        rounds=args.rounds,
        epochs=args.epochs,
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
