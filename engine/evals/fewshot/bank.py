"""Evaluations from the bank: features in, record out. No image is opened."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.splits import split_rows
from engine.evals.fewshot.evaluate import FewShotResult, Protocol, compare
from engine.versions import versions
from stores.bank.reader import Bank, FeatureSet
from stores.bank.records import RunRecord, keep


def fewshot_from_bank(bank: Path | str, model: str, protocol: Protocol, **options: Any) -> dict[str, Any]:
    """`fewshots_from_bank` for one model."""
    return fewshots_from_bank(bank, [model], protocol, **options)[0]


def fewshots_from_bank(
    bank: Path | str,
    models: Sequence[str],
    protocol: Protocol,
    *,
    split: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    bootstrap: int = 0,
) -> list[dict[str, Any]]:
    """Run a few-shot protocol on models' sealed features, all on the same episodes, and keep RunRecords.

    Args:
        models: slugs or feature names.
        split: take images of this split only; None for all.
        backend, device, threads, bootstrap: as for `engine.evals.fewshot.evaluate.fewshot`.

    Returns:
        For each model the protocol and `{model, accuracy, ci95, images, masked, seconds, stages, paired}`:
        accuracy as a fraction, ci95 its half width; `paired` lists, for each other model,
        `{model, difference, ci95, low, high, patients}` of this one minus that one, `low` and `high` over
        episodes. With one model it is empty.

    Raises:
        Refused: an unknown model or split, too few usable images, or options that exclude one another.
    """
    start = time.perf_counter()
    store = Bank.open(bank)
    chosen = [store.features(model) for model in models]
    names = [each.name for each in chosen]
    if not names or len(set(names)) != len(names):
        raise Refused(f"models {list(models)}", "Each model is named once", "drop the repetition")
    labels = store.column("label")
    codes, counts = _masked(store, chosen, labels[0], split, protocol)
    ok = np.logical_and.reduce([each.ok for each in chosen])
    groups = store.column("group")[0]
    opened = time.perf_counter() - start
    results = compare(
        {each.name: each.array for each in chosen},
        codes,
        protocol,
        groups=groups,
        data_set=store.image_digest,
        ok=ok,
        backend=backend,
        device=device,
        threads=threads,
        bootstrap=bootstrap,
        names=labels[1],
    )
    found = []
    for each in chosen:
        entry = _entry(each, results, chosen, {"open": round(opened, 6)}) | counts
        entry |= {"split": split, "backend": backend, "device": device}
        entry["seconds"] = round(time.perf_counter() - start, 4)
        before = time.perf_counter()
        _record(store, each, entry)
        entry["stages"] |= {"record": round(time.perf_counter() - before, 6)}
        found.append(entry)
    return found


def _masked(
    store: Bank, chosen: Sequence[FeatureSet], codes: NDArray[np.int32], split: str | None, protocol: Protocol
) -> tuple[NDArray[np.int32], dict[str, Any]]:
    """Label codes, -1 outside the split, and how many rows are not used for which reason."""
    inside, others, notes = np.ones(len(codes), np.bool_), dict[str, int](), tuple[str, ...]()
    if split is not None:
        if protocol.published:
            raise Refused(
                f"as-published with split {split!r}",
                "The study drew from train and test images together",
                "leave out --split, or use --mode default",
            )
        of_row, known = store.column("split")
        found = split_rows(of_row, known, {"split": split})
        if not found.rows["split"].any():
            raise Refused(
                f"split {split!r}", f"The bank has {', '.join(known) or 'no splits'}", "name one of these"
            )
        inside, others, notes = found.rows["split"], found.others, found.notes
    failed = np.logical_or.reduce([~each.ok for each in chosen])
    counts: dict[str, Any] = {
        "failed": int((failed & inside).sum()),
        "unlabelled": int((~failed & inside & (codes < 0)).sum()),
        "outside_split": int((~inside).sum()),
    }
    counts["masked"] = counts["failed"] + counts["unlabelled"]
    counts |= {"other_splits": others, "split_notes": list(notes)}
    return np.where(inside, codes, np.int32(-1)), counts


def _entry(
    one: FeatureSet, results: dict[str, FewShotResult], chosen: Sequence[FeatureSet], opened: dict[str, float]
) -> dict[str, Any]:
    result, paired = results[one.name], []
    for other in chosen:
        if other is not one:
            difference = result.minus(results[other.name])
            paired.append({"model": other.title, **difference.to_dict()})
    return {
        "model": one.title,
        "feature": one.name,
        **result.to_dict(),
        "paired": paired,
        "stages": {**opened, **result.seconds},
    }


#: Members of an entry that say what was asked and used; the rest are metrics.
_ASKED = (*Protocol.__dataclass_fields__, "model", "split", "backend", "device")
_APART = (*_ASKED, "feature", "seconds", "stages", "failed", "unlabelled", "outside_split")


def _record(store: Bank, features: FeatureSet, entry: dict[str, Any]) -> None:
    """Keep a RunRecord of the evaluation in the bank."""
    used = {"feature": features.name, "key": features.key.digest, "manifest_digest": store.manifest_digest}
    record = RunRecord.now(
        kind="fewshot",
        asked={name: entry[name] for name in _ASKED},
        used={**used, "image_digest": store.image_digest, "device": entry["device"]},
        metrics={name: value for name, value in entry.items() if name not in _APART},
        seconds={"total": entry["seconds"], **entry["stages"]},
        versions=versions(),
        failures={name: entry[name] for name in ("failed", "unlabelled", "outside_split")},
    )
    keep(record, store.path, entry)
