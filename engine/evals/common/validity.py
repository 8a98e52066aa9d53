"""Issues that limit what the numbers of an evaluation mean: a list in each record, shown before the numbers.

An evaluation reports what it knows in `Outcome.validity`; checks of features and parts are added where the
record is made (`engine.evals.common.validity_checks`). `CODES` has every code; the page
docs/explanation/validity.md explains them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, cast

from stores.json_types import Json, JsonObject

Severity = Literal["error", "warning", "note"]
#: The gravest first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, eq=False, repr=False)
class Code:
    """Meaning of a code.

    Attributes:
        severity: the usual one. `error`: the numbers are no evidence; `warning`: they may mislead; `note`:
            the reader should know.
        rule: the condition that valid numbers meet.
        remedy: what to do.
    """

    severity: Severity
    rule: str
    remedy: str


#: Code -> its meaning. Codes are stable: programs may rely on them.
CODES: Mapping[str, Code] = {
    "failed_rows": Code(
        "warning",
        "At most 1 % of the images lack an embedding: those that do may be unlike the others",
        "see `embank bank show --failures`, then run `embank embed --retry-failed`",
    ),
    "not_finite_rows": Code(
        "error",
        "Embeddings are finite numbers",
        "embed these images again, or leave their rows out",
    ),
    "collapsed_features": Code(
        "error",
        "Images differ by more than 0.001 of the length of their embeddings, twice the rounding of float16",
        "check the weights, the layer and the preprocessing of the model",
    ),
    "constant_dimensions": Code(
        "note",
        "A dimension that has one value for all images says nothing of them",
        "none is needed if they are few; else check the weights and the layer of the model",
    ),
    "low_effective_rank": Code(
        "warning",
        "The covariance spans 3 or more dimensions in effect (exp of the entropy of its spectrum)",
        "check the weights and the preprocessing of the model; compare with an untrained network",
    ),
    "more_dimensions_than_images": Code(
        "note",
        "More images than dimensions determine a solution; with fewer, regularisation does",
        "choose a stronger regularisation or add images",
    ),
    "duplicate_rows": Code(
        "note",
        "Different images have different embeddings",
        "look for images that are listed twice with `embank manifest check --content`",
    ),
    "duplicates_across_parts": Code(
        "error",
        "No image is both learned from and tested on",
        "leave these images out of one part; `embank bank audit` lists them",
    ),
    "near_duplicates_across_parts": Code(
        "warning",
        "No image that is tested is nearly the same as one that is learned from",
        "look at the pairs with `embank bank audit --sheet`, and put each pair into one part",
    ),
    "near_duplicates_not_checked": Code(
        "note",
        "Images of different parts are compared with one another where that takes a fraction of a second",
        "run `embank bank audit`",
    ),
    "features_not_checked": Code(
        "note",
        "Features are checked for degenerate ones",
        "run `embank bank verify`, then evaluate again",
    ),
    "patients_across_parts": Code(
        "error",
        "No patient (group) is both learned from and tested on",
        "split by patient with `embank manifest split`, then `embank bank relabel`",
    ),
    "patients_unknown": Code(
        "warning",
        "Patients (groups) are known, so that their images can be kept apart",
        "name their column with `embank manifest table --group COLUMN`, then `embank bank relabel`",
    ),
    "patients_mixed": Code(
        "warning",
        "A patient's images are not judged by one another",
        "leave out the option that lets them mix",
    ),
    "small_classes": Code(
        "warning",
        "A class has 10 or more images in every part: of fewer, one image moves its recall by more than 10 %",
        "add images, choose another split, or merge classes",
    ),
    "missing_classes": Code(
        "warning",
        "Every class has images in every part",
        "choose another split or label column",
    ),
    "small_pools": Code(
        "warning",
        "A class has twice the images of an episode or more; with fewer, episodes share most of their images",
        "lower the images an episode takes of a class (n_shot, n_query), or add images",
    ),
    "classes_left_out": Code(
        "warning",
        "Every class is large enough for an episode",
        "lower the images an episode takes of a class (n_shot, n_query), or add images",
    ),
    "findings_left_out": Code(
        "warning",
        "Every finding has positive and negative images to learn from, and images to test on",
        "choose another split, or leave the finding out",
    ),
    "fits_not_converged": Code(
        "warning",
        "Fits reach the minimum of their objective",
        "narrow the range of C, or standardise the features",
    ),
    "grid_edge": Code(
        "warning",
        "The best C lies within the grid",
        "widen the grid",
    ),
    "flat_selection": Code(
        "warning",
        "Validation scores differ between values of C, so that they can decide",
        "choose by another score, or take a larger validation part",
    ),
    "below_control": Code(
        "error",
        "A model beats what is reached without it: untrained network, image statistics, metadata, chance",
        "check the weights, the preprocessing and the labels; look for what the control gives away",
    ),
    "not_told_from_control": Code(
        "warning",
        "The paired difference between a model and what is reached without it lies above 0",
        "test on more patients",
    ),
    "constant_classifier": Code(
        "error",
        "A classifier tells images apart",
        "widen the grid towards larger C, or check the features",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ValidityIssue:
    """One reason why numbers may not mean what they seem to; made by `issue`.

    Attributes:
        code: a key of `CODES`.
        severity: `error`, `warning` or `note`.
        sentence: what was met, in words, without a full stop.
        value: the number behind it, e.g. how many images; None where there is none.
        rule: the condition that valid numbers meet.
        remedy: what to do.
        subject: what it concerns, e.g. a finding; "" for the evaluation as it is.
    """

    code: str
    severity: Severity
    sentence: str
    value: float | int | str | None
    rule: str
    remedy: str
    subject: str = ""

    def about(self, subject: str) -> "ValidityIssue":
        """Return the same of one subject."""
        return replace(self, subject=subject)

    def to_dict(self) -> JsonObject:
        """Return all fields."""
        return cast(JsonObject, asdict(self))


def issue(
    code: str,
    sentence: str,
    value: float | int | str | None = None,
    *,
    severity: Severity | None = None,
    remedy: str = "",
    subject: str = "",
) -> ValidityIssue:
    """Return an issue with the rule, and by default the severity and the remedy, of its code."""
    known = CODES[code]
    return ValidityIssue(
        code, severity or known.severity, sentence, value, known.rule, remedy or known.remedy, subject
    )


def combined(
    own: Iterable[ValidityIssue], general: Iterable[ValidityIssue] = ()
) -> tuple[ValidityIssue, ...]:
    """Return all issues, the gravest first, each once.

    Args:
        own: what the evaluation reports.
        general: what checks report that all evaluations share; the evaluation's own issues of the same code
            replace them, since it knows better.
    """
    own = tuple(dict.fromkeys(own))
    codes = {one.code for one in own}
    every = (*own, *(one for one in dict.fromkeys(general) if one.code not in codes))
    return tuple(sorted(every, key=lambda one: SEVERITIES.index(one.severity)))


def to_json(issues: Iterable[ValidityIssue]) -> list[Json]:
    """Return issues as records and JSON documents have them."""
    return [one.to_dict() for one in issues]
