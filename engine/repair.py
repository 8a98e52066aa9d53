"""Mend a damaged bank: quarantine what does not verify, compute exactly that again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.decode.source import Limits
from engine.errors import BankError
from engine.extract import EmbedOptions, Progress, embed, feature_key
from engine.models import resolve
from engine.provenance import recorded
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.manifest import Manifest
from stores.places import Place
from stores.read import Bank
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


def _recompute(
    store: Bank,
    feature: str,
    manifest: Manifest,
    weights: Path | None,
    root: Path | None,
    device: str,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    made = recorded(store, feature)
    try:
        options = EmbedOptions(**{**made["options"], "limits": Limits(**made["options"]["limits"])})
    except TypeError as error:
        raise BankError(
            f"The provenance of {feature} has options that this embank does not know",
            "A repair uses the very settings that made the features",
            "repair with the version of embank that made the bank",
        ) from error
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
