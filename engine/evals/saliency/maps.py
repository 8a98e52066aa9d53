"""Storage of occlusion maps: one file with its own checksum for each image, under a key of all its inputs."""

import hashlib
from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.evals.saliency.errors import SampleError, StrideError
from engine.evals.saliency.occluder import Scores
from engine.kernels.occlusion import Squares
from stores.backends import files
from stores.backends.location import Place
from stores.bank import array_cache, documents
from stores.bank.layout import SIDE
from stores.json_types import JsonObject

Arrays: TypeAlias = dict[str, NDArray[Any]]

_FOLDER = "saliency"


@dataclass(frozen=True)
class OcclusionMap:
    """A finished map.

    Attributes:
        map: float64 [M, M].
        error: of a sample of its scores.
    """

    map: NDArray[np.float64]
    error: SampleError


class MapFolder:
    """The maps of one model with one set of settings, in a bank's side folder.

    A file that is damaged counts as absent: maps can be made again.

    Args:
        home: the bank, or any folder.
        settings: everything that a map depends on besides the image; JSON values.
    """

    def __init__(self, home: Place, settings: JsonObject) -> None:
        self._home, self._settings = home, dict(settings)
        body = {name: value for name, value in settings.items() if name != "model"}
        self.digest = hashlib.sha256(documents.canonical(body)).hexdigest()

    def relative(self, image: str) -> str:
        """Return the path of a map below the home. Images are known by the SHA-256 of their file."""
        return f"{SIDE}/{self._place(image)}"

    def holds(self, image: str) -> bool:
        """Return whether there is a file of a finished map, damaged or not."""
        return files.stat_if_there(self._home / self.relative(image)) is not None

    def map_of(self, image: str) -> OcclusionMap | None:
        """Read the finished map of an image, if there is one."""
        arrays = self._read(self._place(image), self._key(image, "map"))
        if arrays is None:
            return None
        places, *errors = arrays["error"].tolist()
        return OcclusionMap(arrays["map"], SampleError(int(places), *errors))

    def keep(self, image: str, finished: OcclusionMap) -> OcclusionMap:
        """Store a finished map, if the folder is writable, and remove its unfinished part."""
        error = np.array(astuple(finished.error), dtype=np.float64)  # the order of the fields is the file's
        arrays: Arrays = {"map": finished.map, "error": error}
        if array_cache.keep(self._home, self._place(image), self._key(image, "map"), arrays):
            files.remove(self._home / SIDE / self._place(image, ".part"))
        return finished

    def part_of(self, image: str, squares: Squares) -> Scores | None:
        """Read the finished part of a map that was interrupted."""
        arrays = self._read(self._place(image, ".part"), self._key(image, "scores"))
        if arrays is None or arrays["values"].shape != (squares.per_axis,) * 2:
            return None
        return Scores(arrays["values"].copy(), arrays["done"].astype(np.bool_))

    def keep_part(self, image: str, scores: Scores) -> None:
        """Store a map's finished part, to resume from, if the folder is writable."""
        arrays: Arrays = {"values": scores.values, "done": scores.done.astype(np.uint8)}
        array_cache.keep(self._home, self._place(image, ".part"), self._key(image, "scores"), arrays)

    def has_any(self, image: str) -> bool:
        """Return whether a map of an image is finished or begun."""
        begun = self._home / SIDE / self._place(image, ".part")
        return self.holds(image) or files.stat_if_there(begun) is not None

    def stride_error_of(self, image: str) -> StrideError | None:
        """Read the stride error of a finished map, if it was measured."""
        arrays = self._read(self._place(image, ".stride"), self._key(image, "stride"))
        if arrays is None:
            return None
        pixels, *errors = arrays["error"].tolist()
        return StrideError(int(pixels), *errors)

    def keep_stride_error(self, image: str, error: StrideError) -> None:
        """Store the stride error of a finished map, if the folder is writable."""
        numbers = np.array(astuple(error), dtype=np.float64)
        array_cache.keep(
            self._home, self._place(image, ".stride"), self._key(image, "stride"), {"error": numbers}
        )

    def _place(self, image: str, ending: str = "") -> str:
        return f"{_FOLDER}/{self.digest[:12]}/{image[:16]}{ending}.arrays"

    def _key(self, image: str, what: str) -> JsonObject:
        return {**self._settings, "image": image, "what": what}

    def _read(self, place: str, key: JsonObject) -> Arrays | None:
        try:
            return array_cache.read(self._home, place, key)
        except documents.BrokenDocument:
            return None
