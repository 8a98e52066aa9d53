"""Mend a damaged bank: quarantine what does not verify, compute exactly that again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.decode import decoder_name
from engine.errors import BankError
from engine.extract import EmbedOptions, Progress, embed, feature_key
from engine.models import ModelSpec
from engine.restore import restore
from engine.runtime import Runtime
from stores.manifest import Manifest
from stores.places import Place
from stores.read import Bank
from stores.report import VerifyReport
from stores.verify import quarantine, verify


def repair(
    bank: Place | str,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Verify a bank, move damaged chunks to quarantine and recompute them with the settings that made them.

    Args:
        weights: the weights file, where it is not at its recorded place any more.
        root: the images' folder, likewise.

    Returns:
        `{ok, damaged, recomputed, features}`: `ok` after a second verification.

    Raises:
        BankError: damage that only the original inputs could mend, or inputs that have changed since.
    """
    report = verify(bank)
    _check_first(bank, report, weights, root, device)
    lost = quarantine(bank, report)  # rebuilds the run document first, if that is what is damaged
    store = Bank.open(bank)
    manifest = store.manifest()
    for feature, chunks in lost.items():
        if chunks or not store.is_sealed(feature):
            _recompute(store, feature, manifest, weights, root, device, on_progress)
    return {
        "ok": verify(bank).ok,
        "damaged": len(report.damaged),
        "recomputed": sum(len(chunks) for chunks in lost.values()),
        "features": {feature: len(chunks) for feature, chunks in lost.items()},
    }


def _check_first(
    bank: Place | str, report: VerifyReport, weights: Path | None, root: Path | None, device: str
) -> None:
    """Refuse while the bank is as it was, unless what describes it is damaged and must be mended first."""
    try:
        store = Bank.open(bank)
        manifest = store.manifest()
    except BankError:
        return
    for feature in {each.feature for each in report.damaged if each.feature and each.chunk is not None}:
        _inputs(store, feature, manifest, weights, root, device)


def _recompute(
    store: Bank,
    feature: str,
    manifest: Manifest,
    weights: Path | None,
    root: Path | None,
    device: str,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    images, spec, runtime, options = _inputs(store, feature, manifest, weights, root, device)
    embed(images, [spec], store.path, runtime=runtime, options=options, on_progress=on_progress)


def _inputs(
    store: Bank, feature: str, manifest: Manifest, weights: Path | None, root: Path | None, device: str
) -> tuple[Manifest, ModelSpec, Runtime, EmbedOptions]:
    """What `embed` needs to make this very feature again."""
    encoder = restore(
        store, feature, weights=weights, root=root, device=device, recorded_threads=True, same_kind=True
    )
    spec, runtime, made = encoder.spec, encoder.runtime, encoder.made
    options = replace(made.options, decoder=made.decoder.partition("-")[0] or made.options.decoder)
    images = replace(manifest, root=encoder.images.root)
    decoder = decoder_name(options.decoder, runtime.device, options.dct)
    key = feature_key(spec, decoder, runtime, images.image_digest, options.dtype)
    if key.name != feature:
        raise BankError(
            f"These inputs make {key.name}, not {feature}",
            "A repair uses the very weights, settings and decoder that made the features",
            "give the original file with --weights",
        )
    return images, spec, runtime, options
