"""Records that belong into one chart: of one data set, evaluation, mode and setting, a model each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.report.page.inputs import PageInput, Source
from engine.report.page.settings import key_of, settings_of, words_of
from engine.report.page.svg.looks import COLOURS, Look
from engine.report.page.titles import title_of
from engine.report.record_values import at, text
from stores.backends.location import Place
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from stores.json_types import Json

#: Mode -> its name.
MODES = {"default": "default mode", "as-published": "as published"}


@dataclass(frozen=True)
class Member:
    """The record of one model.

    Attributes:
        model: name. entry: with the record, which can be read.
    """

    model: str
    entry: RecordEntry

    @property
    def record(self) -> RunRecord:
        """The record."""
        assert self.entry.record is not None  # `groups_of` takes no others
        return self.entry.record


@dataclass(frozen=True)
class Group:
    """Records of one setting.

    Attributes:
        dataset: its name. bank: where the records lie.
        kind: of the evaluation.
        mode: `default` or `as-published`; never both in one group.
        label: column that was learned; "" for none.
        protocol: what was asked, in a few words, e.g. `linear probe`.
        seed: 0 where there is none.
        setting: what tells it from other groups of the same data set, mode and protocol, in words; "" if
            nothing does.
        members: in the order of the page's models, a record each.
    """

    dataset: str
    bank: Place
    kind: str
    mode: str
    label: str
    protocol: str
    seed: int
    setting: str
    members: tuple[Member, ...]

    @property
    def title(self) -> str:
        """Data set, protocol, mode and setting."""
        words = [self.protocol, MODES.get(self.mode, self.mode), self.setting]
        return f"{self.dataset}: {', '.join(word for word in words if word)}"


def groups_of(page: PageInput, kind: str) -> list[Group]:
    """Return the records of a kind in groups, in the order of data sets, modes and settings.

    Of several records of one model and setting the last one counts.

    Args:
        kind: of evaluation, e.g. `probe`.
    """
    return [group for source in page.sources for group in _groups_of_source(page, source, kind)]


@dataclass
class _Open:
    """A group to which members are added."""

    settings: dict[str, Json]
    protocol: str
    members: dict[str, Member]

    @property
    def name(self) -> tuple[str, str]:
        """Mode and protocol."""
        return _mode(self.settings), self.protocol


def _groups_of_source(page: PageInput, source: Source, kind: str) -> list[Group]:
    opened: dict[str, _Open] = {}
    for entry in source.entries:
        if entry.record is None or entry.record.kind != kind:
            continue
        settings, name = settings_of(entry.record), page.own_name(entry)
        key = f"{name}\n{key_of(settings)}"
        group = opened.setdefault(key, _Open(settings, name or title_of(entry.record), {}))
        group.members[entry.model] = Member(entry.model, entry)
    ordered = [opened[key] for key in sorted(opened, key=lambda key: (opened[key].name[0] != "default", key))]
    return [
        Group(
            source.name,
            source.bank,
            kind,
            _mode(own.settings),
            text(own.settings.get("label")),
            own.protocol,
            _seed(own.settings),
            _words(own.settings, [other.settings for other in ordered if other.name == own.name]),
            tuple(_in_order(page, own.members)),
        )
        for own in ordered
    ]


def _mode(settings: dict[str, Json]) -> str:
    return text(settings.get("mode")) or "default"


def _seed(settings: dict[str, Json]) -> int:
    seed = settings.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else 0


def _words(own: dict[str, Json], alike: Sequence[dict[str, Json]]) -> str:
    """Return the settings in which groups of one data set, mode and protocol differ."""
    names = sorted({name for other in alike for name in other if other.get(name) != own.get(name)})
    return ", ".join(words_of(name, own.get(name)) for name in names)


def _in_order(page: PageInput, members: dict[str, Member]) -> Iterator[Member]:
    places = {model: place for place, model in enumerate(page.models)}
    yield from sorted(members.values(), key=lambda one: (places.get(one.model, len(places)), one.model))


def first_seeds(groups: Sequence[Group]) -> tuple[list[Group], str]:
    """Return the groups of the smallest seed of each setting, and a note about the others; "" if none."""
    chosen: dict[tuple[str, ...], Group] = {}
    for group in groups:
        words = [word for word in group.setting.split(", ") if not word.startswith("seed ")]
        key = (group.dataset, group.mode, group.protocol, *words)
        if key not in chosen or group.seed < chosen[key].seed:
            chosen[key] = group
    left_out = len(groups) - len(chosen)
    note = "Only the smallest seed of each setting is drawn; the table of all cells has the others."
    return list(chosen.values()), note if left_out else ""


def having(groups: Sequence[Group], path: str, remedy: str) -> tuple[list[Group], tuple[str, ...]]:
    """Return the groups with the members whose metrics have something, and notes that name the others.

    Args:
        path: dotted, within the metrics.
        remedy: how to make a record that has it.
    """
    return partition(
        groups, lambda record: at(record.metrics, path) is not None, f"no metrics.{path}", remedy
    )


def partition(
    groups: Sequence[Group], fits: Callable[[RunRecord], bool], lack: str, remedy: str
) -> tuple[list[Group], tuple[str, ...]]:
    """Return the groups with the members that fit, and a note for each group about the others.

    Args:
        fits: whether a record can be drawn.
        lack: what others have, for the note.
        remedy: what to do about it.
    """
    with_part, notes = [], []
    for group in groups:
        chosen = tuple(member for member in group.members if fits(member.record))
        others = [member.model for member in group.members if not fits(member.record)]
        if chosen:
            with_part.append(replace(group, members=chosen))
        if others:
            notes.append(f"{group.title}: not drawn of {', '.join(others)}: {lack} in the record. {remedy}.")
    return with_part, tuple(notes)


def looks_for(page: PageInput, models: Sequence[str], best: Iterable[str] = ()) -> dict[str, Look]:
    """Return the look of each model in a chart.

    Where the page has few models, a model looks alike in all charts. Of more than there are colours the
    best ones of a chart are coloured, the others muted.

    Args:
        models: of the chart. best: the best of them first.
    """
    every = _models(page)
    if len(every) <= COLOURS and set(models) <= set(every):
        return {model: Look(every.index(model)) for model in models}
    if len(models) <= COLOURS:
        return {model: Look(place) for place, model in enumerate(models)}
    coloured = [model for model in best if model in models][: COLOURS - 2] or list(models)[: COLOURS - 2]
    return {model: Look(coloured.index(model) if model in coloured else None) for model in models}


def _models(page: PageInput) -> list[str]:
    """Return all models of a page, those that it names first."""
    evaluated = {entry.model for source in page.sources for entry in source.entries} - {""}
    return list(dict.fromkeys((*page.models, *sorted(evaluated))))
