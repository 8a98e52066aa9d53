"""Exchange of a committed chunk for another, of which a kill at any moment leaves one.

The old chunk moves to `.embank/FEATURE/replaced`, the new one is committed, the old one goes. Wherever that
is cut off, the next start puts the old one back or drops it.
"""

from stores.backends import files
from stores.backends.location import Place
from stores.bank.layout import FeatureLayout

_MARKER = "marker.json"


def settle(layout: FeatureLayout) -> None:
    """Finish or undo interrupted exchanges. Under the exclusive commit lock only."""
    for folder in files.names(layout.side / "replaced"):
        if not folder.isdecimal():
            continue
        index = int(folder)
        if files.stat_if_there(layout.root / layout.marker(index)) is None:
            _put_back(layout, index)
        drop(layout, index)


def _aside(layout: FeatureLayout, index: int) -> Place:
    return layout.side / f"replaced/{index:06d}"


def set_aside(layout: FeatureLayout, index: int) -> None:
    """Move a chunk away, its marker first: it must never outlive the files that it describes."""
    target = _aside(layout, index)
    files.move(layout.root / layout.marker(index), target / _MARKER)
    for array in layout.arrays:
        files.move(layout.root / layout.chunk_file(array, index), target / array)


def _put_back(layout: FeatureLayout, index: int) -> None:
    """Undo `set_aside`, however much of it was done; the marker last."""
    source = _aside(layout, index)
    names = files.names(source)
    if _MARKER not in names:
        return
    for array in layout.arrays:
        if array in names:
            files.remove(layout.root / layout.chunk_file(array, index))
            files.move(source / array, layout.root / layout.chunk_file(array, index))
    files.move(source / _MARKER, layout.root / layout.marker(index))


def drop(layout: FeatureLayout, index: int) -> None:
    """Remove the old chunk; its marker last, since without it nothing would be put back."""
    folder = _aside(layout, index)
    for name in sorted(files.names(folder), key=lambda name: name == _MARKER):
        files.remove(folder / name)
    files.remove_directory(folder)
