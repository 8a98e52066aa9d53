"""View features that stay on the device from the encoder to the cosine, as far as its memory goes.

The bank's copy on disk is written all the same; features of an earlier run are read from it and uploaded,
those of one transform together.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.evals.invariance.view_store import Views, ViewStore
from engine.runtime import free_device_bytes, upload
from engine.runtime.uploads import torch_dtype

if TYPE_CHECKING:
    import torch

#: Share of the device's free memory for features that wait to be scored, and for those of one transform that
#: are scored together.
SHARE = 0.25


class ResidentViews:
    """View features on a device, by transform and row; nothing on the CPU.

    Args:
        store: of the same features in the bank.
        device: `cpu` or `cuda:N`.
    """

    def __init__(self, store: ViewStore, device: str) -> None:
        self._store, self._device = store, device
        self._features: dict[tuple[Views, int], torch.Tensor] = {}
        self._room = self._most = int(SHARE * free_device_bytes(device))

    def add(self, views: Views, row: int, encoded: "torch.Tensor") -> None:
        """Hold the features [views, d] of a row, rounded as the bank's own, unless there is no room for them.

        Args:
            encoded: float32, made on the current stream, where they will be scored, too.
        """
        rounded = np.dtype(self._store.features.key.dtype)
        if encoded.device.type == "cuda" and encoded.numel() * rounded.itemsize <= self._room:
            self._hold(views, row, encoded.to(torch_dtype(rounded)))

    def of_rows(self, views: Views, rows: Sequence[int]) -> Any:
        """Return the features [rows, views, d] of rows that have some, in the bank's dtype.

        Returns:
            A tensor on the device; a numpy array on the CPU, or where the device has no room for all.
        """
        distinct = list(dict.fromkeys(rows))
        size = len(rows) * views.count * self._store.features.dim * 4
        if size > self._most:
            return np.stack([self._read(views, row) for row in rows])
        import torch

        here = {row: self._features[views, row] for row in distinct if (views, row) in self._features}
        missing = [row for row in distinct if row not in here]
        if missing:
            stored = np.stack([self._read(views, row) for row in missing])
            uploaded = upload(stored.reshape(-1, stored.shape[-1]), self._device)
            for row, features in zip(missing, uploaded.view(*stored.shape), strict=True):
                here[row] = features
                if features.nbytes <= self._room:
                    self._hold(views, row, features)
        return torch.stack([here[row] for row in rows])

    def _hold(self, views: Views, row: int, features: "torch.Tensor") -> None:
        self._features[views, row] = features
        self._room -= features.nbytes

    def drop(self, views: Views) -> None:
        """Give back the memory of a transform that has been scored."""
        for key in [key for key in self._features if key[0] == views]:
            self._room += self._features.pop(key).nbytes

    def _read(self, views: Views, row: int) -> "np.ndarray[Any, Any]":
        stored = self._store.read(views, row)
        assert stored is not None  # `make_views` has seen to it
        return stored.features
