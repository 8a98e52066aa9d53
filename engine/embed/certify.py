"""The parity certificate: the error of a bank's features against Pillow's pixels and the plain float32 model.

It is measured on a sample of the bank's own images and kept beside the features, so that a reader can see
what the speed cost. The reference shares no code with the run except the architecture and the reading of its
weights, so a fault of the fast path shows.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.decode import decoder_name
from engine.decode.oracle import Oracle
from engine.decode.parity import pixel_parity
from engine.embed.amendments import amended
from engine.embed.options import EmbedOptions, image_source
from engine.embed.plan import feature_key
from engine.embed.report import Certificate, Comparison
from engine.embed.worker import decoder_of, pad_batch
from engine.errors import BankError
from engine.models import ModelSpec, load
from engine.models.forward.plain import PlainModel
from engine.runtime import HostCopy, Runtime, device_faults, fix_flags
from stores.bank.keys import FeatureKey
from stores.bank.reader import Bank
from stores.bank.seal import definition
from stores.bank.writer import write_certificate
from stores.manifest.manifest import Manifest

if TYPE_CHECKING:
    import torch

    from engine.decode.protocol import Decoder
    from engine.decode.source import ImageSource

#: Number of images that a certificate is measured on, and of those whose pixels are compared at a time.
SAMPLE, PIXEL_BATCH = 64, 16


def certify(
    manifest: Manifest,
    spec: ModelSpec,
    bank: Path | str,
    *,
    runtime: Runtime,
    options: EmbedOptions,
    feature: str | None = None,
    sample: int = SAMPLE,
) -> Certificate:
    """Measure how a run computes a model's features against Pillow pixels and the plain model in float32.

    The measured features have the run's decoder, precision, batch size and padding. The truth is the plain
    model (`engine.models.forward.plain`) at the same batch size.

    Args:
        feature: full name of the features; None takes those of the images that the bank saw first.
        sample: images, evenly spaced over the manifest; failed ones are left out.

    Returns:
        `{n, undefined, rows, decoder, precision, batch_size, truth, pixels, deep, embedding}`, also written
        to the bank as `certificate.json`. `n` images give numbers; `undefined` ones were read, but have no
        cosine, since an embedding is NaN, infinite or all zero. `truth` says how it was computed. `pixels` is
        in levels of 255 (`pixel_parity`). `deep` counts the sample's deep and JPEG 2000 `images`, and those
        whose truth is `independent`, by packages (`readers`) that share no code with the run. `embedding` has
        the cosine of the run to the truth (`min_cosine`, `mean_cosine`), also after taking away the sample's
        mean, which all embeddings share (`min_centred_cosine`); of the decoder alone (`decoder_min_cosine`);
        of the encoder alone (`precision_min_cosine`); and `max_relative_error`, the length of the difference
        to the truth over the truth's own. They are None where no image gives a number.

    Raises:
        BankError: the bank has no such features.
        MachineFault: the device is out of memory, or lost.
    """
    store = Bank.open(bank)
    rows = np.unique(
        np.linspace(0, len(manifest) - 1, min(sample, len(manifest))).round().astype(int)
    ).tolist()
    run = _Run(image_source(manifest, options), rows, options.batch_for(runtime, store.chunk_rows), runtime)
    fix_flags(runtime)
    known = None if feature is None else definition(store.path, feature)
    image_digest = manifest.image_digest if known is None else known.key.images
    decoder = decoder_name(options.decoder, runtime.device, options.dct)
    key = feature_key(spec, decoder, runtime, image_digest, options.dtype)
    _demand(store, key)
    spec = amended(spec, store, key.name)
    with (
        closing(Oracle()) as oracle,
        closing(decoder_of(spec.recipe.rendering, runtime, options, run.batch_size)) as fast,
        closing(_reference(spec, runtime, oracle)) as reference,
    ):
        pixels = pixel_parity(
            run.source,
            rows,
            spec.recipe.rendering,
            fast,
            batch_size=min(PIXEL_BATCH, run.batch_size),
            render=oracle.render,
        )
        with device_faults():
            encoder, plain = load(spec, runtime), PlainModel(spec, runtime.device)
            models: _Models = {
                "encoder": lambda x: HostCopy(encoder(x)).wait().numpy(),
                "plain": lambda x: plain(x.cpu().numpy()),
            }
            ours, theirs = run.features(fast, models), run.features(reference, models)
    certificate: Certificate = {
        "rows": rows,
        "decoder": fast.name,
        "precision": runtime.numerics,
        "batch_size": run.batch_size,
        "truth": plain.describe(),
        "pixels": pixels,
        "deep": oracle.reader_counts(),
        **_compare(ours, theirs),
    }
    write_certificate(store, key, certificate)
    return certificate


def _demand(store: Bank, key: FeatureKey) -> None:
    names = [info.name for info in store.list()]
    if key.name not in names:
        raise BankError(
            f"This machine would make {key.name} (decoder {key.decoder}, precision {key.precision}); "
            f"{store.path} holds {', '.join(names) or 'no features'}",
            "A certificate is measured with the decoder and the precision that made the features",
            "name --decoder, --precision and --device as they were, or use a machine like the workers'",
        )


def _reference(spec: ModelSpec, runtime: Runtime, oracle: Oracle) -> "Decoder":
    from engine.decode.threaded import ThreadedDecoder

    return ThreadedDecoder(
        "reference",
        oracle.render_row,
        spec.recipe.rendering,
        device=runtime.device,
        threads=runtime.threads,
    )


_Models = dict[str, Callable[["torch.Tensor"], NDArray[np.float32]]]
_Features = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class _Run:
    """The images and settings of a certificate's computations, and their batches."""

    source: "ImageSource"
    rows: list[int]
    batch_size: int
    runtime: Runtime

    def features(self, decoder: "Decoder", models: _Models) -> _Features:
        """Compute the features of the rows by each model.

        [n, d], NaN where an image failed; `read`: [n], 1 or 0.
        """
        parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*models, "read")}
        portions = [self.rows[i : i + self.batch_size] for i in range(0, len(self.rows), self.batch_size)]
        for decoded in decoder.stream(self.source, portions):
            count, failed = len(decoded.rows), list(decoded.failures)
            pixels = pad_batch(decoded.pixels, self.batch_size, self.runtime)  # as a run does
            for name, model in models.items():
                features = model(pixels)[:count].astype(np.float64)
                features[failed] = np.nan
                parts[name].append(features)
            read = np.ones(count)
            read[failed] = 0
            parts["read"].append(read)
        return {name: np.concatenate(batches) for name, batches in parts.items()}


