"""Storage of reconstructions: finished ones, and checkpoints of those that are not, in a bank's side folder.

Each file is written atomically and has its own checksum, so that a full disk or a killed process leaves the
last checkpoint whole.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evals.reconstruction.lane import NetworkState
from stores.backends import files
from stores.backends.location import Place
from stores.bank import array_cache, documents
from stores.bank.caches import RECONSTRUCTIONS
from stores.bank.layout import SIDE
from stores.errors import BankError
from stores.json_types import JsonObject


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished reconstruction.

    Attributes:
        image: uint8 [S, S, 3].
        losses: float32 [updates + 1]: before each update, and of the image before it was rounded.
    """

    image: NDArray[np.uint8]
    losses: NDArray[np.float32]


class Store:
    """The reconstructions by one model with one set of settings. A damaged file counts as absent.

    Args:
        home: the bank.
        settings: everything that a reconstruction depends on besides image and seed; JSON values.
    """

    def __init__(self, home: Place, settings: JsonObject) -> None:
        self._home, self._settings = home, dict(settings)
        body = {name: value for name, value in settings.items() if name != "model"}
        self.digest = hashlib.sha256(documents.canonical(body)).hexdigest()

    def relative(self, image: str, seed: int) -> str:
        """Return the path of a reconstruction below the home; images are known by their file's SHA-256."""
        return f"{SIDE}/{self._place(image, seed)}"

    def holds(self, image: str, seed: int) -> bool:
        """Return whether there is a file of a finished reconstruction, damaged or not."""
        return files.stat_if_there(self._home / self.relative(image, seed)) is not None

    def finished(self, image: str, seed: int) -> Finished | None:
        """Read a finished reconstruction, if there is one."""
        arrays = self._read(self._place(image, seed), self._key(image, seed, "reconstruction"))
        return None if arrays is None else Finished(arrays["image"], arrays["losses"])

    def keep(self, image: str, seed: int, finished: Finished) -> None:
        """Store a finished reconstruction, if the bank can be written to, and remove its checkpoint.

        Raises:
            MachineFault: the disk is full or fails.
        """
        if self._write(image, seed, "reconstruction", "", vars(finished)):
            files.remove(self._home / SIDE / self._place(image, seed, ".part"))

    def checkpoint(self, image: str, seed: int) -> NetworkState | None:
        """Read the checkpoint of a reconstruction, if there is one."""
        arrays = self._read(self._place(image, seed, ".part"), self._key(image, seed, "checkpoint"))
        if arrays is None:
            return None
        return NetworkState(int(arrays.pop("step")[0]), **arrays)

    def keep_checkpoint(self, image: str, seed: int, state: NetworkState) -> None:
        """Replace the checkpoint of a reconstruction, if the bank can be written to.

        Raises:
            MachineFault: the disk is full or fails; the checkpoint before is still there.
        """
        arrays = {**asdict(state), "step": np.array([state.step], np.int64)}
        self._write(image, seed, "checkpoint", ".part", arrays)

    def _write(self, image: str, seed: int, what: str, ending: str, arrays: dict[str, Any]) -> bool:
        try:
            array_cache.write(
                self._home, self._place(image, seed, ending), self._key(image, seed, what), arrays
            )
        except BankError:  # it is read-only
            return False
        return True

    def _place(self, image: str, seed: int, ending: str = "") -> str:
        return f"{RECONSTRUCTIONS}/{self.digest[:12]}/{image[:16]}-{seed}{ending}.arrays"

    def _key(self, image: str, seed: int, what: str) -> JsonObject:
        return {**self._settings, "image": image, "seed": seed, "what": what}

    def _read(self, place: str, key: JsonObject) -> dict[str, NDArray[Any]] | None:
        try:
            arrays = array_cache.read(self._home, place, key)
        except documents.BrokenDocument:
            return None
        return None if arrays is None else {name: array.copy() for name, array in arrays.items()}
