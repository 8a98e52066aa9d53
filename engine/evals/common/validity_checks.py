"""Checks that evaluations share: degenerate features, leakage between parts, small and missing classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.feature_quality import NEAR, FeatureQuality, quality_of
from engine.evals.common.features import Features
from engine.evals.common.validity import ValidityIssue, issue
from stores.errors import BankError, MachineFault
from stores.manifest.spellings import spelling_variants

Rows = Mapping[str, NDArray[np.intp]]

#: Share of rows without an embedding, or that equal others, beyond which a warning is due.
FEW = 0.01
#: Spread of features at which they have collapsed, and effective dimensions that they need.
COLLAPSED, LEAST_RANK = 1e-3, 3.0
#: Images that a class needs in each part.
SMALL_CLASS = 10
#: Part -> the parts that its images must not meet in.
_LEARNED_FROM = {"test": ("train", "val"), "val": ("train",)}
#: Classes that a sentence names.
_NAMED = 5


def failed_issues(failed: int, total: int, failure: str) -> Iterator[ValidityIssue]:
    """Yield an issue of images that an evaluation could not read, if there are more than 1 % of them.

    Args:
        failure: the sentence's end, after "3 of 40".
    """
    if failed > FEW * total:
        remedy = "see the reasons among the failures, and repair or leave out these files"
        yield issue("failed_rows", f"{failed:,} of {total:,} {failure}", failed / total, remedy=remedy)


def issues_of_features(
    features: Features, rows_of: Rows, *, patients_apart: bool = False
) -> Iterator[ValidityIssue]:
    """Yield issues of features and of the parts that an evaluation used.

    Args:
        rows_of: part -> its rows. Leakage is looked for where there are `train` and `test`, perhaps `val`.
        patients_apart: the evaluation itself keeps a patient's images apart.
    """
    embedded = int(np.count_nonzero(features.ok))
    missing = len(features) - embedded
    if missing > FEW * len(features):
        share = missing / len(features)
        yield issue("failed_rows", f"{missing:,} of {len(features):,} images have no embedding", share)
    try:
        quality = quality_of(features)
    except (BankError, MachineFault) as error:
        yield issue("features_not_checked", f"The features were not checked: {error.found}")
    else:
        yield from _degenerate(quality)
        yield from _duplicates(quality, rows_of)
        yield from _near_duplicates(quality, rows_of)
    if not patients_apart and _compared(rows_of):
        codes, names = features.texts("group")
        yield from patient_issues(rows_of, codes, names)


def _degenerate(quality: FeatureQuality) -> Iterator[ValidityIssue]:
    """Yield issues of the features as a whole; of collapsed ones the collapse alone."""
    if quality.not_finite:
        yield issue(
            "not_finite_rows", f"{quality.not_finite:,} embeddings hold NaN or infinity", quality.not_finite
        )
    if quality.sampled and not quality.spread > COLLAPSED:
        spread = quality.spread if quality.spread == quality.spread else 0.0
        text = (
            f"The embeddings are nearly the same for all images: they differ by {spread:.2g} of their length"
        )
        yield issue("collapsed_features", text, spread)
        return
    if quality.constant:
        text = f"{quality.constant:,} of {quality.dimensions:,} dimensions have one value for all images"
        many = 2 * quality.constant > quality.dimensions
        yield issue("constant_dimensions", text, quality.constant, severity="warning" if many else None)
    least = min(LEAST_RANK, quality.dimensions / 2, (quality.sampled - 1) / 4)
    if quality.effective_rank < least:
        text = (
            f"The embeddings have an effective rank of {quality.effective_rank:.1f}: their variance lies in "
            "few directions"
        )
        yield issue("low_effective_rank", text, quality.effective_rank)


def _compared(rows_of: Rows) -> bool:
    return "train" in rows_of and "test" in rows_of


def _duplicates(quality: FeatureQuality, rows_of: Rows) -> Iterator[ValidityIssue]:
    """Yield issues of equal embeddings: between parts, and within them."""
    rows, sets = quality.duplicates.T
    if not len(rows):
        return
    if _compared(rows_of):
        for part, others in _sides(rows_of):
            known = sets[np.isin(rows, others)]
            count = int(np.count_nonzero(np.isin(rows, rows_of[part]) & np.isin(sets, known)))
            if count:
                start = f"{count:,} of {len(rows_of[part]):,} {part} images"
                text = f"{start} have the embedding of {_other(part, rows_of)} image"
                yield issue("duplicates_across_parts", text, count)
    again, total = 0, sum(map(len, rows_of.values()))
    for own in rows_of.values():
        again += int((np.unique(sets[np.isin(rows, own)], return_counts=True)[1] - 1).sum())
    if again:
        text = f"{again:,} of {total:,} images have the embedding of another one"
        yield issue("duplicate_rows", text, again, severity="warning" if again > FEW * total else None)


def _near_duplicates(quality: FeatureQuality, rows_of: Rows) -> Iterator[ValidityIssue]:
    if not _compared(rows_of):
        return
    if quality.pairs != "compared":
        text = f"Near-duplicates across parts were not looked for: {quality.pairs}"
        yield issue("near_duplicates_not_checked", text, quality.images)
        return
    equal = dict(quality.duplicates.tolist())
    pairs = [pair for pair in quality.near.tolist() if equal.get(pair[0], -1) != equal.get(pair[1], -2)]
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    for part, others in _sides(rows_of):
        leaking = [x[np.isin(x, rows_of[part]) & np.isin(y, others)] for x, y in ((a, b), (b, a))]
        count = len(np.unique(np.concatenate(leaking)))
        if count:
            text = (
                f"{count:,} of {len(rows_of[part]):,} {part} images are nearly the same as "
                f"{_other(part, rows_of)} image (cosine {NEAR:g} or more without the common mean)"
            )
            yield issue("near_duplicates_across_parts", text, count)


def _sides(rows_of: Rows) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield each part that is judged, and the rows that are learned from before."""
    for part in _LEARNED_FROM:
        if part in rows_of:
            yield part, np.concatenate([rows_of[name] for name in _earlier(part, rows_of)])


