"""External validation: the probe of one bank, as it was refitted, tested on the images of other banks.

Embeddings are comparable only if all but the images is the same: weights, architecture, layer, preprocessing,
arithmetic, decoder and storage. Classes are matched by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.evals.common.result import Metric
from engine.evals.common.splits import have
from engine.evals.common.validity import ValidityIssue, issue
from engine.evals.common.validity_checks import class_issues, patient_issues
from engine.evals.probe.options import Options, ProbeOptions
from engine.evals.probe.resident import resident
from engine.evals.probe.targets import Target, targets_of
from engine.evals.probe.task import ProbeResult, metrics_of
from engine.kernels.intervals.metrics_bootstrap import Percentiles, bootstrap_metrics
from engine.kernels.metrics import Evaluation
from stores.bank.keys import FeatureKey
from stores.bank.reader import Bank, FeatureSet
from stores.json_types import Json, JsonObject

#: Fields of a key that may differ between two banks: the slug, which is for people, and the images.
_FREE = ("model", "images")
#: Classes that a message names.
_SHOWN = 5


@dataclass(frozen=True)
class External:
    """The banks that a probe is tested on besides its own.

    Attributes:
        banks: their paths or URLs.
        split: the split that is tested; None for all images with an embedding and a label.
    """

    banks: tuple[str, ...] = ()
    split: str | None = None

    def settings(self) -> JsonObject:
        """Return `{banks, split}`."""
        return {"banks": [*self.banks], "split": self.split}


@dataclass(frozen=True)
class ExternalTest:
    """Test of a probe on the images of another bank.

    Attributes:
        bank, feature: where the images lie, and the full name of their embeddings.
        label: column that was tested.
        classes: names, those that the probe knows first.
        rows: intp [n], rows of the bank that were tested, ascending.
        truth: int64 [n], positions in `classes`.
        probabilities: float64 [n, classes].
        test: metrics; None where there is no image to test.
        intervals: 95 % percentile intervals over the patients tested; empty without bootstrap.
        reason: why there is no test; "" if there is one.
        validity: issues of classes and patients, about the bank.
    """

    bank: str
    feature: str
    label: str
    classes: tuple[str, ...]
    rows: NDArray[np.intp]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    test: Evaluation | None
    intervals: Mapping[str, Percentiles]
    reason: str
    validity: tuple[ValidityIssue, ...]

    def metrics(self) -> dict[str, Metric]:
        """Return the headline metrics with their intervals; none where there is no test."""
        return {} if self.test is None else metrics_of(self.test, self.intervals)

    def to_dict(self) -> JsonObject:
        """Return `{bank, feature, label, n, classes, test}`, and `reason` where `test` is null."""
        test: Json = None
        if self.test is not None:
            test = self.test.to_dict(self.classes)
            if self.intervals:
                test["intervals"] = {name: one.to_dict() for name, one in self.intervals.items()}
        body: JsonObject = {"bank": self.bank, "feature": self.feature, "label": self.label}
        body |= {"n": len(self.rows), "classes": [*self.classes], "test": test}
        return {**body, "reason": self.reason} if self.reason else body


@dataclass(frozen=True)
class Destination:
    """A bank to test on, with what was read of it: its features and targets.

    Attributes:
        path: as the user named it.
        features: of the same key as the probe's, but for the images.
        targets: the columns that were learned from, here.
        inside: bool [N], rows that are tested if they have an embedding and a label.
    """

    path: str
    features: Features
    targets: tuple[Target, ...]
    inside: NDArray[np.bool_]


def destinations(
    source: Bank, name: str, label: str, options: Options, external: External
) -> tuple[Destination, ...]:
    """Open the banks that the probe of a feature is to be tested on.

    Args:
        name: of the feature in its bank `source`.
        label: column of the classes.
        options: of the probe, whose targets are read in the other banks, too.

    Raises:
        Refused: a bank that is the source or is named twice, that lacks the feature, the split or the column,
            or that has none of the classes. BankError: a damaged bank.
    """
    if external.banks and options.mode == "as-published":
        raise Refused(
            "as-published with --external", "The study tested on one data set", "use --mode default"
        )
    opened = [(path, Bank.open(path)) for path in external.banks]
    seen = {str(source.path)}
    for path, bank in opened:
        if str(bank.path) in seen:
            raise Refused(
                f"--external {path}, which is named before",
                "A bank is tested on once, and its own test part is tested anyway",
                "leave it out",
            )
        seen.add(str(bank.path))
    return tuple(_destination(source, name, label, options, external, path, bank) for path, bank in opened)


def _destination(
    source: Bank, name: str, label: str, options: Options, external: External, path: str, bank: Bank
) -> Destination:
    feature = matching_feature(source.features(name), bank, path)
    features = Features.from_bank(bank, feature, label=label)
    targets = targets_of(features, options)
    inside = np.ones(len(features), np.bool_)
    if external.split is not None:
        inside = features.split_rows({"test": external.split}).rows["test"]
        if not inside.any():
            raise Refused(
                f"--external-split {external.split!r}",
                f"{path} has {have(*features.texts('split'))}",
                "name one of these, or leave it out to test all labelled images",
            )
    return Destination(path, features, targets, inside)


def matching_feature(wanted: FeatureSet, bank: Bank, path: str) -> str:
    """Return the name of the feature of a bank whose key equals another one's but for the images.

    Raises:
        Refused: there is none; the message names what differs.
    """
    here: list[FeatureKey] = []
    for info in bank.list():
        if not info.sealed:
            continue
        if not differences(wanted.key, info.key):
            return info.name
        here.append(info.key)
    same_model = [key for key in here if key.model == wanted.key.model]
    if same_model:
        nearest = min(same_model, key=lambda key: len(differences(wanted.key, key)))
        which = ", ".join(
            f"{part} {_brief(getattr(nearest, part))} instead of {_brief(getattr(wanted.key, part))}"
            for part in differences(wanted.key, nearest)
        )
        value = f"{path} has {wanted.key.model} with {which}"
    else:
        models = ", ".join(dict.fromkeys(key.model for key in here)) or "no sealed feature"
        value = f"{path} has {models}, and not {wanted.key.model}"
    raise Refused(
        value,
        "A probe is tested on embeddings that were made as those it was fitted on",
        f"embed the images of {path} with the model and options of {wanted.bank.path}",
    )


def differences(a: FeatureKey, b: FeatureKey) -> list[str]:
    """Return the names of the fields, but for the slug and the images, in which two keys differ."""
    names = [field.name for field in fields(FeatureKey) if field.name not in _FREE]
    return [name for name in names if getattr(a, name) != getattr(b, name)]


def _brief(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def external_tests(
    source: Features,
    results: Sequence[ProbeResult],
    destination: Destination,
    options: ProbeOptions,
) -> list[ExternalTest]:
    """Test the probes of a bank on the images of another one.

    Args:
        source: the features that were fitted on.
        results: a probe for each of some of the destination's targets, matched by name.
        options: of the intervals, and the device.
    """
    array = resident(destination.features, options)
    targets = {target.column: target for target in destination.targets}
    return [_test(source, one, destination, targets[one.task.name], array, options) for one in results]


def _test(
    source: Features,
    result: ProbeResult,
    destination: Destination,
    target: Target,
    array: Any,
    options: ProbeOptions,
) -> ExternalTest:
    features, known = destination.features, result.task.classes
    classes = (*known, *(name for name in target.classes if name not in known))
    place = np.array([*map(classes.index, target.classes), -1], np.int64)
    codes = place[target.codes]
    rows = np.flatnonzero(destination.inside & features.ok & (codes >= 0))
    truth = codes[rows]
    if not len(rows):
        why = f"no image of {destination.path} has an embedding and a value of {result.task.name!r}"
        scores = np.zeros((0, len(classes)))
        return ExternalTest(
            destination.path, features.name, target.column, classes, rows, truth, scores, None, {}, why, ()
        )
    learned = _check_classes(result, target, truth, classes, destination.path)
    probabilities = np.zeros((len(rows), len(classes)))
    probabilities[:, : len(known)] = result.refit.probabilities(array, rows)[0]
    unseen = [*result.refit.unseen, *range(len(known), len(classes))]
    intervals: Mapping[str, Percentiles] = {}
    if options.bootstrap:
        intervals = bootstrap_metrics(
            truth,
            probabilities,
            features.texts("group")[0][rows],
            resamples=options.bootstrap,
            seed=options.seed,
            unseen=unseen,
        )
    issues = [*_class_issues(learned, truth, classes)]
    issues += _leakage(source, result.task.parts.refit, features, rows, destination.path)
    return ExternalTest(
        destination.path,
        features.name,
        target.column,
        classes,
        rows,
        truth,
        probabilities,
        Evaluation.of(truth, probabilities, unseen=unseen),
        intervals,
        "",
        tuple(one.about(_subject(destination.path, result.task.name)) for one in issues),
    )


def _subject(path: str, label: str) -> str:
    return path if label == "label" else f"{path}, {label}"


def _check_classes(
    result: ProbeResult, target: Target, truth: NDArray[np.int64], classes: Sequence[str], path: str
) -> NDArray[np.int64]:
    """Return the classes of the images fitted on, int64 [n]. Raises Refused if none of them is tested."""
    learned = result.task.codes[result.task.parts.refit]
    if not np.isin(truth, learned).any():
        names = [
            ", ".join(repr(classes[code]) for code in np.unique(codes)[:_SHOWN]) for codes in (truth, learned)
        ]
        raise Refused(
            f"{path} has {target.column} {names[0]}, and {names[1]} were learned",
            "Classes are matched by name",
            f"give {path} the names of the bank fitted on, with `embank bank relabel`",
        )
    return learned


def _class_issues(
    learned: NDArray[np.int64], truth: NDArray[np.int64], classes: Sequence[str]
) -> Iterator[ValidityIssue]:
    """Yield issues of classes that one side lacks, and of small ones among the images tested."""
    for one in class_issues({"train": learned, "test": truth}, classes):
        if one.code == "missing_classes":
            yield one
    yield from class_issues({"external": truth}, classes)


def _leakage(
    source: Features, fitted: NDArray[np.intp], other: Features, tested: NDArray[np.intp], path: str
) -> Iterator[ValidityIssue]:
    """Yield issues of patients and of image files that were both fitted on and tested."""
    (own, own_names), (theirs, their_names) = source.texts("group"), other.texts("group")
    if not (own[fitted] >= 0).any() or not (theirs[tested] >= 0).any():
        text = "Patients (groups) are not named in both banks: whether they share some is not known"
        yield issue("patients_unknown", text)
    else:
        names = list(dict.fromkeys([*own_names, *their_names]))
        code = {name: at for at, name in enumerate(names)}
        joint = np.array([*(code[name] for name in their_names), -1], np.int64)[theirs[tested]]
        groups = np.concatenate([own[fitted], joint])
        rows_of = {"train": np.arange(len(fitted)), "test": len(fitted) + np.arange(len(tested))}
        remedy = f"leave them out of one bank; if they are others of the same name, rename those of {path}"
        for one in patient_issues(rows_of, groups, names):
            yield replace(one, remedy=remedy)
    files = _same_files(source, fitted, other, tested)
    if files:
        text = f"{files:,} of {len(tested):,} images are made from files that were learned from"
        yield issue("duplicates_across_parts", text, files, remedy=f"leave them out of {path}")


def _same_files(source: Features, fitted: NDArray[np.intp], other: Features, tested: NDArray[np.intp]) -> int:
    """Count the images tested whose file has the SHA-256 of one that was fitted on."""
    assert source.source is not None and other.source is not None
    learned = source.source.features.contents[fitted]
    digests = set(map(bytes, learned[learned.any(axis=1)]))
    if not digests:
        return 0
    return sum(bytes(one) in digests for one in other.source.features.contents[tested])
