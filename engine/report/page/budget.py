"""How many pictures a page holds: its bytes are shared out over the kinds of galleries, and cut evenly."""

from collections.abc import Callable, Mapping, Sequence

from engine.report.page.blocks import Picture
from engine.report.page.inputs import PageInput, PageOptions

#: Shares of a page's bytes that pictures have at least and at most, and the share that is kept free.
_LEAST, _MOST, _FREE = 0.05, 0.5, 0.05
#: Bytes of tables and charts for each record, about; 3,760 were measured at 1,008 records.
_RECORD = 4_000
#: Kind of gallery -> kinds of records that it is made of.
KINDS: Mapping[str, frozenset[str]] = {
    "saliency": frozenset({"saliency"}),
    "reconstruction": frozenset({"reconstruct"}),
    "invariance": frozenset({"invariance"}),
    "errors": frozenset({"probe", "knn", "finetune"}),
    "neighbours": frozenset({"search", "audit"}),
}
#: Bytes of a picture's markup and texts, about.
_MARKUP = 400

#: Pictures that belong together, made when they are called for.
Group = Callable[[], tuple[Picture, ...]]


def budget_of(kind: str, page: PageInput, options: PageOptions) -> int:
    """Return the bytes for one kind of gallery: an equal share for each that the page can have.

    All together have what the tables and charts of so many records are expected to leave.

    Args:
        kind: a key of `KINDS`.
    """
    records = sum(len(source.entries) for source in page.sources)
    left = (1 - _FREE) * options.max_bytes - _RECORD * records
    together = min(max(left, _LEAST * options.max_bytes), _MOST * options.max_bytes)
    there = {entry.record.kind for source in page.sources for entry in source.entries if entry.record}
    shown = [name for name, kinds in KINDS.items() if kinds & there]
    return int(together / len({*shown, kind}))


def evenly(shelves: Sequence[Sequence[Group]], budget: int) -> list[list[tuple[Picture, ...]]]:
    """Take groups of pictures from all shelves in turn, the first of each first, while they fit.

    A turn that does not fit as a whole is not taken, so that no shelf has more than its share; of a first
    turn that does not fit, as many shelves as do.

    Args:
        shelves: groups in order of importance.
        budget: bytes of all pictures on the page.

    Returns:
        The groups taken, for each shelf.
    """
    taken: list[list[tuple[Picture, ...]]] = [[] for _ in shelves]
    for turn in range(max(map(len, shelves), default=0)):
        made: list[tuple[int, tuple[Picture, ...], int]] = []
        left = budget
        for position, shelf in enumerate(shelves):
            if turn < len(shelf):
                group = shelf[turn]()
                left -= size_of(group)
                if left < 0:
                    break
                made.append((position, group, size_of(group)))
        if left < 0 and turn > 0:
            break
        for position, group, size in made:
            taken[position].append(group)
            budget -= size
        if left < 0:
            break
    return taken


def size_of(pictures: Sequence[Picture]) -> int:
    """Return the bytes that pictures take on a page, where they are written in base64."""
    return sum(
        4 * -(-len(one.data) // 3) + _MARKUP + len(one.title.encode()) + len(one.alt.encode())
        for one in pictures
    )
