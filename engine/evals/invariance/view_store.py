"""Features of transformed images in a bank: one file for all views of one image under one transform.

A file's key names everything that the features depend on, so that it is reused only for what it is.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.kernels.transforms import Parameters
from stores.bank import array_cache, documents
from stores.bank.reader import FeatureSet
from stores.json_types import JsonObject

BatchNorm = Literal["eval", "train"]
#: Version of the views, part of every key: raised whenever their pixels or features change.
VERSION = 1
#: Name for the image itself, with which its views are compared.
REFERENCE = "reference"


@dataclass(frozen=True)
class Views:
    """One transform's views, the same for every image.

    Attributes:
        transform: a name of `engine.kernels.transforms`, or `REFERENCE`.
        parameters: one entry a view.
        published: transform the full-size picture, then resize and crop; else transform the pixels that the
            bank's recipe renders.
        batch_norm: `train` normalises each image's views by their own statistics.
    """

    transform: str
    parameters: tuple[Parameters, ...] = ()
    published: bool = False
    batch_norm: BatchNorm = "eval"

    @property
    def count(self) -> int:
        """Number of views of an image."""
        return len(self.parameters) or 1


@dataclass(frozen=True)
class ViewFeatures:
    """View features of one image.

    Attributes:
        features: [views, d] in the bank's dtype; no views where the image is grey and the transform changes
            colours alone.
        grey: whether the image has no colour.
    """

    features: NDArray[Any]
    grey: bool


class ViewStore:
    """View features in a bank, under `views` in its side folder. They may be deleted at any time.

    Args:
        features: whose backbone they come from.

    Attributes:
        damaged: broken files, which are made again.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.damaged: list[str] = []
        self._in_memory: dict[str, ViewFeatures] = {}  # not in the bank: unwritable, or held
        self._held: dict[str, tuple[Views, int]] | None = None

    def hold(self) -> None:
        """Keep new view features in memory until `release`."""
        self._held = {}

    def release(self) -> None:
        """Write to the bank what has been held in memory."""
        held, self._held = self._held or {}, None
        for path, (views, row) in held.items():
            self._put(path, views, row, self._in_memory.pop(path))

    def _key(self, views: Views, row: int) -> JsonObject:
        return {
            "version": VERSION,
            "feature": self.features.key.digest,
            "transform": views.transform,
            "parameters": [list(values) for values in views.parameters],
            "published": views.published,
            "batch_norm": views.batch_norm,
            "row": row,
        }

    def _path(self, views: Views, row: int) -> str:
        body = {**self._key(views, row), "row": None}
        digest = hashlib.sha256(documents.canonical(body)).hexdigest()[:12]
        return f"views/{self.features.name}/{views.transform}.{digest}/{row:08d}.arrays"

    def read(self, views: Views, row: int) -> "ViewFeatures | None":
        """Read the views of a row; None if they are missing or damaged."""
        path = self._path(views, row)
        if path in self._in_memory:
            return self._in_memory[path]
        try:
            arrays = array_cache.read(self.features.bank.path, path, self._key(views, row))
        except documents.BrokenDocument:
            if path not in self.damaged:
                self.damaged.append(path)
            return None
        return None if arrays is None else ViewFeatures(arrays["features"], bool(arrays["grey"]))

    def write(self, views: Views, row: int, encoded: NDArray[np.float32], grey: bool) -> None:
        """Store the features [views, d], rounded as the bank's own; in memory if the bank is not writable."""
        path, features = self._path(views, row), ViewFeatures(encoded.astype(self.features.key.dtype), grey)
        if self._held is None:
            self._put(path, views, row, features)
        else:
            self._in_memory[path], self._held[path] = features, (views, row)

    def _put(self, path: str, views: Views, row: int, features: ViewFeatures) -> None:
        arrays = {"features": features.features, "grey": np.array(features.grey, np.uint8)}
        if not array_cache.keep(self.features.bank.path, path, self._key(views, row), arrays):
            self._in_memory[path] = features
