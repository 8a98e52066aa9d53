"""Evaluations from the bank: features in, record out. No image is opened."""

import time
from pathlib import Path
from typing import Any

from engine import provenance
from engine.evals.fewshot import Protocol, fewshot
from stores.read import Bank
from stores.records import RunRecord


def fewshot_from_bank(bank: Path | str, model: str, protocol: Protocol) -> dict[str, Any]:
    """Run a few-shot protocol on a model's sealed features and keep a RunRecord.

    Args:
        model: slug or feature name.

    Returns:
        The protocol, and `{model, accuracy, ci95, images, masked, seconds}`: accuracy as a fraction, ci95
        its half width.
    """
    start = time.perf_counter()
    store = Bank.open(Path(bank))
    features = store.features(model)
    result = fewshot(features.array, features.labels, protocol, data_set=store.image_digest)
    seconds = round(time.perf_counter() - start, 4)
    RunRecord.now(
        kind="fewshot",
        asked={"model": model, **protocol.__dict__},
        used={"feature": features.info.name, "manifest_digest": store.manifest_digest, "device": "cpu"},
        metrics={
            "accuracy": result.accuracy,
            "ci95": result.ci95,
            "images": result.used,
            "masked": result.masked,
        },
        seconds={"total": seconds},
        versions=provenance.versions(),
    ).write(store.path)
    return {"model": features.key.model, **result.to_dict(), "seconds": seconds}
