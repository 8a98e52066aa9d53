"""Reading weights safely: digest first, tensors only, and an exact match.

Nothing in a weights file is ever executed, and no layer is left at its random initialisation: a file either
fills every tensor of the architecture with finite numbers of the right shape, and no variance below zero, or
it is refused.
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
from engine.models.checkpoints.files import refuse_other_content, sha256_of, weights_error
from engine.models.checkpoints.formats import stub_classes

#: A buffer that inference does not use, and that files may lack.
_COUNTER = "num_batches_tracked"
_VARIANCE = "running_var"


@dataclass(frozen=True)
class LoadReport:
    """How a file was made to fit.

    Attributes:
        container: keys that led to the state dict, joined by dots; empty for the outermost dict.
        prefix: common prefix that was removed from every key; empty if none.
        dropped: keys of the classifier, which were left out.
        tensors: number of tensors loaded.
    """

    container: str = ""
    prefix: str = ""
    dropped: tuple[str, ...] = ()
    tensors: int = 0


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256, in hex, of name, dtype, shape and bytes of tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read(
    path: Path, sha256: str | None = None, stand_ins: tuple[str, ...] = ()
) -> Mapping[str, torch.Tensor]:
    """Read a weights file: tensors on the CPU, perhaps in a nested dict (see `fit`).

    Args:
        path: `.safetensors`, or a PyTorch file of any other name.
        sha256: expected digest of the file; checked before anything is parsed.
        stand_ins: beginnings of the names of classes that the file may contain besides tensors; inert objects
            take their places (see `engine.models.checkpoints.formats.stub_classes`).

    Raises:
        WeightsError: wrong digest, not a weights file, damaged, or more than tensors and plain containers.
    """
    actual = sha256_of(path)
    if sha256 is not None and actual != sha256.lower():
        raise weights_error(
            path,
            f"has SHA-256 {actual}",
            f"{sha256} was expected: the file is damaged or another one",
            "fetch it again, or choose the model that it belongs to",
        )
    with path.open("rb") as file:
        head = file.read(512)
    refuse_other_content(path, head)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path, head.startswith(b"PK\x03\x04"), stand_ins)


def _read_safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: Mapping[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        if fault := faults.translate(error):  # of the machine; the file may be sound
            raise fault from error
        raise weights_error(
            path, f"is damaged ({_line(error)})", "It must be a whole safetensors file", "fetch it again"
        ) from error
    return tensors


def _read_torch(path: Path, zipped: bool, stand_ins: tuple[str, ...]) -> Mapping[str, torch.Tensor]:
    try:
        allowed = stub_classes.stand_ins(path, stand_ins) if stand_ins else []
        # Namespace is inert (a bag of attributes); MoCo's releases contain one besides their tensors.
        with torch.serialization.safe_globals([argparse.Namespace, *allowed]):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise weights_error(
            path,
            f"holds more than tensors, or is damaged ({_line(error)})",
            "Weights are read without executing anything",
            "fetch it again; if it is whole, save its tensors as .safetensors with the project that made it",
        ) from error
    # Arbitrary bytes make the parser raise EOFError, KeyError, UnicodeError, struct.error and others.
    except Exception as error:
        raise weights_error(
            path, f"cannot be parsed ({_line(error)})", "It must be a whole weights file", "fetch it again"
        ) from error
    if isinstance(loaded, stub_classes.Inert):
        loaded = stub_classes.state_of(loaded)
    if not isinstance(loaded, Mapping):
        raise weights_error(
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
    """Load tensors into a headless module: all of them, or none.

    The state dict may be nested under any keys (`engine.models.checkpoints.state_dict`). Keys of the head are
    dropped, outdated names are updated, and a prefix common to all keys is removed if that gives the exact
    match. Then names and shapes must match exactly (only `num_batches_tracked`, which inference does not use,
    may be absent), all numbers must be finite, and no variance may be below zero.

    Args:
        module: see `architectures.build`; its tensors are overwritten.
        loaded: as `read` returns it.
        head: see `architectures.head_prefixes`.
        where: name of the file, for errors.

    Raises:
        WeightsError: with the first missing, unexpected and misshapen tensors, the non-finite ones, or those
            with variances below zero; or with the contents of the file if it has no state dict, or several.
    """
    target = module.state_dict()

    def arrange(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor] | None:
        names = _current_names(state, _common_prefix(state, target))
        tensors = {names[key]: tensor for key, tensor in state.items() if not names[key].startswith(head)}
        if _misfits(tensors, target):
            return None
        return {name: tensor for name, tensor in tensors.items() if not _is_counter(name)}

    candidate = state_dict.choose(loaded, arrange, set(target), where)
    state, container = _tensors_only(candidate.state, where), candidate.container
    prefix = _common_prefix(state, target)
    names = _current_names(state, prefix)
    dropped = tuple(key for key in state if names[key].startswith(head))
    tensors = {names[key]: state[key] for key in state if key not in set(dropped)}
    if len(tensors) + len(dropped) != len(state):
        raise WeightsError(
            f"{where} names a tensor twice", "Each tensor has one name", "save model.state_dict()"
        )
    if misfits := _misfits(tensors, target):
        raise _misfit_error(misfits, len(target), where, loaded if container else None)
    _refuse_bad_numbers(tensors, target, where)
    with torch.no_grad():
        for name, tensor in tensors.items():
            target[name].copy_(tensor)
    return LoadReport(container, prefix, dropped, len(tensors))


def _current_names(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, str]:
    """Return key in the file -> current name of that tensor, without the prefix."""
    return {key: architectures.current_key(key.removeprefix(prefix)) for key in state}


def _common_prefix(state: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> str:
    """Return the dotted prefix of all keys whose removal gives the architecture's names; else empty."""
    needed = {name for name in target if not _is_counter(name)}
    if not state or needed <= set(_current_names(state, "").values()):
        return ""
    parts = next(iter(state)).split(".")
    for n in range(1, len(parts)):
        prefix = ".".join(parts[:n]) + "."
        if not all(key.startswith(prefix) for key in state):
            return ""
        if needed <= set(_current_names(state, prefix).values()):
            return prefix
    return ""


