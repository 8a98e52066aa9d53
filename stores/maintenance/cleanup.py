"""Clean-up of what a killed or stopped run left of a feature. Under the exclusive commit lock only."""

from stores.backends import files
from stores.backends.location import Place
from stores.bank import documents, exchange
from stores.bank.layout import ARRAYS, ARRAYS_OF, SIDE, FeatureLayout, chunk_file, marker_file
from stores.bank.markers import Marker, committed_chunks, read_marker_if_there


def clean(layout: FeatureLayout) -> list[int]:
    """Remove temporaries and chunk files without marker; quarantine chunks whose marker or sizes are wrong.

    Returns:
        Indices of the chunks that were quarantined.
    """
    remove_temporaries(layout)
    exchange.settle(layout)
    chunks = range(layout.grid.chunks)
    broken = files.each(layout.root, lambda index: _is_broken(layout, index), chunks)
    quarantined = [index for index in chunks if broken[index]]
    for index in quarantined:
        quarantine_chunk(layout.root, layout.name, index)
    _remove_unmarked(layout)
    return quarantined


def remove_temporaries(layout: FeatureLayout) -> None:
    """Remove what commits of this feature left under temporary names."""
    folder = layout.root / SIDE / "tmp"
    for name in files.names(folder):
        if name.rpartition(files.TEMP_MARK)[0] in (layout.name, f"{layout.name}.stamps"):
            files.remove(folder / name)


def first_damaged(layout: FeatureLayout) -> int | None:
    """Find the first chunk without marker, or whose marker or sizes are wrong; None if there is none."""
    present = set(committed_chunks(layout))

    def is_damaged(index: int) -> bool:
        return index not in present or _is_broken(layout, index)

    damaged = files.each(layout.root, is_damaged, range(layout.grid.chunks))
    return damaged.index(True) if True in damaged else None


def _is_broken(layout: FeatureLayout, index: int) -> bool:
    """Return whether a chunk's marker cannot be right. Contents are checked at the seal."""
    path = layout.root / layout.marker(index)
    try:
        marker = read_marker_if_there(path)
    except documents.BrokenDocument:
        return True
    return marker is not None and not marker_fits(layout, index, marker)


def marker_fits(layout: FeatureLayout, index: int, marker: Marker) -> bool:
    """Return whether a marker is this chunk's and the chunk's files have the sizes that it gives."""
    if marker["schema"] != layout.version or marker["feature"] != layout.key.digest:
        return False
    if not marker_names_chunk(layout.name, index, marker):
        return False
    states = {path: files.stat_if_there(layout.root / path) for path in marker["files"]}
    return all(
        state is not None and state.st_size == marker["files"][path]["size"] for path, state in states.items()
    )


def marker_names_chunk(feature: str, index: int, marker: Marker) -> bool:
    """Return whether a marker names this chunk's files and no others."""
    wanted = {chunk_file(feature, array, index) for array in ARRAYS_OF[marker["schema"]]}
    digest = feature.rpartition(".")[2]
    return (
        marker["feature"].startswith(digest) and marker["chunk"] == index and set(marker["files"]) == wanted
    )


def quarantine_chunk(root: Place, feature: str, index: int) -> None:
    """Move a chunk's marker and files aside, the marker first: it must never outlive its files."""
    target = files.temporary(root / SIDE / "quarantine", feature)
    for path in (marker_file(feature, index), *(chunk_file(feature, array, index) for array in ARRAYS)):
        quarantine_file(root, path, target)


def quarantine_file(root: Place, relative: str, target: Place) -> None:
    """Move one file into a folder of the quarantine, flat, if it exists."""
    if files.stat_if_there(root / relative) is not None:
        files.move(root / relative, target / relative.replace("/", "!"))


def _remove_unmarked(layout: FeatureLayout) -> None:
    """Remove chunk files without a marker, since they may be incomplete."""
    marked = set(files.names(layout.root / SIDE / layout.name / "markers"))
    for array in ARRAYS:
        folder = layout.root / layout.name / array / "c"
        for name in files.names(folder):
            if name.isdecimal() and f"{int(name):06d}.json" not in marked:
                files.remove(layout.root / layout.chunk_file(array, int(name)))
