"""Matrices of features that stay on a device for all evaluations of this process.

Embeddings of a sealed feature never change: a copy is found again by the digest of its seal, whoever opens
the bank. The least recently used copies are dropped where another does not fit, and `release_resident` drops
all; the memory is free once no evaluation uses it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.runtime.bank_uploads import upload_embeddings
from engine.runtime.devices import free_device_bytes, release_cached
from engine.runtime.streams import DeviceEvent

if TYPE_CHECKING:
    import torch

    from stores.bank.reader import FeatureSet

#: Share of the memory that an evaluation may take, or of a device's free memory, for resident features; the
#: rest is for its work.
SHARE = 0.5

#: Bank, digest of the feature's key, digest of its seal, device.
_Key = tuple[str, str, str, str]
_cache: OrderedDict[_Key, "torch.Tensor"] = OrderedDict()
#: Held while the cache is used, and while a copy is made: a second evaluation waits for it.
_lock = threading.RLock()


def resident_embeddings(
    features: "FeatureSet", device: str, memory: int | None = None
) -> "torch.Tensor | None":
    """Return all embeddings of a feature on a device, uploaded unless they are there.

    Args:
        features: a sealed feature.
        device: `cuda:N`.
        memory: bytes that the evaluation may take; None for what is free.

    Returns:
        [N, d] in their stored precision, shared: not to be written to. None where they take more than `SHARE`
        of `memory` or of the device's free memory.

    Raises:
        BankError: a chunk is missing or damaged. MachineFault: the storage or the device fails.
    """
    key = _key(features, device)
    with _lock:
        needed = features.array.nbytes
        if memory is not None and needed > SHARE * memory:
            return None
        if key not in _cache:
            if not _make_room(needed, device):
                return None
            _cache[key] = upload_embeddings(features, device)
        _cache.move_to_end(key)
        return _used_here(_cache[key])


def resident_copy(
    copies: "dict[str, torch.Tensor]",
    nbytes: int,
    device: str,
    memory: int | None,
    copy: "Callable[[], torch.Tensor]",
) -> "torch.Tensor | None":
    """Return the copy of another array on a device, made unless it is there; None as above.

    Args:
        copies: the owner's, by device.
        nbytes: that a copy takes.
        memory: as for `resident_embeddings`.
        copy: makes it.
    """
    with _lock:
        if memory is not None and nbytes > SHARE * memory:
            return None
        if device not in copies:
            if not _make_room(nbytes, device):
                return None
            copies[device] = copy()
            DeviceEvent(device).wait()  # other streams may use it next
        return _used_here(copies[device])


def release_resident(device: str | None = None) -> None:
    """Drop the copies on a device, or on all; the memory is free once nobody else uses them."""
    with _lock:
        for key in [key for key in _cache if device in (None, key[3])]:
            del _cache[key]
            release_cached(key[3])


def _used_here(copy: "torch.Tensor") -> "torch.Tensor":
    """Say that the current stream uses a copy: its memory is not given to others before that has ended."""
    import torch

    copy.record_stream(torch.cuda.current_stream(copy.device))
    return copy


def _make_room(needed: int, device: str) -> bool:
    """Drop copies until a new one fits; False, with none dropped, where even that does not help."""
    ours = [key for key in _cache if key[3] == device]
    free = free_device_bytes(device)
    if needed > SHARE * (free + sum(_cache[key].nbytes for key in ours)):
        return False
    for key in ours:
        if needed <= SHARE * free_device_bytes(device):
            break
        del _cache[key]
    return needed <= SHARE * free_device_bytes(device)


def _key(features: "FeatureSet", device: str) -> _Key:
    return str(features.bank.path), features.key.digest, features.seal_digest, device
