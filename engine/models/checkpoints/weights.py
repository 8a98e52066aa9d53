"""Reading weights safely: digest first, tensors only, and an exact match, or a WeightsError.

Nothing in a weights file is ever executed, and no layer is ever left at its random initialisation: a file
either fills every tensor of the architecture with finite numbers of the right shape, no variance below zero,
or it is refused.
"""

import argparse
import hashlib
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine import faults
from engine.errors import WeightsError
from engine.models.backbones import architectures
from engine.models.checkpoints import state_dict
from engine.models.checkpoints.files import refuse, refuse_impostors, sha256_of
from engine.models.checkpoints.formats import stub_classes

_NOT_COUNTED = "num_batches_tracked"
_VARIANCE = "running_var"


@dataclass(frozen=True)
class LoadReport:
    """What was done to make a file fit.

    Attributes:
        container: key under which the state dict lay, several joined by dots; empty for a bare one.
        prefix: uniform prefix that was removed from every key; empty for none.
        dropped: keys of the classifier that were left out.
        tensors: number of tensors loaded.
    """

    container: str = ""
    prefix: str = ""
    dropped: tuple[str, ...] = ()
    tensors: int = 0


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Digest of tensors in memory: SHA-256 over name, dtype, shape and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read(
    path: Path, sha256: str | None = None, stand_ins: tuple[str, ...] = ()
) -> Mapping[str, torch.Tensor]:
    """The tensors of a weights file (possibly inside a container, see `fit`), on the CPU.

    Args:
        path: `.safetensors`, or a PyTorch file of any other name.
        sha256: what the whole file must hash to; checked before anything is parsed.
        stand_ins: beginnings of the names of classes that may stand beside the tensors; inert objects are put
            in their places (see `engine.models.checkpoints.formats.stub_classes`).

    Raises:
        WeightsError: wrong digest, not a weights file, damaged, or more than tensors and plain containers.
    """
    found = sha256_of(path)
    if sha256 is not None and found != sha256.lower():
        raise refuse(
            path,
            f"has SHA-256 {found}",
            f"{sha256} was expected: the file is damaged or another one",
            "fetch it again, or choose the model that it belongs to",
        )
    with path.open("rb") as file:
        head = file.read(512)
    refuse_impostors(path, head)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path, head.startswith(b"PK\x03\x04"), stand_ins)