def _earlier(part: str, rows_of: Rows) -> list[str]:
    return [name for name in _LEARNED_FROM[part] if name in rows_of]


def _other(part: str, rows_of: Rows) -> str:
    return f"a {' or '.join(_earlier(part, rows_of))}"


def patient_issues(
    rows_of: Rows, groups: NDArray[np.integer[Any]], names: Sequence[str]
) -> Iterator[ValidityIssue]:
    """Yield how many images of a part belong to a patient of a part that is learned from.

    Patients whose names differ only in spelling are counted, too.

    Args:
        rows_of: `train`, `test` and perhaps `val`, each with its rows.
        groups: int [N], patients, negative where unknown; names: what the codes stand for.
    """
    every = np.concatenate(list(rows_of.values()))
    if not (groups[every] >= 0).any():
        text = "No image names its patient (group): whether one is in two parts is not known"
        yield issue("patients_unknown", text)
        return
    spelt = np.arange(len(names) + 1)
    spelt[-1] = -1
    for places in spelling_variants(names):
        spelt[places] = places[0]
    for part, others in _sides(rows_of):
        rows = rows_of[part][groups[rows_of[part]] >= 0]
        both = int(np.isin(groups[rows], groups[others]).sum())
        start = f"of {len(rows_of[part])} {part} images belong to a patient (group) of "
        start += f"{' or '.join(_earlier(part, rows_of))} images"
        if both:
            yield issue("patients_across_parts", f"{both} {start}", both)
        by_spelling = int(np.isin(spelt[groups[rows]], spelt[groups[others]]).sum()) - both
        if by_spelling:
            yield issue(
                "patients_across_parts",
                f"{by_spelling} {start}, if names that differ only in case, leading zeros or a "
                "trailing .0 are one patient's",
                by_spelling,
                severity="warning",
            )


def class_issues(
    codes_of: Mapping[str, NDArray[np.integer[Any]]], names: Sequence[str] | None = None
) -> Iterator[ValidityIssue]:
    """Yield issues of classes that are missing or small in a part.

    Args:
        codes_of: part -> classes of its rows, none negative: `train`, `test` and perhaps `val`, or one part
            of any name.
        names: what the codes stand for; None if for themselves.
    """
    counts = {part: dict(zip(*_counted(codes), strict=True)) for part, codes in codes_of.items()}
    if "train" in counts and "test" in counts:
        yield from _missing({part: set(of) for part, of in counts.items()}, names)
    for part, of in counts.items():
        small = {code: count for code, count in of.items() if count < SMALL_CLASS}
        if small:
            which = f"{part} images" if len(counts) > 1 else "images"
            listed = _listed(list(small), names, small)
            text = f"Classes of fewer than {SMALL_CLASS} {which}: {listed}"
            yield issue("small_classes", text, min(small.values()))


def _counted(codes: NDArray[np.integer[Any]]) -> tuple[list[int], list[int]]:
    classes, counts = np.unique(codes, return_counts=True)
    return classes.tolist(), counts.tolist()


def _missing(held: Mapping[str, set[int]], names: Sequence[str] | None) -> Iterator[ValidityIssue]:
    train, test = held["train"], held["test"]
    val = held.get("val")
    learned = train | (val or set())
    for classes, sentence in (
        ((val or set()) - train, "Train has no image of {}, which validation has: wrong there"),
        (train - val if val is not None else set(), "Validation has no image of {}: C is chosen without"),
        (train - test, "Test has no image of {}: means over classes leave it out"),
        (test - learned, "Test has images of {}, but no part trained on has: they count as wrong"),
    ):
        if classes:
            text = sentence.format(_listed(sorted(classes), names))
            yield issue("missing_classes", text, len(classes))


def _listed(
    classes: Sequence[int], names: Sequence[str] | None, counts: Mapping[int, int] | None = None
) -> str:
    """Name the first classes, each with its count if that is given, and count the others."""
    shown = [
        (repr(names[c]) if names else str(c)) + (f" ({counts[c]})" if counts else "")
        for c in classes[:_NAMED]
    ]
    remainder = f" and {len(classes) - _NAMED} other classes" if len(classes) > _NAMED else ""
    return ", ".join(shown) + remainder
