"""Faults of memory and device by the libraries' own messages; mistakes of a program stay what they are."""

# ruff: noqa: E501 - messages as they come
import errno
import pickle

import numpy as np
import pytest
import torch

from engine import faults
from engine.errors import DeviceLost, MachineFault, OutOfMemory, Refused
from engine.runtime import device_faults

TORCH_OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which 1.06 GiB "
    "is free. Including non-PyTorch memory, this process has 138.73 GiB memory in use."
)
ILLEGAL = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported "
    "at some other API call, so the stacktrace below might be incorrect.\nFor debugging consider passing "
    "CUDA_LAUNCH_BLOCKING=1"
)
#: As torch 2.15, DALI 2.4, FAISS 1.15, RAFT and RMM 26.10, cupy, NVML and Triton word them.
MEMORY_OF_DEVICE = [
    torch.OutOfMemoryError(TORCH_OOM),
    RuntimeError(TORCH_OOM),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError(
        "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory(const faiss::gpu::AllocRequest&) "
        "at StandardGpuResources.cpp:570: Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc fail type "
        "FlatData dev 0 space Device stream 0x0 size 8589934592 bytes (cudaMalloc error out of memory [2])"
    ),
    MemoryError(
        "std::bad_alloc: out_of_memory: CUDA error (failed to allocate 17179869184 bytes) at: "
        "/rmm/include/rmm/mr/cuda_memory_resource.hpp"
    ),
    RuntimeError("Critical error in pipeline:\nError in MIXED operator `nvidia.dali.fn.decoders.image`:\n"
                 "CUDA allocation failed\nCurrent pipeline object is no longer valid."),
    RuntimeError("CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY (2):\nout of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    type("OutOfMemoryError", (MemoryError,), {"__module__": "cupy.cuda.memory"})("Out of memory allocating 4,096 bytes (allocated so far: 0 bytes)."),
]  # fmt: skip
MEMORY_OF_HOST = [
    MemoryError(),
    MemoryError(
        "Unable to allocate 512. TiB for an array with shape (70368744177664,) and data type float64"
    ),
    MemoryError("std::bad_alloc"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 281474976710656 bytes. Error code 12 (Cannot allocate memory)"
    ),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
LOST = [
    torch.AcceleratorError(ILLEGAL),
    RuntimeError(ILLEGAL),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    torch.AcceleratorError("CUDA error: misaligned address"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: uncorrectable NVLink error detected during the execution"),
    torch.AcceleratorError("CUDA error: the launch timed out and was terminated"),
    torch.AcceleratorError("CUDA error: an illegal instruction was encountered"),
    torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    torch.AcceleratorError("CUDA error: unknown error"),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"),
    RuntimeError("CUDA runtime API error cudaErrorIllegalAddress (700):\nan illegal memory access was encountered"),
    RuntimeError(
        "CUDA error encountered at: file=/raft/core/resource/cuda_stream.hpp line=112: call='cudaStreamSynchronize', "
        "Reason=cudaErrorLaunchFailure:unspecified launch failure"
    ),
    RuntimeError(
        "Faiss assertion 'err__ == cudaSuccess' failed in void faiss::gpu::freeMemorySpace at StaticUtils.h:87; "
        "details: CUDA error 700 an illegal memory access was encountered"
    ),
    RuntimeError("nvml error (15): nvml: the GPU has fallen off the bus or has otherwise become inaccessible"),
    type("NVMLError_GpuIsLost", (Exception,), {})("GPU is lost"),
]  # fmt: skip
OTHER_OF_DEVICE = [
    torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
    torch.AcceleratorError("CUDA error: invalid argument"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    RuntimeError(
        'Assert on "!params.device_id.has_value() || cuInitChecked()" failed: You are trying to create a GPU DALI '
        "pipeline while CUDA is not available. Please install CUDA or set `device_id = None`"
    ),
    RuntimeError("nvml error (9): nvml: NVIDIA driver is not loaded"),
    RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
    RuntimeError("The NVIDIA driver on your system is too old (found version 11040)"),
    AssertionError("Torch not compiled with CUDA enabled"),
    type("NVMLError_DriverNotLoaded", (Exception,), {})("Driver Not Loaded"),
]
NONE = [
    RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    ),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x512 and 256x2)"),
    RuntimeError("nvjpeg error (6): NVJPEG_STATUS_JPEG_NOT_SUPPORTED"),
    RuntimeError("Error in JPEG: premature end of file"),
    ValueError("pixels are on cpu, the encoder on cuda:0"),
    AttributeError("module 'cuda' has no attribute 'cudaError_t'"),
    KeyError("CUDA error: out of memory"),
    ZeroDivisionError("division by zero"),
    FileNotFoundError(errno.ENOENT, "No such file", "CUDA error: out of memory.png"),
    Refused("2 GPUs out of memory", "A rule", "a remedy"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", MEMORY_OF_DEVICE, ids=lambda e: str(e)[:40])
def test_memory_of_the_device(error: Exception) -> None:
    fault = faults.translate(error)
    assert isinstance(fault, OutOfMemory)
    assert fault.exit_code == 3
    assert fault.found.startswith("The device is out of memory (")
    assert "nvidia-smi" in fault.remedy
    assert faults.translate(error, "take less").remedy == "take less"  # type: ignore[union-attr]


@pytest.mark.parametrize("error", MEMORY_OF_HOST, ids=lambda e: str(e)[:40])
def test_memory_of_the_machine(error: Exception) -> None:
    fault = faults.translate(error)
    assert isinstance(fault, OutOfMemory)
    assert fault.found.startswith("This machine is out of memory (")
    assert "nvidia-smi" not in fault.remedy


@pytest.mark.parametrize("error", LOST, ids=lambda e: str(e)[:40])
def test_a_lost_device(error: Exception) -> None:
    fault = faults.translate(error)
    assert isinstance(fault, DeviceLost)
    assert fault.exit_code == 3
    assert "run the same command again" in fault.remedy


@pytest.mark.parametrize("error", OTHER_OF_DEVICE, ids=lambda e: str(e)[:40])
def test_other_faults_of_the_device(error: Exception) -> None:
    fault = faults.translate(error)
    assert type(fault) is MachineFault
    assert "embank doctor" in fault.remedy


@pytest.mark.parametrize("error", NONE, ids=lambda e: str(e)[:40])
def test_everything_else_is_no_fault(error: BaseException) -> None:
    assert faults.translate(error) is None


def test_real_requests_for_too_much() -> None:
    for ask in (lambda: torch.empty(1 << 46), lambda: np.empty(1 << 46)):
        with pytest.raises(OutOfMemory, match="This machine is out of memory"), device_faults():
            ask()


def test_the_line_that_tells_is_shown_and_errors_underneath_are_read() -> None:
    dali = RuntimeError("Critical error in pipeline:\nError in MIXED operator\nCUDA allocation failed\nmore")
    assert "(CUDA allocation failed)" in str(faults.translate(dali))
    wrapped = RuntimeError("backend='inductor' raised")
    wrapped.__cause__ = torch.OutOfMemoryError(TORCH_OOM)
    assert isinstance(faults.translate(wrapped), OutOfMemory)
    handled = ZeroDivisionError("a mistake while an error was handled")
    handled.__context__ = torch.OutOfMemoryError(TORCH_OOM)
    assert faults.translate(handled) is None
    ring = RuntimeError("one")
    ring.__cause__ = RuntimeError("two")
    ring.__cause__.__cause__ = ring
    assert faults.translate(ring) is None


def test_faults_cross_processes_with_what_they_know() -> None:
    lost = faults.translate(RuntimeError(ILLEGAL))
    assert isinstance(lost, DeviceLost)
    lost.worker = "1"
    back = pickle.loads(pickle.dumps(lost))
    assert (type(back), str(back), back.worker) == (DeviceLost, str(lost), "1")


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), device_faults():
        raise ZeroDivisionError
    with pytest.raises(Refused), device_faults():
        raise Refused("a", "b", "c")
