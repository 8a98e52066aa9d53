"""The parity certificate: how far a fast decoder and a low precision are from Pillow and float32.

Measured on a sample of the bank's own images and kept beside the features, so that a reader of a number can
see what the speed cost.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.decode import make_decoder
from engine.decode.parity import pixel_parity
from engine.extract import EmbedOptions, feature_key, image_source
from engine.models import Encoder, ModelSpec, load
from engine.runtime import HostCopy, Runtime
from stores.manifest import Manifest
from stores.read import Bank
from stores.write import write_certificate

if TYPE_CHECKING:
    from engine.decode.protocol import Decoder
    from engine.decode.source import ImageSource

#: Images a certificate is measured on, and how many are taken at a time.
SAMPLE, BATCH = 64, 16


def certify(
    manifest: Manifest,
    spec: ModelSpec,
    bank: Path | str,
    *,
    runtime: Runtime,
    options: EmbedOptions,
    sample: int = SAMPLE,
) -> dict[str, Any]:
    """Measure a model's features in a bank against Pillow pixels and a float32 forward pass.

    Args:
        sample: images, evenly spaced over the manifest; failed ones are left out.

    Returns:
        `{n, rows, decoder, precision, pixels, embedding}`: `pixels` in levels of 255 (`pixel_parity`),
        `embedding` with the cosine of decoder + precision to Pillow + fp32 (`min_cosine`, `mean_cosine`), of
        the decoder alone (`decoder_min_cosine`) and of the precision alone (`precision_min_cosine`);
        `min_centred_cosine` is after taking away the sample's mean, which all embeddings share. None where no
        image of the sample could be read.
        Written to the bank as `certificate.json`.
    """
    rows = np.unique(
        np.linspace(0, len(manifest) - 1, min(sample, len(manifest))).round().astype(int)
    ).tolist()
    source = image_source(manifest, options)
    exact = replace(runtime, precision="fp32", compile=False)
    with (
        closing(_decoder(options.decoder, spec, runtime, options)) as fast,
        closing(_decoder("reference", spec, runtime, options)) as reference,
    ):
        pixels = pixel_parity(source, rows, spec.recipe.rendering, fast)
        name = fast.name
        encoders = {each.numerics: load(spec, each) for each in {runtime, exact}}
        features = {
            (decoder.name, numerics): _features(decoder, source, rows, encoder)
            for decoder in (fast, reference)
            for numerics, encoder in encoders.items()
        }
    truth = features["reference", exact.numerics]
    both = _cosine(features[name, runtime.numerics], truth)
    certificate = {
        "n": int(np.isfinite(both).sum()),
        "rows": rows,
        "decoder": name,
        "precision": runtime.numerics,
        "pixels": pixels,
        "embedding": {
            "min_cosine": _over(np.min, both),
            "mean_cosine": _over(np.mean, both),
            "min_centred_cosine": _over(np.min, _centred_cosine(features[name, runtime.numerics], truth)),
            "decoder_min_cosine": _over(np.min, _cosine(features[name, exact.numerics], truth)),
            "precision_min_cosine": _over(np.min, _cosine(features["reference", runtime.numerics], truth)),
        },
    }
    key = feature_key(spec, name, runtime, manifest.image_digest, options.dtype)
    write_certificate(Bank.open(bank), key, certificate)
    return certificate


def _decoder(name: str, spec: ModelSpec, runtime: Runtime, options: EmbedOptions) -> "Decoder":
    return make_decoder(
        name,
        spec.recipe.rendering,
        device=runtime.device,
        threads=runtime.threads,
        batch_size=BATCH,
        dct=options.dct and name != "reference",
    )


def _features(
    decoder: "Decoder", source: "ImageSource", rows: list[int], encoder: Encoder
) -> NDArray[np.float64]:
    """[n, d] features of the rows; NaN where an image failed."""
    found = []
    for decoded in decoder.stream(source, [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]):
        features = HostCopy(encoder(decoded.pixels)).wait().numpy().astype(np.float64)
        features[list(decoded.failures)] = np.nan
        found.append(features)
    return np.concatenate(found)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    cosine: NDArray[np.float64] = (a * b).sum(axis=1) / (
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    )
    return cosine


def _centred_cosine(a: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of what tells the images apart: an untrained network maps all images close to one point."""
    known = np.isfinite(truth[:, 0])
    if known.sum() < 2:
        return np.full(len(truth), np.nan)
    mean = truth[known].mean(axis=0)
    return _cosine(a - mean, truth - mean)


def _over(reduce: Callable[..., Any], values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(reduce(finite)) if len(finite) else None