def _compare(ours: _Features, theirs: _Features) -> Comparison:
    """Compare features by the run's decoder with those by Pillow: the run's error, and its causes."""
    run, truth = ours["encoder"], theirs["plain"]
    cosine = _cosine(run, truth)
    read = (ours["read"] == 1) & (theirs["read"] == 1)
    return {
        "n": int(np.isfinite(cosine).sum()),
        "undefined": int((read & ~np.isfinite(cosine)).sum()),
        "embedding": {
            "min_cosine": _over(np.min, cosine),
            "mean_cosine": _over(np.mean, cosine),
            "min_centred_cosine": _over(np.min, _centred_cosine(run, truth)),
            "decoder_min_cosine": _over(np.min, _cosine(ours["plain"], truth)),
            "precision_min_cosine": _over(np.min, _cosine(theirs["encoder"], truth)),
            "max_relative_error": _over(np.max, _relative_error(run, truth)),
        },
    }


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: NDArray[np.float64] = (a * b).sum(axis=1) / (
            np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        )
    return cosine


def _relative_error(a: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the relative length of the difference, which a cosine does not see."""
    with np.errstate(invalid="ignore", divide="ignore"):
        error: NDArray[np.float64] = np.linalg.norm(a - truth, axis=1) / np.linalg.norm(truth, axis=1)
    return error


def _centred_cosine(a: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine after subtracting the mean: an untrained network maps all images near one point."""
    known = np.isfinite(truth).all(axis=1)
    if known.sum() < 2:
        return np.full(len(truth), np.nan)
    mean = truth[known].mean(axis=0)
    return _cosine(a - mean, truth - mean)


def _over(reduce: Callable[[NDArray[np.float64]], np.floating], values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(reduce(finite)) if len(finite) else None
