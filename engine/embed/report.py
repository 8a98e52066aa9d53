"""The report of one model's pass, for the user and for the bank's record."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

from engine.embed.amendments import in_words
from engine.embed.progress import Tally
from engine.models import ModelSpec
from engine.pipeline import StageReport
from engine.runtime import Runtime


class Closeness(TypedDict):
    """Similarity of a run to the reference; None where no image gives a number."""

    min_cosine: float | None
    mean_cosine: float | None
    min_centred_cosine: float | None
    decoder_min_cosine: float | None
    precision_min_cosine: float | None
    max_relative_error: float | None


class Comparison(TypedDict):
    """Numbers of a comparison, and the number of images that they are from."""

    n: int
    undefined: int
    embedding: Closeness


class Certificate(Comparison):
    """A parity certificate; `certify` explains the fields."""

    rows: list[int]
    decoder: str
    precision: str
    batch_size: int
    truth: Mapping[str, object]
    pixels: Mapping[str, object]
    deep: Mapping[str, object]


class StageReports(TypedDict):
    """The clocks of the three stages of a pass."""

    decode: StageReport
    encode: StageReport
    commit: StageReport


class EmbedReportJson(TypedDict):
    """An `EmbedReport` in JSON, with what `--certify` adds to it."""

    bank: str
    key: str
    model: str
    rows: int
    ok: int
    failed: int
    pending: int
    embedded: int
    seconds: float
    img_per_s: float
    stages: StageReports
    failures: dict[str, int]
    decoder: str
    precision: str
    device: str
    workers: int
    feature: str
    name: str | None
    title: str
    notes: tuple[str, ...]
    certificate: NotRequired[Certificate]


@dataclass(frozen=True)
class EmbedReport:
    """Report of one model's pass.

    Attributes:
        rows, ok, failed, pending: of the whole feature set, earlier runs included; pending rows are not
            embedded yet, for want of something that is not the image's fault.
        embedded: rows embedded by this run; 0 when the bank already held all of them.
        seconds: wall seconds of this run's pass (shared by the models of one pass).
        stages: clock of each stage.
        failures: code -> number of rows, failed or pending.
        workers: processes that computed; 0 is this one alone.
        feature: full name of the features.
        name: what the user calls the features, or None.
        title: what tables call them, which no other features of the bank are called.
        notes: what was done differently from the request, one sentence each.
    """

    bank: str
    key: str
    model: str
    rows: int
    ok: int
    failed: int
    pending: int
    embedded: int
    seconds: float
    img_per_s: float
    stages: StageReports
    failures: dict[str, int]
    decoder: str
    precision: str
    device: str
    workers: int
    feature: str
    name: str | None
    title: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> EmbedReportJson:
        """Give the fields as a JSON object."""
        return cast(EmbedReportJson, dict(self.__dict__))


def stage_reports(tally: Tally) -> StageReports:
    """Show the clocks of a tally."""
    decode, encode, commit = (clock.to_dict() for clock in tally.stages)
    return {"decode": decode, "encode": encode, "commit": commit}


def count_codes(codes: Iterable[str]) -> dict[str, int]:
    """Count failures by their code, in the order of their first rows."""
    return dict(Counter(codes))


def pass_notes(tally: Tally, batch_size: int, runtime: Runtime, embedded: bool) -> tuple[str, ...]:
    """Return notes on what a pass did differently from the request: smaller batches, first frames only.

    Args:
        batch_size: the requested one.
        embedded: whether it gave the feature any rows.
    """
    effect = "their last bits may differ" if runtime.on_cuda else "no value differs"
    notes = [
        f"Memory did not suffice for batches of {batch_size}: {rows:,} rows were encoded in batches of {size}"
        f"; {effect} from what batches of {batch_size} give"
        for size, rows in sorted(tally.batch_sizes.items())
        if size < batch_size
    ]
    if tally.first_frames and embedded:
        count = tally.first_frames
        subject = "1 GIF holds" if count == 1 else f"{count:,} GIFs hold"
        notes.append(f"{subject} several frames: the first frame was embedded, the others were not")
    return tuple(notes)


def deep_notes(title: str, requested: ModelSpec, used: ModelSpec) -> tuple[str, ...]:
    """Return notes on rules for deep images that the feature has and the request did not name.

    Args:
        title: of the feature.
    """
    if used.recipe.deep == requested.recipe.deep:
        return ()
    return (f"Deep images of {title} are shown by {in_words(used.recipe.deep)}, as the feature has them",)
