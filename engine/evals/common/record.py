"""The writer of evaluations' records, with the same fields of `used` for all evaluations."""

import hashlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.compute import Compute
from engine.evals.common.feature_quality import unsaved
from engine.evals.common.features import Features
from engine.evals.common.predictions import Predictions
from engine.evals.common.validity import ValidityIssue, combined, to_json
from engine.evals.common.validity_checks import issues_of_features
from engine.versions import versions
from stores.bank.array_cache import ArrayFile
from stores.bank.records import RunRecord, keep, not_kept
from stores.errors import BankError
from stores.json_types import Json, JsonObject
from stores.parquet import Texts


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one part.

    Attributes:
        split: the word by which they were requested; None where no split was named.
        rows: how many.
        digest: SHA-256 of the N rows as bits, 1 for each that took part, the lowest bit first.
        mask: bool [N], these rows; no part of the record.
    """

    split: str | None
    rows: int
    digest: str
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: NDArray[np.integer], total: int, split: str | None = None) -> "Part":
        """Describe a part that consists of some of all rows."""
        bits = np.zeros(total, np.bool_)
        bits[rows] = True
        return cls.of_mask(bits, split)

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_], split: str | None = None) -> "Part":
        """Describe a part that is given as a mask, bool [N]."""
        digest = hashlib.sha256(np.packbits(mask, bitorder="little").tobytes()).hexdigest()
        return cls(split, int(np.count_nonzero(mask)), digest, mask)

    def to_dict(self) -> JsonObject:
        """Return `{split, rows, digest}`."""
        return {"split": self.split, "rows": self.rows, "digest": self.digest}


@dataclass(frozen=True, eq=False)
class Used:
    """Inputs and machine of an evaluation.

    Attributes:
        feature: full name; for arrays what the user called them.
        title: name for people.
        key: digest of all that the embeddings depend on; None for arrays, as the other digests.
        manifest_digest, image_digest: of the bank's manifest, and of its images alone.
        label: column with the classes; None for arrays, and where no labels are used.
        splits: part -> the rows that played it, e.g. `train`, `test`; `images` where there is one part.
        device, backend, threads: where and how it was computed.
        seed: of what was drawn; None where nothing is.
    """

    feature: str
    title: str
    key: str | None
    manifest_digest: str | None
    image_digest: str | None
    label: str | None
    splits: Mapping[str, Part]
    device: str
    backend: str
    threads: int
    seed: int | None = None

    @classmethod
    def of(
        cls,
        features: Features,
        compute: Compute,
        splits: Mapping[str, Part],
        *,
        backend: str,
        seed: int | None = None,
        labelled: bool = True,
    ) -> "Used":
        """Collect what the features and the machine say.

        Args:
            backend: that was used in fact, e.g. `array`.
            labelled: whether labels were used.
        """
        source = features.source
        return cls(
            features.name,
            features.title,
            source.key if source else None,
            source.bank.manifest_digest if source else None,
            source.bank.image_digest if source else None,
            features.label if labelled else None,
            splits,
            compute.device,
            backend,
            compute.threads,
            seed,
        )

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        plain: JsonObject = {name: getattr(self, name) for name in USED_FIELDS if name != "splits"}
        return {**plain, "splits": {part: of.to_dict() for part, of in self.splits.items()}}


#: Members of `used` that every record of an evaluation has.
USED_FIELDS = tuple(Used.__dataclass_fields__)


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """The parts of a record that describe a result.

    Attributes:
        metrics: numbers with their intervals.
        seconds: by stage.
        failures: reason -> rows that were not used.
        convergence: of the solver, where there is one.
        predictions: of single images.
        validity: issues that the evaluation knows of; those of features and parts are added to them.
        patients_apart: whether the evaluation itself kept a patient's images apart.
        caches: array files that the bank is to keep with the record.
    """

    metrics: Mapping[str, Json]
    seconds: Mapping[str, Json]
    failures: Mapping[str, Json] = field(default_factory=dict)
    convergence: Mapping[str, Json] = field(default_factory=dict)
    predictions: Predictions | None = None
    validity: Sequence[ValidityIssue] = ()
    patients_apart: bool = False
    caches: tuple[ArrayFile, ...] = ()


def record_of(
    kind: str,
    features: Features,
    settings: Mapping[str, Json],
    used: Used,
    outcome: Outcome,
    more_used: Mapping[str, Json] | None = None,
) -> RunRecord:
    """Make the record of an evaluation, with its predictions attached.

    Args:
        kind: as in `engine.evals.catalogue`.
        settings: as given.
        more_used: what only this evaluation used.

    Raises:
        BankError: predictions name images, and the bank's manifest is damaged.
    """
    manifest_file = features.source.manifest_file if features.source else ""
    rows_of = {part: np.flatnonzero(of.mask) for part, of in used.splits.items()}
    general = issues_of_features(features, rows_of, patients_apart=outcome.patients_apart)
    outcome = replace(outcome, validity=combined(outcome.validity, general))
    caches = (*unsaved(features), *outcome.caches)
    return record_about(
        kind, lambda: features.image_ids, manifest_file, settings, used, outcome, more_used, caches
    )


def record_about(
    kind: str,
    image_ids: Callable[[], Texts],
    manifest_file: str,
    settings: Mapping[str, Json],
    used: Used,
    outcome: Outcome,
    more_used: Mapping[str, Json] | None = None,
    caches: tuple[ArrayFile, ...] = (),
) -> RunRecord:
    """Make the record of an evaluation of images that need not be a bank's.

    Its `validity` is what the outcome has: there may be no features to check.

    Args:
        image_ids: of all images, called only where predictions name images.
        manifest_file: SHA-256 of the manifest's file in a bank; "" where there is none.
        kind, settings, used, outcome, more_used: as for `record_of`.
        caches: array files that the bank is to keep with the record.
    """
    predictions = outcome.predictions
    return RunRecord.now(
        kind=kind,
        asked=settings,
        used={**used.to_dict(), **(more_used or {})},
        metrics=outcome.metrics,
        seconds=outcome.seconds,
        versions=versions(),
        failures=outcome.failures,
        convergence=outcome.convergence,
        validity=to_json(combined(outcome.validity)),
        attached={} if predictions is None else predictions.attachments(image_ids),
        manifest_file=manifest_file,
        caches=caches,
    )


def keep_record(
    report: MutableMapping[str, Json],
    kind: str,
    features: Features,
    settings: Mapping[str, Json],
    used: Used,
    outcome: Outcome,
    more_used: Mapping[str, Json] | None = None,
) -> None:
    """Write the record of a result in the bank of the features; other arguments as for `record_of`.

    Args:
        report: what the command prints; it gets the `validity` of the record, and says so where no record
            could be kept (`stores.bank.records.keep`).
    """
    assert features.source is not None
    try:
        record = record_of(kind, features, settings, used, outcome, more_used)
    except BankError as error:  # the manifest, which no number depends on
        outcome = replace(outcome, predictions=None)
        not_kept(error, report, record_of(kind, features, settings, used, outcome, more_used))
        return
    keep(record, features.source.bank.path, report)
