"""Mend a damaged bank: quarantine what does not verify, compute exactly that again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.decode.source import Limits
from engine.errors import BankError
from engine.extract import EmbedOptions, Progress, embed, feature_key
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.layout import MANIFEST
from stores.manifest import Manifest
from stores.mend import put_back_manifest
from stores.places import Place, place
from stores.read import Bank
from stores.verify import VerifyReport, quarantine, verify


def repair(
    bank: Place | str,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    given: Manifest | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Verify a bank, move damaged chunks to quarantine and recompute them with the settings that made them.

    Args:
        weights: the weights file, where it is not at its recorded place any more.
        root: the images' folder, likewise.
        given: the manifest that the bank was made with, to be put back if the bank's own is lost or damaged.

    Returns:
        `{ok, damaged, recomputed, features, remaining}`: `ok` after a second verification, which found what
        `remaining` lists, with what mends it. Without a manifest only what needs none is mended.

    Raises:
        BankError: damage that only the original inputs could mend, or inputs that have changed since.
    """
    if given is not None:
        put_back_manifest(place(bank), given)
    report = verify(bank)
    if any(damage.path == MANIFEST for damage in report.damaged):
        others = [damage for damage in report.damaged if damage.path != MANIFEST]
        # Chunks are computed again, which takes the manifest.
        if all(damage.chunk is None for damage in others):
            quarantine(bank, replace(report, damaged=tuple(others)))
        return _result(bank, report, {})
    lost = quarantine(bank, report)  # rebuilds the run document first, if that is what is damaged
    store = Bank.open(bank)
    manifest = store.manifest()
    for feature, chunks in lost.items():
        if chunks or not store.is_sealed(feature):
            _recompute(store, feature, manifest, weights, root, device, on_progress)
    return _result(bank, report, lost)


def _result(bank: Place | str, report: VerifyReport, lost: dict[str, list[int]]) -> dict[str, Any]:
    now = verify(bank)
    return {
        "ok": now.ok,
        "damaged": len(report.damaged),
        "recomputed": sum(len(chunks) for chunks in lost.values()),
        "features": {feature: len(chunks) for feature, chunks in lost.items()},
        "remaining": now.to_dict()["damaged"],
    }


def _recompute(
    store: Bank,
    feature: str,
    manifest: Manifest,
    weights: Path | None,
    root: Path | None,
    device: str,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    made = store.provenance(feature)
    options = EmbedOptions(**{**made["options"], "limits": Limits(**made["options"]["limits"])})
    runtime = Runtime.resolve(
        made["runtime"]["device"] if device == "auto" else device,
        made["runtime"]["precision"],
        made["runtime"]["threads"],
        made["runtime"]["seed"],
        made["runtime"]["compile"],
    )
    file = weights or (Path(made["weights_path"]) if made["weights_path"] else None)
    spec = resolve(
        made["model"], weights=file, recipe=Recipe.from_dict(made["recipe"]), seed=made["runtime"]["seed"]
    )
    images = replace(manifest, root=(root or Path(made["root"])).resolve())
    key = feature_key(spec, made["decoder"], runtime, images.image_digest, options.dtype)
    if key.name != feature:
        raise BankError(
            f"These inputs make {key.name}, not {feature}",
            "A repair uses the very weights, settings and decoder that made the features",
            "give the original file with --weights",
        )
    embed(images, [spec], store.path, runtime=runtime, options=options, on_progress=on_progress)
