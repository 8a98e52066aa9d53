"""Embedding end to end, against embank's own decode-only and encode-only rates and the usual loop.

The loop is a DataLoader with Pillow and torchvision's transforms, an eager float32 model, append and np.save.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import loop
from benchmarks.images import PHOTO, manifest_of, write_images
from benchmarks.speed.common import (
    Spread,
    finish,
    interleaved,
    machine,
    markdown_table,
    parser,
    rate,
    ratio,
    say,
)
from engine.decode import make_decoder
from engine.decode.protocol import Decoder
from engine.embed.options import EmbedOptions, image_source
from engine.embed.run import embed
from engine.models import load, resolve
from engine.models.catalog.lookup import ModelSpec
from engine.recipes import RECIPES, Recipe
from engine.runtime import HostCopy, Runtime, fix_flags, synchronize
from stores.bank.layout import default_chunk_rows
from stores.bank.reader import Bank
from stores.manifest.manifest import Manifest

if TYPE_CHECKING:
    import torch

#: Share of the rate that perfect overlap would give, and gain over the loop, that are asked for.
TARGET_EFFICIENCY, TARGET_GAIN = 0.9, 1.7


def run(
    *,
    models: Sequence[str] = ("resnet18", "resnet50"),
    data: Path | None = None,
    images: int = 320,
    rounds: int = 3,
    device: str = "auto",
    precision: str = "auto",
    decoder: str = "auto",
    batch_size: int | None = None,
    workers: int = 2,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Measure, all contenders in turn in each round, after one untimed round.

    Every time is of a whole call: models built, decoders made, workers started, files written.

    Args:
        models: torchvision names, untrained.
        data: folder of images; None writes `images` JPEGs of 640 x 480.
        images: at most so many of the folder.
        rounds: timed.
        device, precision, decoder, batch_size: as `embank embed`.
        workers: of the DataLoader.
        recipe: for all models; default `imagenet-224`.

    Returns:
        `{machine, images, device, ..., models: {name: {rates, efficiency, gain, agreement}}}`, rates in
        images a second as {n, median, min, max}.
    """
    runtime = Runtime.resolve(device, precision)
    options = EmbedOptions(decoder=decoder, batch_size=batch_size)
    recipe = recipe or RECIPES["imagenet-224"]
    found: dict[str, Any] = {}
    facts = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = _manifest(folder, data, images)
        for model in models:
            case = Case(
                manifest, resolve(f"random/{model}", recipe=recipe), runtime, options, folder, workers
            )
            found[model] = _measure(case, rounds)
            say(f"{model}: {found[model]['rates']['embank']} img/s")
        return {
            "machine": facts,
            "images": len(manifest),
            "data": str(data or f"{PHOTO.width} x {PHOTO.height} JPEG, generated"),
            "device": runtime.device,
            "precision": runtime.precision,
            "threads": runtime.threads,
            "batch_size": options.batch_for(runtime, default_chunk_rows(len(manifest))),
            "loader_workers": workers,
            "rounds": rounds,
            "bound": "slower of decode and encode" if runtime.on_cuda else "1 / (1/decode + 1/encode)",
            "models": found,
        }


def _manifest(folder: Path, data: Path | None, images: int) -> Manifest:
    if data is None:
        return manifest_of(write_images(folder, PHOTO, images), folder)
    whole = Manifest.from_folder(data)
    return Manifest.from_frame(whole.frame.iloc[:images], whole.root)


