"""What galleries of images have in common: who may see them, how they are cut, and placeholders."""

from collections.abc import Callable, Sequence

from engine.report.page.blocks import Block, Gallery, Paragraph, Picture
from engine.report.page.budget import Group, evenly
from engine.report.page.thumbnails import NoPicture, Pixels, jpeg, placeholder


def privacy_note(what: str) -> Paragraph:
    """Say that pictures and image ids are left out, and how to get them.

    Args:
        what: is left out, e.g. `Maps over the images`.
    """
    return Paragraph(
        f"{what} are left out, with the images' ids: patients may be recognised by them. "
        "`embank report` with --thumbnails shows them.",
        tone="note",
    )


def picture_of(title: str, make: Callable[[], Pixels], alt: str) -> Picture:
    """Return a thumbnail, or a placeholder with the reason why there is none."""
    try:
        return jpeg(title, make(), alt)
    except NoPicture as reason:
        return placeholder(title, str(reason))


def cut_galleries(
    id: str,
    shelves: Sequence[tuple[str, Sequence[tuple[str, Group]]]],
    budget: int,
    unit: str,
    *,
    joined: bool = False,
) -> list[Block]:
    """Return galleries that fit into a budget, cut evenly, and a note of what is left out.

    Args:
        id: of the galleries, to which a number is added.
        shelves: title of a shelf -> title and pictures of its groups.
        budget: bytes.
        unit: what a group is, e.g. `images`.
        joined: one gallery a shelf, instead of one a group.
    """
    taken = evenly([[group for _, group in groups] for _, groups in shelves], budget)
    blocks: list[Block] = []
    for position, ((shelf, groups), made) in enumerate(zip(shelves, taken, strict=True), start=1):
        if joined:
            pictures = tuple(picture for group in made for picture in group)
            blocks += [Gallery(f"{id}-{position}", shelf, pictures)] if pictures else []
            continue
        for number, ((title, _), group) in enumerate(zip(groups, made, strict=False), start=1):
            blocks.append(Gallery(f"{id}-{position}-{number}", f"{shelf}: {title}", group))
    wanted, shown = sum(len(groups) for _, groups in shelves), sum(map(len, taken))
    if shown < wanted:
        blocks.append(
            Paragraph(
                f"{wanted - shown:,} of {wanted:,} {unit} are left out, evenly, to keep the page small.",
                tone="note",
            )
        )
    return blocks
