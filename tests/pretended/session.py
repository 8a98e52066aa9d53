"""Put the pretended device in CUDA's place for a while."""

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine import decode
from tests.pretended import device as tensors
from tests.pretended.streams import Device

#: Of the pretended card: compute capability, and bytes in all and free.
CAPABILITY, TOTAL, FREE = (9, 0), 141 << 30, 140 << 30


@contextlib.contextmanager
def pretend(count: int = 1) -> Iterator[Device]:
    """A CUDA device, or several, for this thread and those that start in the body; undone afterwards."""
    torch._C._ensureCUDADeviceGuardSet()  # lets tensors claim the device on a machine without a driver
    device = Device(count)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as undo:
        dispatcher = tensors.Dispatcher(device)
        _patch_cuda(patch, device)
        patch.setattr("engine.runtime.devices._may_have_cuda", lambda: True)  # looks for the driver's files
        available = decode.available_decoders
        patch.setattr(decode, "available_decoders", lambda: {**available(), "dali": "no kernels here"})
        _patch_tensors(patch, dispatcher)
        _patch_threads(patch)
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        undo.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        tensors._current.append(dispatcher)
        undo.callback(tensors._current.remove, dispatcher)
        with _routed():
            yield device


@contextlib.contextmanager
def _routed() -> Iterator[None]:
    """Let the pretended device see what this thread does."""
    # What torch makes from lists and arrays goes to the device where the mode sees it; a thread's own flag.
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with tensors.Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def _patch_cuda(patch: pytest.MonkeyPatch, device: Device) -> None:
    major, minor = CAPABILITY
    facts = SimpleNamespace(
        name="pretended", total_memory=TOTAL, major=major, minor=minor, multi_processor_count=132
    )
    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: True,
        "device_count": lambda: device.count,
        "get_device_capability": lambda of=None: CAPABILITY,
        "get_device_properties": lambda of=None: facts,
        "get_device_name": lambda of=None: facts.name,
        "mem_get_info": lambda of=None: (FREE, TOTAL),
        "max_memory_allocated": lambda of=None: 0,
        "memory_allocated": lambda of=None: 0,
        "memory_reserved": lambda of=None: 0,
        "reset_peak_memory_stats": lambda of=None: None,
        "empty_cache": lambda: None,
        "current_device": device.current_device,
        "set_device": device.set_device,
        "current_stream": device.current_stream,
        "default_stream": device.default_stream,
        "synchronize": device.synchronize,
        "stream": device.stream,
        "Stream": device.Stream,
        "Event": device.Event,
    }
    for name, answer in answers.items():
        patch.setattr(torch.cuda, name, answer)


def _patch_tensors(patch: pytest.MonkeyPatch, dispatcher: tensors.Dispatcher) -> None:
    patch.setattr(torch.Tensor, "is_pinned", lambda self, device=None: dispatcher.pinned(self))
    patch.setattr(torch.Tensor, "pin_memory", lambda self, device=None: dispatcher.pin(self.clone()))


def _patch_threads(patch: pytest.MonkeyPatch) -> None:
    run = threading.Thread.run

    def with_mode(self: threading.Thread) -> None:
        if not tensors._current:  # started in the body, running after it
            return run(self)
        with _routed():
            return run(self)

    patch.setattr(threading.Thread, "run", with_mode)