@dataclass(frozen=True)
class Case:
    """One model on one set of images, and the contenders as methods."""

    manifest: Manifest
    spec: ModelSpec
    runtime: Runtime
    options: EmbedOptions
    folder: Path
    workers: int

    @property
    def batch_size(self) -> int:
        return self.options.batch_for(self.runtime, default_chunk_rows(len(self.manifest)))

    @property
    def batches(self) -> list[range]:
        rows = len(self.manifest)
        return [range(i, min(i + self.batch_size, rows)) for i in range(0, rows, self.batch_size)]

    @property
    def loop_file(self) -> Path:
        return self.folder / "loop.npy"

    def embank(self, bank: Path) -> None:
        embed(self.manifest, [self.spec], bank, runtime=self.runtime, options=self.options)

    @contextlib.contextmanager
    def decoder(self) -> Iterator[Decoder]:
        made = make_decoder(
            self.options.decoder,
            self.spec.recipe,
            device=self.runtime.device,
            threads=self.runtime.threads,
            batch_size=self.batch_size,
        )
        try:
            yield made
        finally:
            made.close()

    def decode_only(self) -> None:
        with self.decoder() as decoder:
            for _ in decoder.stream(image_source(self.manifest, self.options), self.batches):
                pass
            synchronize(self.runtime.device)

    def first_batch(self) -> "torch.Tensor":
        with self.decoder() as decoder:
            stream = decoder.stream(image_source(self.manifest, self.options), self.batches[:1])
            return next(iter(stream)).pixels.clone()

    def encode_only(self, pixels: "torch.Tensor") -> None:
        """Encode the first batch's pixels as often as there are batches."""
        fix_flags(self.runtime)
        encoder = load(self.spec, self.runtime)
        waiting: list[HostCopy] = []
        for rows in self.batches:
            batch = pixels if self.runtime.on_cuda else pixels[: len(rows)]
            waiting.append(HostCopy(encoder(batch)))
            if len(waiting) > 2:  # as many as the pipeline lets wait
                waiting.pop(0).wait()
        for copy in waiting:
            copy.wait()

    def loop(self) -> None:
        loop.embed_with_loop(
            [self.manifest.root / uri for uri in self.manifest.uris],
            self.spec.recipe,
            loop.untrained(self.spec.slug.partition("/")[2]),
            self.loop_file,
            device=self.runtime.device,
            batch_size=self.batch_size,
            workers=self.workers,
        )


def _measure(case: Case, rounds: int) -> dict[str, Any]:
    pixels = case.first_batch()
    banks = [Path(tempfile.mkdtemp(dir=case.folder)) / "bank" for _ in range(rounds + 1)]
    fresh = iter(banks)
    contenders: dict[str, Callable[[], None]] = {
        "embank": lambda: case.embank(next(fresh)),
        "decode": case.decode_only,
        "encode": lambda: case.encode_only(pixels),
        "loop": case.loop,
    }
    seconds = interleaved(contenders, rounds=rounds)
    rows = len(case.manifest)
    return {
        "rates": {name: rate(rows, of) for name, of in seconds.items()},
        "efficiency": efficiency(seconds, overlap=case.runtime.on_cuda),
        "gain": ratio(seconds["loop"], seconds["embank"]),
        "agreement": agreement(banks[-1], case.loop_file),
    }


def efficiency(seconds: dict[str, list[float]], *, overlap: bool) -> Spread:
    """Share of the best possible rate that the whole run reaches.

    Args:
        seconds: of `decode`, `encode` and `embank`, round by round.
        overlap: whether stages have a processor each (the slower one bounds) or share one (they add up).
    """
    pairs = zip(seconds["decode"], seconds["encode"], strict=True)
    best = [max(pair) if overlap else sum(pair) for pair in pairs]
    return ratio(best, seconds["embank"])


def agreement(bank: Path, loop_file: Path) -> dict[str, float]:
    """Cosine of embank's features to the loop's: proof that both did the same work."""
    features = Bank.open(bank).features()
    ours = np.asarray(features.array, np.float64)[features.ok]
    theirs = np.load(loop_file).astype(np.float64)[features.ok]
    cosine = (ours * theirs).sum(1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
    return {"n": len(cosine), "min_cosine": float(cosine.min()), "mean_cosine": float(cosine.mean())}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    columns = ["model", "embank", "decode only", "encode only", "usual loop", "efficiency", "gain over loop"]
    rows = [
        [
            model,
            *(one["rates"][name] for name in ("embank", "decode", "encode", "loop")),
            one["efficiency"],
            one["gain"],
        ]
        for model, one in result["models"].items()
    ]
    note = (
        f"Images a second, {result['images']} images ({result['data']}), {result['device']}, "
        f"{result['precision']}; efficiency against {result['bound']}, target {TARGET_EFFICIENCY}; "
        f"gain, target {TARGET_GAIN}.\n"
    )
    return markdown_table(columns, rows) + "\n" + note


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--model", action="append", help="torchvision name; repeat [resnet18, resnet50]")
    options.add_argument("--data", type=Path, help="folder of images instead of generated ones")
    options.add_argument("--images", type=int, default=320)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", default="auto")
    options.add_argument("--decoder", default="auto")
    options.add_argument("--batch-size", type=int)
    options.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    asked = options.parse_args(arguments)
    result = run(
        models=asked.model or ("resnet18", "resnet50"),
        data=asked.data,
        images=asked.images,
        rounds=asked.rounds,
        device=asked.device,
        precision=asked.precision,
        decoder=asked.decoder,
        batch_size=asked.batch_size,
        workers=asked.workers,
    )
    finish(result, table(result), asked)


if __name__ == "__main__":
    main()
