"""Mend a damaged bank: quarantine what does not verify, compute exactly that again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.decode.source import Limits
from engine.errors import BankError
from engine.extract import EmbedOptions, Progress, embed, feature_key
from engine.models import ModelSpec, resolve
from engine.preflight import make_ready
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.layout import RUN_DOCUMENT, SIDE
from stores.manifest import Manifest
from stores.places import Place
from stores.read import Bank
from stores.report import VerifyReport
from stores.schema import FeatureKey
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
    _refuse_unready(bank, report, weights, device)
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


def _refuse_unready(bank: Place | str, report: VerifyReport, weights: Path | None, device: str) -> None:
    """Refuse, before anything is set aside, what cannot be computed again here."""
    if any(each.path == RUN_DOCUMENT for each in report.damaged):
        return  # it is rebuilt first; until then nothing of the bank can be opened
    store = Bank.open(bank)
    store.manifest()
    notes = {each.path for each in report.damaged}
    for feature in sorted({d.feature for d in report.damaged if d.feature and d.chunk is not None}):
        if f"{SIDE}/{feature}/provenance.json" in notes:
            continue  # set aside, so that the same `embank embed` can write it again
        made = _Made.of(store, feature, weights, device)
        size = made.options.batch_for(made.runtime, store.chunk_rows)
        make_ready((made.spec,), store.image_digest, made.runtime, made.options, made.key.decoder, size)


@dataclass(frozen=True)
class _Made:
    """What made a feature, found again.

    Attributes:
        root: the images' folder at the time.
    """

    spec: ModelSpec
    runtime: Runtime
    options: EmbedOptions
    key: FeatureKey
    root: Path

    @classmethod
    def of(cls, store: Bank, feature: str, weights: Path | None, device: str) -> "_Made":
        """As its provenance says. Raises BankError if that would make another feature."""
        made = store.provenance(feature)
        options = EmbedOptions(**{**made["options"], "limits": Limits(**made["options"]["limits"])})
        then = made["runtime"]
        runtime = Runtime.resolve(
            then["device"] if device == "auto" else device,
            then["precision"],
            then["threads"],
            then["seed"],
            then["compile"],
        )
        file = weights or (Path(made["weights_path"]) if made["weights_path"] else None)
        recipe = Recipe.from_dict(made["recipe"])
        spec = resolve(made["model"], weights=file, recipe=recipe, seed=then["seed"])
        key = feature_key(spec, made["decoder"], runtime, store.image_digest, options.dtype)
        if key.name != feature:
            raise BankError(
                f"These inputs make {key.name}, not {feature}",
                "A repair uses the very weights, settings and decoder that made the features",
                "give the original file with --weights",
            )
        return cls(spec, runtime, options, key, Path(made["root"]))


def _recompute(
    store: Bank,
    feature: str,
    manifest: Manifest,
    weights: Path | None,
    root: Path | None,
    device: str,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    made = _Made.of(store, feature, weights, device)
    images = replace(manifest, root=(root or made.root).resolve())
    embed(
        images, [made.spec], store.path, runtime=made.runtime, options=made.options, on_progress=on_progress
    )
