"""What a page is made from: banks' records, and the failures and gaps of a study."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stores.backends.location import Place
from stores.bank.record_index import RecordEntry
from stores.json_types import Json


@dataclass(frozen=True)
class Source:
    """The records of one data set.

    Attributes:
        name: of the data set, on the page.
        bank: where they lie.
        entries: those to show, of kinds of evaluation and `compare`; of a plain bank the latest of each model
            and setting, of a study the one of each cell.
        domain: as `engine.study.study.DataSet`; "" for none.
    """

    name: str
    bank: Place
    entries: tuple[RecordEntry, ...]
    domain: str = ""


@dataclass(frozen=True)
class Gap:
    """A cell of a study that has no number.

    Attributes:
        dataset, model, evaluation, mode, seed: as `engine.study.study.Cell`.
        state: `failed`, `missing` or `impossible`.
        reason: why; the error's value and rule.
        remedy: what to do.
    """

    dataset: str
    model: str
    evaluation: str
    mode: str
    seed: int
    state: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class PageInput:
    """Everything that a page shows.

    Attributes:
        title: of the page.
        sources: data sets in order.
        models: names in the order of the study; others follow in order of name.
        groups: model -> group, e.g. `self-supervised`.
        gaps: of a study, e.g. cells that failed.
        study: the study file's text; "" for a plain bank.
        commands: record id -> the command that makes it again.
        evaluations: record id -> name of the study's evaluation; empty for a plain bank.
        facts: more facts of the study for its footer.
    """

    title: str
    sources: tuple[Source, ...]
    models: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    study: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)

    def own_name(self, entry: RecordEntry) -> str:
        """Return the name that a study gave an evaluation; "" where it is only that of its kind."""
        name = self.evaluations.get(entry.id, "")
        return "" if entry.record is not None and name == entry.record.kind else name


@dataclass(frozen=True)
class PageOptions:
    """How a page is made.

    Attributes:
        timings: whether dates, times and record ids are shown; without them two runs of one study give the
            same bytes.
        thumbnails: whether single images are shown (worst errors, neighbours); off, since patients' images
            may be recognised.
        max_bytes: most bytes of the page; tables, charts and galleries are cut to fit, and say so.
        room: by how much the shares of charts and tables are larger than those of a page of many records.
    """

    timings: bool = True
    thumbnails: bool = False
    max_bytes: int = 5_000_000
    room: float = 1.0
