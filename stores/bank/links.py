"""A bank stays inside its own directory: no folder of it is a link that leads elsewhere.

A bank from elsewhere may hold any files. One link among its folders, and reading or mending it would read,
write or remove what lies where the link leads. That the whole bank is reached by a link is its owner's
choice, and hard links are files like any other. Single files are checked when they are opened
(`stores.backends.disk`).
"""

from stores.backends.location import Place
from stores.backends.registry import backend_of
from stores.bank.layout import SIDE, is_feature_name
from stores.errors import PathRefused

#: Names at the top of a bank, besides those of its features.
_OWN = (SIDE, "records")
#: Folder with a folder for each chunk, whose only file is checked when it is opened.
_CHUNKS = "c"


def refuse_links(root: Place) -> None:
    """Refuse links among the names at the top of a bank.

    Raises:
        PathRefused: one that the bank itself would use is a link.
    """
    backend = backend_of(root)
    link = backend.link_in(root, lambda name: name in _OWN or is_feature_name(name))
    link = link or backend.link_in(root / SIDE, lambda name: True)
    if link is not None:
        raise refused(link)


def refuse_feature_links(root: Place, feature: str) -> None:
    """Refuse links among the folders of a feature.

    Raises:
        PathRefused: one is a link, or chunk files or markers are.
    """
    backend = backend_of(root)
    for folder in (root / feature, root / SIDE / feature):
        link = backend.link_below(folder, (_CHUNKS,))
        if link is not None:
            raise refused(link)


def refused(path: Place) -> PathRefused:
    """Return the error for a link inside a bank."""
    return PathRefused(
        f"{path} is a link",
        "A bank holds its own files, and no links that lead elsewhere; the whole bank may be linked to",
        "put what it leads to in its place if you trust it, or remove the link and run `embank bank verify`",
    )
