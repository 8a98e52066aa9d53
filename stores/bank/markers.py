"""Which chunks of a feature are done: those that have a marker."""

from stores.backends import files
from stores.bank.layout import FeatureLayout


def committed_chunks(layout: FeatureLayout) -> list[int]:
    """Indices of the chunks with a marker, ascending; by one listing, markers are not read."""
    names = set(files.names(layout.side / "markers"))
    return [index for index in range(layout.grid.chunks) if f"{index:06d}.json" in names]


def missing_chunks(layout: FeatureLayout) -> list[int]:
    """Indices of the chunks without marker, ascending."""
    committed = set(committed_chunks(layout))
    return [index for index in range(layout.grid.chunks) if index not in committed]
