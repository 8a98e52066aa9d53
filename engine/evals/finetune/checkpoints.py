"""Checkpoints of a run, from which the same command goes on, and the weights of a finished one.

Each is one safetensors file with a JSON document in its metadata, written under a temporary name, synced and
renamed: a kill or a full disk at any moment leaves the previous file. The document has the SHA-256 of the
tensors and of itself, so that a damaged file counts as absent.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf, isinf
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from engine.evals.finetune.curve import Curve
from engine.evals.finetune.stopping import Stopping
from engine.models.checkpoints.weights import state_sha256
from stores.backends import files
from stores.backends.location import Place
from stores.bank import documents
from stores.bank.layout import SIDE
from stores.errors import MachineFault
from stores.json_types import Json, JsonObject

FOLDER = "finetune"
CHECKPOINT, WEIGHTS, HEAD = "checkpoint.safetensors", "weights.safetensors", "head.safetensors"
#: Member of a file's metadata with the document, and of the document with the digests of the tensors and of
#: its other members.
_MEMBER, _DIGEST, _SEAL = "embank", "tensors_sha256", "document_sha256"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class State:
    """The progress of a run, besides its tensors.

    Attributes:
        step: updates made.
        stopping: the validations as far as stopping depends on them.
        curve: all validations.
        loss_total, loss_count: sum and number of losses since the last one.
        scaler: of fp16's loss scaling.
        failed: row of the manifest -> why it could not be trained on.
        seconds: spent on training, in all processes together.
    """

    step: int = 0
    stopping: Stopping = field(default_factory=lambda: Stopping(3))
    curve: Curve = field(default_factory=Curve)
    loss_total: float = 0.0
    loss_count: int = 0
    scaler: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> JsonObject:
        """Return all fields as JSON values; infinities become None."""
        stopping: JsonObject = {
            name: None if isinstance(value, float) and isinf(value) else value
            for name, value in asdict(self.stopping).items()
        }
        return {
            "step": self.step,
            "stopping": stopping,
            "curve": self.curve.to_dict(),
            "loss_total": self.loss_total,
            "loss_count": self.loss_count,
            "scaler": dict(self.scaler),
            "failed": {str(row): code for row, code in self.failed.items()},
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "State":
        """Read what `to_dict` returned."""
        stopping: dict[str, Any] = dict(body["stopping"])
        for name, infinite in (("best", -inf), ("best_loss", inf)):
            if stopping[name] is None:
                stopping[name] = infinite
        return cls(
            body["step"],
            Stopping(**stopping),
            Curve.from_dict(body["curve"]),
            body["loss_total"],
            body["loss_count"],
            body["scaler"],
            {int(row): code for row, code in body["failed"].items()},
            body["seconds"],
        )


class RunFolder:
    """The files of one run, in a bank's side folder.

    Args:
        home: the bank, or any folder.
        settings: all that the trained weights depend on, as JSON values; their digest names the folder.

    Attributes:
        digest: SHA-256 of the settings.
        relative: path of the folder below the home.
    """

    def __init__(self, home: Place, settings: JsonObject) -> None:
        self.digest = hashlib.sha256(documents.canonical(settings)).hexdigest()
        self.relative = f"{SIDE}/{FOLDER}/{self.digest[:12]}"
        self._home = home

    def path(self, name: str) -> Place:
        """Return the path of a file of the run."""
        return self._home / self.relative / name

    def check_room(self, size: int) -> None:
        """Refuse to start where a checkpoint of so many bytes, and the next beside it, do not fit.

        Raises:
            MachineFault: the disk is too full; nothing was written. Buckets have room.
        """
        local = files.local_path(self._home)
        if local is None:
            return
        needed = size * (1 if files.stat_if_there(self.path(CHECKPOINT)) else 2)
        free = shutil.disk_usage(local).free
        if free < needed:
            raise MachineFault(
                f"{local} has {free / 1e6:,.0f} MB of free space",
                f"Checkpoints take {needed / 1e6:,.0f} MB: the last one stays until the next is written",
                "free space, or choose a bank on another disk, and run the same command again",
            )

    def keep(self, name: str, tensors: Tensors, document: JsonObject) -> None:
        """Write a file in the place of an earlier one, atomically and durably.

        Raises:
            MachineFault: the disk is full or fails; the earlier file stays. BankError: no permission.
        """
        path, temporary = self.path(name), self._home / SIDE / "tmp"
        for folder in (path.parent, temporary):
            files.make_directory(folder)
        files.replace(path, encoded(tensors, document, self.digest), files.temporary(temporary, FOLDER))

    def read(self, name: str) -> tuple[dict[str, torch.Tensor], JsonObject] | None:
        """Read a file and its document; None if it is absent, damaged, or of other settings."""
        data = files.read_if_there(self.path(name))
        return None if data is None else decoded(data, self.digest)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        files.remove(self.path(name))


def encoded(tensors: Tensors, document: JsonObject, run: str) -> bytes:
    """Return a safetensors file of contiguous tensors on the CPU.

    Args:
        document: JSON values for its metadata.
        run: digest of the run's settings.
    """
    body = {**document, "run": run, _DIGEST: state_sha256(tensors)}
    body[_SEAL] = _seal(body)
    metadata = {_MEMBER: json.dumps(body, sort_keys=True)}  # the only one: several have no fixed order
    data: bytes = save(dict(tensors), metadata=metadata)
    return data


def decoded(data: bytes, run: str) -> tuple[dict[str, torch.Tensor], JsonObject] | None:
    """Read what `encoded` returned; None if the bytes are others, or of another run."""
    try:
        tensors: dict[str, torch.Tensor] = load(data)
        document = document_of(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError):
        return None
    sound = (
        document.get("run") == run
        and document.get(_SEAL) == _seal(document)
        and document.get(_DIGEST) == state_sha256(tensors)
    )
    return (tensors, document) if sound else None


def _seal(document: JsonObject) -> str:
    """Return the SHA-256 of a document without its seal."""
    body = {name: value for name, value in document.items() if name != _SEAL}
    return hashlib.sha256(documents.canonical(body)).hexdigest()


def document_of(data: bytes) -> JsonObject:
    """Return the JSON document in a safetensors file's metadata.

    Raises:
        ValueError, KeyError: there is none.
    """
    length = int.from_bytes(data[:8], "little")
    head: Json = json.loads(data[8 : 8 + length])
    metadata = head["__metadata__"] if isinstance(head, dict) else {}
    text = metadata[_MEMBER] if isinstance(metadata, dict) else ""
    body: Json = json.loads(str(text))
    if not isinstance(body, dict):
        raise ValueError("the document is an object")
    return body
