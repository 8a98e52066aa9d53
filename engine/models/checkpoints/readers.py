"""How a published file becomes a state dict of the architecture: one reader a kind of container.

A reader selects, renames and turns; it never guesses. Whether the result is complete is decided by
`weights.fit`, which demands every tensor and no other. Rows of the catalogue hold readers, so torch is
imported only where one reads.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import WeightsError
from engine.models.checkpoints.formats import key_maps

if TYPE_CHECKING:
    import torch

#: Kernels elsewhere are height, width, in, out; torch's are out, in, height, width.
_TO_TORCH = (3, 2, 0, 1)
_SLOTS = ("/Momentum", "/LARSOptimizer", "/ExponentialMovingAverage", "/Adam", "/Adam_1")


@dataclass(frozen=True)
class Contents:
    """The tensors under the architecture's names, and the names of those that were left out."""

    tensors: "dict[str, torch.Tensor]"
    left_out: tuple[str, ...] = ()


class Reader(Protocol):
    @property
    def container(self) -> str:
        """What kind of file it reads, in words."""
        ...

    def read(self, path: Path) -> Contents:
        """The encoder's tensors; WeightsError where the file is not of this kind."""
        ...

    def describe(self) -> dict[str, Any]:
        """The mapping, as JSON types."""
        ...


@dataclass(frozen=True)
class TorchFile:
    """A PyTorch or safetensors file.

    Attributes:
        key: where the state dict lies in the file; empty for a bare one.
        prefix: of the encoder's tensors; what begins otherwise is left out.
        dropped: beginnings, after the prefix, of the head's tensors.
        stand_ins: beginnings of names of classes that may be there, see `weights.read`.
    """

    key: str = ""
    prefix: str = ""
    dropped: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()

    @property
    def container(self) -> str:
        return "PyTorch file, " + (f"under `{self.key}`" if self.key else "bare state dict")

    def read(self, path: Path) -> Contents:
        from engine.models.checkpoints import weights

        state: Any = weights.read(path, stand_ins=self.stand_ins)
        if self.key:
            state = state.get(self.key)
        if not isinstance(state, Mapping):
            raise _refuse(path, f"has no state dict under {self.key!r}")
        chosen: dict[str, torch.Tensor] = {}
        left_out = []
        for name, value in state.items():
            name = str(name)
            inner = name.removeprefix(self.prefix)
            if name.startswith(self.prefix) and not inner.startswith(self.dropped):
                chosen[inner] = value
            else:
                left_out.append(name)
        if not chosen:
            raise _refuse(path, f"has no tensor that begins with {self.prefix!r}")
        return Contents(chosen, tuple(left_out))

    def describe(self) -> dict[str, Any]:
        return {"container": self.container, **_plain(self)}


@dataclass(frozen=True)
class TensorFlowCheckpoint:
    """SimCLR's checkpoint: index and data, within a zip or beside each other.

    Attributes:
        pattern: regular expression for the checkpoint's name in the zip, which may hold others.
        blocks: bottleneck blocks a stage.
    """

    pattern: str = r"model\.ckpt-\d+"
    blocks: tuple[int, ...] = key_maps.RESNET50

    @property
    def container(self) -> str:
        return "TensorFlow checkpoint (index and data) in a zip"

    def read(self, path: Path) -> Contents:
        import torch

        from engine.models.checkpoints.formats import tf_checkpoint

        names = key_maps.simclr(self.blocks)
        with tf_checkpoint.opened(path, self.pattern) as opened:
            left_out = sorted(set(opened.entries) - set(names))
            stray = [n for n in left_out if n.startswith("base_model/") and not n.endswith(_SLOTS)]
            if stray:
                raise _refuse(path, f"has {len(stray)} encoder variables too many ({', '.join(stray[:3])})")
            arrays = opened.tensors(names)
        found = {}
        for name, array in arrays.items():
            tensor = torch.tensor(array)
            found[names[name]] = tensor.permute(_TO_TORCH) if tensor.ndim == 4 else tensor
        return Contents(found, tuple(left_out))

    def describe(self) -> dict[str, Any]:
        dropped = ["head_*", "global_step", *(f"*{slot}" for slot in _SLOTS)]
        return {"container": self.container, **_plain(self), "dropped": dropped, "kernels": "HWIO to OIHW"}


@dataclass(frozen=True)
class HaikuPickle:
    """BYOL's checkpoint: a pickle of Haiku parameters and state.

    Attributes:
        blocks: bottleneck blocks a stage.
    """

    blocks: tuple[int, ...] = key_maps.RESNET50

    @property
    def container(self) -> str:
        return "pickle (dill) of Haiku parameters and state"

    def read(self, path: Path) -> Contents:
        from engine.models.checkpoints.formats import haiku

        names = key_maps.byol(self.blocks)
        found: dict[str, torch.Tensor] = {}
        left_out = []
        for name, tensor in haiku.read(path).items():
            try:
                key = key_maps.byol_key(name, names)
            except KeyError as error:
                raise _refuse(path, f"has an encoder variable too many ({name[:200]})") from error
            if key is None:
                left_out.append(name)
            elif key in found:
                raise _refuse(path, f"has two tensors for {key}")
            else:
                found[key] = tensor.permute(_TO_TORCH) if key.endswith(_CONVOLUTIONS) else tensor.flatten()
        return Contents(found, tuple(sorted(left_out)))

    def describe(self) -> dict[str, Any]:
        dropped = ["projector", "predictor", "classifier", "target_*", "opt_state", "hidden", "counter"]
        return {"container": self.container, **_plain(self), "dropped": dropped, "kernels": "HWIO to OIHW"}


_CONVOLUTIONS = ("conv1.weight", "conv2.weight", "conv3.weight", "downsample.0.weight")


def _plain(reader: "TorchFile | TensorFlowCheckpoint | HaikuPickle") -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(reader).items()}


def _refuse(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{path} {found}",
        "The file must be the one that the catalogue describes",
        "fetch it again, or see `embank models show`",
    )
