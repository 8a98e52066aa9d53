"""Give a bank's features other labels: another bank, and a record in it of where they came from."""

import time
from collections.abc import Sequence
from typing import TypedDict

from engine.versions import versions
from stores.backends.location import Place
from stores.bank.reader import Bank
from stores.bank.records import RunRecord
from stores.maintenance.relabel import Progress
from stores.maintenance.relabel import relabel as make
from stores.manifest.manifest import Manifest


class RelabelReport(TypedDict):
    """Report on a new bank; `relabel` explains the fields."""

    bank: str
    source: str
    rows: int
    named: int
    matched_by: str
    in_order: bool
    classes: dict[str, int]
    unlabelled: int
    features: list[str]
    unfinished: list[str]
    seconds: float


def relabel(
    bank: Place | str,
    manifest: Manifest,
    target: Place | str,
    *,
    features: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> RelabelReport:
    """Make a bank of the same images and features under another manifest (`stores.maintenance.relabel`).

    Returns:
        `{bank, source, rows, named, matched_by, in_order, classes, unlabelled, features, unfinished,
        seconds}`:
        `named` images are in the manifest, matched by `image_id`, `uri` or `content`; `classes` counts the
        new labels.

    Raises:
        ManifestError, BankError, MachineFault: as there.
    """
    start = time.perf_counter()
    source = Bank.open(bank)
    made = make(source, manifest, target, features=features, progress=on_progress)
    report: RelabelReport = {
        "bank": str(made.bank.path),
        "source": str(source.path),
        "rows": made.bank.rows,
        "named": made.named,
        "matched_by": made.matched_by,
        "in_order": made.in_order,
        "classes": made.manifest.classes,
        "unlabelled": made.manifest.unlabelled,
        "features": list(made.features),
        "unfinished": list(made.unfinished),
        "seconds": round(time.perf_counter() - start, 4),
    }
    RunRecord.now(
        kind="relabel",
        asked={"bank": str(source.path), "features": list(features) if features is not None else None},
        used={
            "source_manifest_digest": source.manifest_digest,
            "manifest_digest": made.bank.manifest_digest,
            "image_digest": made.bank.image_digest,
        },
        metrics={
            name: report[name] for name in ("rows", "named", "matched_by", "in_order", "classes", "features")
        },
        seconds={"total": report["seconds"]},
        versions=versions(),
    ).write(made.bank.path)
    return report