def _is_counter(name: str) -> bool:
    return name.endswith(_COUNTER)


def _misfits(tensors: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> list[str]:
    """Describe how tensors differ from those of the architecture; empty if they match."""
    missing = [name for name in target if name not in tensors and not _is_counter(name)]
    unexpected = [name for name in tensors if name not in target]
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(target[name].shape)}"
        for name in target
        if name in tensors and tensors[name].shape != target[name].shape
    ]
    return [
        f"{len(names)} {what} ({_few(names)})"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]


def _misfit_error(
    misfits: Sequence[str], tensors: int, where: str, loaded: Mapping[str, object] | None
) -> WeightsError:
    """Return the error for tensors that do not match, with the contents of the file if these are nested."""
    contents = f"; the file holds {state_dict.summarise(loaded)}" if loaded is not None else ""
    return WeightsError(
        f"{where} does not fit the architecture: " + "; ".join(misfits) + contents,
        f"All {tensors} tensors must be there, with their shapes, and no others but the classifier's",
        "choose the architecture that the file was saved from, or convert the file",
    )


def _refuse_bad_numbers(
    tensors: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], where: str
) -> None:
    other_kinds = [
        f"{name} {tensor.dtype}"
        for name, tensor in tensors.items()
        if tensor.device.type != "cpu"
        or tensor.dtype.is_floating_point != target[name].dtype.is_floating_point
        or tensor.dtype.is_complex
        or tensor.is_quantized
    ]
    if other_kinds:
        raise WeightsError(
            f"{where} has tensors of another kind ({_few(other_kinds)})",
            "Weights are floating point numbers",
            "save them as such",
        )
    not_finite = [
        name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.to(torch.float32)).all())
    ]
    if not_finite:
        raise WeightsError(
            f"{where} has NaN or infinite numbers in {len(not_finite)} tensors ({_few(not_finite)})",
            "Every weight must be finite in float32",
            "use an undamaged checkpoint from before the training diverged",
        )
    # Even slightly negative ones: an average of squares is never below zero, so the file is wrong.
    negative = [
        f"{name} {float(tensor.min()):g}"
        for name, tensor in tensors.items()
        if name.endswith(_VARIANCE) and bool((tensor < 0).any())
    ]
    if negative:
        raise WeightsError(
            f"{where} has variances below zero in {len(negative)} tensors ({_few(negative)})",
            "A BatchNorm divides by the square root of its variance, which is zero or more",
            "use an undamaged checkpoint, or mend the conversion that wrote this one",
        )


def _few(names: Iterable[str], n: int = 3) -> str:
    names = list(names)
    return ", ".join(name[:120] for name in names[:n]) + (", ..." if len(names) > n else "")


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