def _read_safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: Mapping[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        if fault := faults.translate(error):  # the file may be as good as can be
            raise fault from error
        raise refuse(
            path, f"is damaged ({_line(error)})", "It must be a whole safetensors file", "fetch it again"
        ) from error
    return tensors


def _read_torch(path: Path, zipped: bool, stand_ins: tuple[str, ...]) -> Mapping[str, torch.Tensor]:
    try:
        allowed = stub_classes.stand_ins(path, stand_ins) if stand_ins else []
        # Namespace is inert (a bag of attributes); MoCo's releases hold one beside their tensors.
        with torch.serialization.safe_globals([argparse.Namespace, *allowed]):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise refuse(
            path,
            f"holds more than tensors, or is damaged ({_line(error)})",
            "Weights are read without executing anything",
            "fetch it again; if it is whole, save its tensors as .safetensors with the project that made it",
        ) from error
    except (
        Exception
    ) as error:  # the parser meets arbitrary bytes: EOFError, KeyError, UnicodeError, struct.error, ...
        raise refuse(
            path, f"cannot be parsed ({_line(error)})", "It must be a whole weights file", "fetch it again"
        ) from error
    if isinstance(loaded, stub_classes.Inert):
        loaded = stub_classes.state_of(loaded)
    if not isinstance(loaded, Mapping):
        raise refuse(
            path,
            f"holds a {type(loaded).__name__}",
            "A state dict (name -> tensor) is needed",
            "save model.state_dict()",
        )
    return loaded


def _tensors_only(state: Mapping[str, object], where: str) -> dict[str, torch.Tensor]:
    for name, value in state.items():
        if (
            not isinstance(name, str)
            or not isinstance(value, torch.Tensor)
            or value.layout is not torch.strided
        ):
            raise WeightsError(
                f"{where} has {type(value).__name__} under {str(name)[:80]!r}",
                "A state dict maps names to dense tensors",
                "save model.state_dict()",
            )
    return dict(state)  # type: ignore[arg-type]


def fit(
    module: nn.Module, loaded: Mapping[str, object], head: tuple[str, ...], where: str = "The weights file"
) -> LoadReport:
    """Load tensors into a headless module, all or nothing.

    The state dict may lie under any key (`engine.models.checkpoints.state_dict`). Keys of the head are
    dropped, known old spellings are converted, and one prefix that every key carries may be removed when that
    gives the exact match. Then names and shapes must match exactly (`num_batches_tracked`, which inference
    does not use, may be absent), all numbers must be finite, and no variance below zero.

    Args:
        module: see `architectures.build`; its tensors are overwritten.
        loaded: what `read` gave.
        head: see `architectures.head_prefixes`.
        where: how to name the source in errors.

    Raises:
        WeightsError: listing the first missing, unexpected and misshapen tensors, the non-finite ones, or
            those with variances below zero; or what the file holds, where that is no state dict or several.
    """
    target = module.state_dict()

    def arranged(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor] | None:
        names = _final_names(state, _uniform_prefix(state, target))
        found = {names[key]: tensor for key, tensor in state.items() if not names[key].startswith(head)}
        return None if _misfits(found, target) else {k: v for k, v in found.items() if not _uncounted(k)}

    chosen = state_dict.choose(loaded, arranged, set(target), where)
    state, container = _tensors_only(chosen.state, where), chosen.container
    prefix = _uniform_prefix(state, target)
    names = _final_names(state, prefix)
    dropped = tuple(key for key in state if names[key].startswith(head))
    found = {names[key]: state[key] for key in state if key not in set(dropped)}
    if len(found) + len(dropped) != len(state):
        raise WeightsError(
            f"{where} names a tensor twice", "Each tensor has one name", "save model.state_dict()"
        )
    if misfits := _misfits(found, target):
        raise _misfit(misfits, len(target), where, loaded if container else None)
    _demand_numbers(found, target, where)
    with torch.no_grad():
        for name, tensor in found.items():
            target[name].copy_(tensor)
    return LoadReport(container, prefix, dropped, len(found))


def _final_names(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, str]:
    """Key in the file -> today's name of that tensor."""
    return {key: architectures.current_key(key.removeprefix(prefix)) for key in state}


def _uniform_prefix(state: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> str:
    """The dotted prefix that all keys share and that hides the architecture's names, else nothing."""
    needed = {name for name in target if not _uncounted(name)}
    if not state or needed <= set(_final_names(state, "").values()):
        return ""
    parts = next(iter(state)).split(".")
    for n in range(1, len(parts)):
        prefix = ".".join(parts[:n]) + "."
        if not all(key.startswith(prefix) for key in state):
            return ""
        if needed <= set(_final_names(state, prefix).values()):
            return prefix
    return ""


def _uncounted(name: str) -> bool:
    return name.endswith(_NOT_COUNTED)


def _misfits(found: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> list[str]:
    """In what tensors differ from those of the architecture; nothing where they match."""
    missing = [name for name in target if name not in found and not _uncounted(name)]
    extra = [name for name in found if name not in target]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(target[name].shape)}"
        for name in target
        if name in found and found[name].shape != target[name].shape
    ]
    return [
        f"{len(names)} {what} ({_few(names)})"
        for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
        if names
    ]


def _misfit(
    misfits: Sequence[str], tensors: int, where: str, loaded: Mapping[str, object] | None
) -> WeightsError:
    """What to raise about tensors that do not match; `loaded` is a file in which they lie under a key."""
    inside = f"; the file holds {state_dict.holds(loaded)}" if loaded is not None else ""
    return WeightsError(
        f"{where} does not fit the architecture: " + "; ".join(misfits) + inside,
        f"All {tensors} tensors must be there, with their shapes, and no others but the classifier's",
        "choose the architecture that the file was saved from, or convert the file",
    )


def _demand_numbers(
    found: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], where: str
) -> None:
    kinds = [
        f"{name} {tensor.dtype}"
        for name, tensor in found.items()
        if tensor.device.type != "cpu"
        or tensor.dtype.is_floating_point != target[name].dtype.is_floating_point
        or tensor.dtype.is_complex
        or tensor.is_quantized
    ]
    if kinds:
        raise WeightsError(
            f"{where} has tensors of another kind ({_few(kinds)})",
            "Weights are floating point numbers",
            "save them so",
        )
    bad = [name for name, tensor in found.items() if not bool(torch.isfinite(tensor.to(torch.float32)).all())]
    if bad:
        raise WeightsError(
            f"{where} has NaN or infinite numbers in {len(bad)} tensors ({_few(bad)})",
            "Every weight must be finite in float32",
            "use an undamaged checkpoint from before the training diverged",
        )
    # However small: no average of squares is below zero, so the file is damaged or wrongly converted.
    below = [
        f"{name} {float(tensor.min()):g}"
        for name, tensor in found.items()
        if name.endswith(_VARIANCE) and bool((tensor < 0).any())
    ]
    if below:
        raise WeightsError(
            f"{where} has variances below zero in {len(below)} tensors ({_few(below)})",
            "A BatchNorm divides by the square root of its variance, which is zero or more",
            "use an undamaged checkpoint, or mend the conversion that wrote this one",
        )


def _few(names: Iterable[str], n: int = 3) -> str:
    names = list(names)
    return ", ".join(name[:120] for name in names[:n]) + (", ..." if len(names) > n else "")


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
