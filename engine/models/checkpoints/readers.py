"""Readers that turn a published file into a state dict of the architecture, one for each kind of container.

A reader selects, renames and permutes tensors; it never guesses. `weights.fit` decides whether the result is
complete: it requires every tensor and no other. Rows of the catalogue contain readers, so torch is imported
only when one reads.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import WeightsError
from engine.models.checkpoints.formats import key_maps
from stores.json_types import Json, JsonObject

if TYPE_CHECKING:
    import torch

#: From kernels [height, width, in, out] of other frameworks to torch's [out, in, height, width].
_TO_TORCH = (3, 2, 0, 1)
#: Endings of the variables that optimisers keep.
_SLOTS = ("/Momentum", "/LARSOptimizer", "/ExponentialMovingAverage", "/Adam", "/Adam_1")


@dataclass(frozen=True)
class Contents:
    """The tensors of a file.

    Attributes:
        tensors: by the architecture's names.
        left_out: names, in the file, of the others.
    """

    tensors: "dict[str, torch.Tensor]"
    left_out: tuple[str, ...] = ()


class Reader(Protocol):
    """A reader of one kind of file."""

    @property
    def container(self) -> str:
        """The kind of file, in words."""
        ...

    def read(self, path: Path) -> Contents:
        """Read the encoder's tensors. Raises WeightsError if the file is not of this kind."""
        ...

    def describe(self) -> JsonObject:
        """Return the mapping as JSON types."""
        ...


@dataclass(frozen=True)
class TorchFile:
    """A PyTorch or safetensors file.

    Attributes:
        key: of the state dict in the file; empty if the file is the state dict.
        prefix: of the encoder's tensors; tensors without it are left out.
        dropped: beginnings, after the prefix, of the head's tensors.
        stand_ins: beginnings of the names of classes that the file may contain, see `weights.read`.
    """

    key: str = ""
    prefix: str = ""
    dropped: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()

    @property
    def container(self) -> str:
        """See `Reader`."""
        return "PyTorch file, " + (f"under `{self.key}`" if self.key else "bare state dict")

    def read(self, path: Path) -> Contents:
        """See `Reader`."""
        from engine.models.checkpoints import weights

        state: Any = weights.read(path, stand_ins=self.stand_ins)
        if self.key:
            state = state.get(self.key)
        if not isinstance(state, Mapping):
            raise _refuse(path, f"has no state dict under {self.key!r}")
        tensors: dict[str, torch.Tensor] = {}
        left_out = []
        for name, value in state.items():
            name = str(name)
            key = name.removeprefix(self.prefix)
            if name.startswith(self.prefix) and not key.startswith(self.dropped):
                tensors[key] = value
            else:
                left_out.append(name)
        if not tensors:
            raise _refuse(path, f"has no tensor that begins with {self.prefix!r}")
        return Contents(tensors, tuple(left_out))

    def describe(self) -> JsonObject:
        """See `Reader`."""
        return {"container": self.container, **_settings(self)}


@dataclass(frozen=True)
class TensorFlowCheckpoint:
    """SimCLR's checkpoint: index and data, in a zip archive or in one folder.

    Attributes:
        pattern: regular expression for the checkpoint's name in the archive, which may contain others.
        blocks: bottleneck blocks of each stage.
    """

    pattern: str = r"model\.ckpt-\d+"
    blocks: tuple[int, ...] = key_maps.RESNET50

    @property
    def container(self) -> str:
        """See `Reader`."""
        return "TensorFlow checkpoint (index and data) in a zip"

    def read(self, path: Path) -> Contents:
        """See `Reader`."""
        import torch

        from engine.models.checkpoints.formats import tf_checkpoint

        keys = key_maps.simclr(self.blocks)
        with tf_checkpoint.open_checkpoint(path, self.pattern) as checkpoint:
            left_out = sorted(set(checkpoint.entries) - set(keys))
            unknown = [n for n in left_out if n.startswith("base_model/") and not n.endswith(_SLOTS)]
            if unknown:
                examples = ", ".join(unknown[:3])
                raise _refuse(path, f"has {len(unknown)} encoder variables too many ({examples})")
            arrays = checkpoint.tensors(keys)
        tensors = {}
        for name, array in arrays.items():
            tensor = torch.tensor(array)
            tensors[keys[name]] = tensor.permute(_TO_TORCH) if tensor.ndim == 4 else tensor
        return Contents(tensors, tuple(left_out))

    def describe(self) -> JsonObject:
        """See `Reader`."""
        dropped: list[Json] = ["head_*", "global_step", *(f"*{slot}" for slot in _SLOTS)]
        settings = _settings(self)
        return {"container": self.container, **settings, "dropped": dropped, "kernels": "HWIO to OIHW"}


@dataclass(frozen=True)
class HaikuPickle:
    """BYOL's checkpoint: a pickle of Haiku parameters and state.

    Attributes:
        blocks: bottleneck blocks of each stage.
    """

    blocks: tuple[int, ...] = key_maps.RESNET50

    @property
    def container(self) -> str:
        """See `Reader`."""
        return "pickle (dill) of Haiku parameters and state"

    def read(self, path: Path) -> Contents:
        """See `Reader`."""
        from engine.models.checkpoints.formats import haiku

        names = key_maps.byol(self.blocks)
        tensors: dict[str, torch.Tensor] = {}
        left_out = []
        for name, tensor in haiku.read(path).items():
            try:
                key = key_maps.byol_key(name, names)
            except KeyError as error:
                raise _refuse(path, f"has an encoder variable too many ({name[:200]})") from error
            if key is None:
                left_out.append(name)
            elif key in tensors:
                raise _refuse(path, f"has two tensors for {key}")
            else:
                tensors[key] = tensor.permute(_TO_TORCH) if key.endswith(_CONVOLUTIONS) else tensor.flatten()
        return Contents(tensors, tuple(sorted(left_out)))

    def describe(self) -> JsonObject:
        """See `Reader`."""
        dropped: list[Json] = [
            "projector", "predictor", "classifier", "target_*", "opt_state", "hidden", "counter",
        ]  # fmt: skip
        settings = _settings(self)
        return {"container": self.container, **settings, "dropped": dropped, "kernels": "HWIO to OIHW"}


_CONVOLUTIONS = ("conv1.weight", "conv2.weight", "conv3.weight", "downsample.0.weight")


def _settings(reader: "TorchFile | TensorFlowCheckpoint | HaikuPickle") -> JsonObject:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(reader).items()}


def _refuse(path: Path, fault: str) -> WeightsError:
    return WeightsError(
        f"{path} {fault}",
        "The file must be the one that the catalogue describes",
        "fetch it again, or see `embank models show`",
    )
