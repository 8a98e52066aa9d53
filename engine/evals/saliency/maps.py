"""Where occlusion maps are kept: one file that vouches for itself for each image, under all that made it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evals.saliency.occluder import Scores
from engine.evals.saliency.stride_error import NUMBERS
from engine.kernels.occlusion import Squares
from stores.backends import files
from stores.backends.location import Place
from stores.bank import array_cache, documents
from stores.bank.layout import SIDE

_FOLDER = "saliency"
#: Numbers of a sample's error, in the order in which they are stored.
_ERROR = ("places", "max_error", "mean_error", "mean_score", "sd_score")


@dataclass(frozen=True)
class Kept:
    """A finished map.

    Attributes:
        map: float64 [M, M].
        error: of a sample of its scores, see `Occluder.score`.
    """

    map: NDArray[np.float64]
    error: dict[str, Any]


class MapFolder:
    """The maps of one model with one set of settings, in a bank's side folder.

    A file that is damaged counts as absent: maps can be made again.

    Args:
        home: the bank, or any folder.
        settings: everything that a map depends on besides the image; JSON values.
    """

    def __init__(self, home: Place, settings: Mapping[str, Any]) -> None:
        self._home, self._settings = home, dict(settings)
        body = {name: value for name, value in settings.items() if name != "model"}
        self.digest = hashlib.sha256(documents.canonical(body)).hexdigest()

    def relative(self, image: str) -> str:
        """Path of a map below the home. Images are known by the SHA-256 of their file."""
        return f"{SIDE}/{self._place(image)}"

    def holds(self, image: str) -> bool:
        """Whether there is a file of a finished map, whole or not."""
        return files.stat_if_there(self._home / self.relative(image)) is not None

    def map_of(self, image: str) -> Kept | None:
        """The finished map of an image, if there is one."""
        found = self._read(self._place(image), self._key(image, "map"))
        if found is None:
            return None
        numbers = dict(zip(_ERROR, found["error"].tolist(), strict=True))
        return Kept(found["map"], numbers | {"places": int(numbers["places"])})

    def keep(self, image: str, kept: Kept) -> Kept:
        """Keep a finished map, if the folder takes it, and drop what was kept of it before."""
        error = np.array([kept.error[name] for name in _ERROR], dtype=np.float64)
        found: dict[str, NDArray[Any]] = {"map": kept.map, "error": error}
        if array_cache.keep(self._home, self._place(image), self._key(image, "map"), found):
            files.remove(self._home / SIDE / self._place(image, ".part"))
        return kept

    def part_of(self, image: str, squares: Squares) -> Scores | None:
        """What there is of a map that is not finished."""
        found = self._read(self._place(image, ".part"), self._key(image, "scores"))
        if found is None or found["values"].shape != (squares.per_axis,) * 2:
            return None
        return Scores(found["values"].copy(), found["done"].astype(np.bool_))

    def keep_part(self, image: str, scores: Scores) -> None:
        """Keep what there is of a map, to go on from, if the folder takes it."""
        found: dict[str, NDArray[Any]] = {
            "values": scores.values,
            "done": scores.done.astype(np.uint8),
        }
        array_cache.keep(self._home, self._place(image, ".part"), self._key(image, "scores"), found)

    def has_any(self, image: str) -> bool:
        """Whether a map of an image is finished or begun."""
        begun = self._home / SIDE / self._place(image, ".part")
        return self.holds(image) or files.stat_if_there(begun) is not None

    def stride_error_of(self, image: str) -> dict[str, Any] | None:
        """What `stride_error` said of a finished map, if it was asked."""
        found = self._read(self._place(image, ".stride"), self._key(image, "stride"))
        if found is None:
            return None
        numbers = dict(zip(NUMBERS, found["error"].tolist(), strict=True))
        return numbers | {"pixels": int(numbers["pixels"])}

    def keep_stride_error(self, image: str, error: Mapping[str, Any]) -> None:
        """Keep what `stride_error` said of a finished map, if the folder takes it."""
        numbers = np.array([error[name] for name in NUMBERS], dtype=np.float64)
        array_cache.keep(
            self._home, self._place(image, ".stride"), self._key(image, "stride"), {"error": numbers}
        )

    def _place(self, image: str, ending: str = "") -> str:
        return f"{_FOLDER}/{self.digest[:12]}/{image[:16]}{ending}.arrays"

    def _key(self, image: str, what: str) -> dict[str, Any]:
        return {**self._settings, "image": image, "what": what}

    def _read(self, place: str, key: dict[str, Any]) -> dict[str, NDArray[Any]] | None:
        try:
            return array_cache.read(self._home, place, key)
        except documents.BrokenDocument:
            return None
