"""Recognition of memory and device faults in the errors of any library.

torch, DALI, FAISS, cuML, cuBLAS and numpy have no error class in common: the same fault is raised as an
`AcceleratorError`, a `RuntimeError` or a `MemoryError`. What they share is CUDA's wording in the message.
None of the libraries is imported here.
"""

import contextlib
import errno
import re
import sys
from collections.abc import Iterator

from engine.errors import DeviceLost, EmbankError, MachineFault, OutOfMemory

#: Errors after which a process can no longer use the device, or that mean that it has none.
_LOST = re.compile(
    r"illegal[ _]?(memory access|address|instruction)"
    r"|misaligned ?address|MISALIGNED_ADDRESS|invalid ?(program counter|pc\b|address space)"
    r"|unspecified launch failure|cudaErrorLaunch(Failure|Timeout)|LAUNCH_(FAILED|TIMEOUT)|launch timed out"
    r"|device-side assert|cudaErrorAssert|ECC error|uncorrectable|ECC_?UNCORRECTABLE|hardware stack"
    r"|fallen off the bus|GPU is lost|GPU_IS_LOST|requires a reset|RESET_REQUIRED"
    r"|no CUDA GPUs are available|no CUDA-capable device|NoDevice\b|ERROR_NO_DEVICE"
    r"|busy or unavailable|DevicesUnavailable|DEVICE_UNAVAILABLE|(context|device)[ _]is[ _]destroyed"
    r"|CUDA (error: )?unknown error|cudaErrorUnknown|CUDA_ERROR_UNKNOWN|cudaErrorContained|ERROR_CONTAINED"
    r"|CU(BLAS|DNN|SOLVER|SPARSE|RAND|FFT)_(STATUS_)?(EXEC\w*_FAILED|INTERNAL_ERROR|MAPPING_ERROR|LAUNCH_FAILURE)",
    re.IGNORECASE,
)
#: Exhausted memory. Two of cuDNN's messages name engines and algorithms, none of which fits in the free
#: memory.
_MEMORY = re.compile(
    r"out[ _]of[ _]memory|bad_alloc|alloc\w* fail|ALLOC_FAILED|ALLOCATOR_FAILURE|MemoryAllocation\b"
    r"|can(no|')t allocate memory|can't start new thread|failed to map segment|STATUS_NOT_INITIALIZED"
    r"|valid cuDNN algorithm|unable to find an engine",
    re.IGNORECASE,
)
_DEVICE = re.compile(
    r"CUDA (error|driver|runtime|initialization|is not available)|cudaError|CUDA_ERROR_|\bcuInit|HIP error"
    r"|\bcu(BLAS|DNN|SOLVER|SPARSE|RAND|FFT)(_|( API)? (error|failed))|\bNVML|\bNCCL"
    r"|NVIDIA driver|Triton Error|(compiled|built) without CUDA|not compiled with CUDA|requires CUDA",
    re.IGNORECASE,
)
#: Words that distinguish device memory from host memory in a message.
_OF_DEVICE = re.compile(
    r"cu(da|blas|dnn|solver|sparse|rand|fft|ml)|gpu|hip\b|rmm|nvjpeg|engine", re.IGNORECASE
)

#: Message of the dynamic linker if a library finds no address space.
_UNMAPPED = "failed to map segment"
#: Programming errors, whatever their messages quote.
_PROGRAMMING_ERRORS = (TypeError, AttributeError, NameError, LookupError, ImportError, SyntaxError)
#: Length of a quoted message, at most.
_MAX_LINE = 200


def translate(error: BaseException, memory_remedy: str | None = None) -> MachineFault | None:
    """Translate an error of any library to the memory or device fault that it stands for.

    Args:
        error: the error caught; the errors it was raised from are examined as well.
        memory_remedy: how this work can use less memory; None gives a general remedy.

    Returns:
        OutOfMemory, DeviceLost or another MachineFault; None for other errors, including EmbankError.
    """
    if isinstance(error, EmbankError):
        return None
    for link in _chain(error):
        if fault := _translate(link, memory_remedy):
            return fault
    return None


@contextlib.contextmanager
def device_faults(memory_remedy: str | None = None) -> Iterator[None]:
    """Raise the memory and device errors of the body as faults whose messages say how to resume.

    Args:
        memory_remedy: how the body can use less memory; None gives a general remedy.

    Raises:
        OutOfMemory, DeviceLost, MachineFault: see `translate`.
    """
    try:
        yield
    except Exception as error:
        if fault := translate(error, memory_remedy):
            raise fault from error
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        yield link
        seen.append(link)
        link = link.__cause__


def _translate(error: BaseException, memory_remedy: str | None) -> MachineFault | None:
    if isinstance(error, OSError):
        return _memory(error, memory_remedy) if error.errno == errno.ENOMEM else None
    if not isinstance(error, Exception):
        return None
    text = _text(error)
    if isinstance(error, ImportError) and _UNMAPPED in text:
        return _memory(error, memory_remedy)
    if isinstance(error, _PROGRAMMING_ERRORS):
        return None
    if _LOST.search(text):
        return _lost(error)
    if isinstance(error, MemoryError) or _is_torch(error, "OutOfMemoryError") or _MEMORY.search(text):
        return _memory(error, memory_remedy)
    if _is_torch(error, "AcceleratorError") or _DEVICE.search(text):
        return MachineFault(
            f"The device failed ({_line(error, _DEVICE)})",
            "A device must be there and work",
            "check it (`embank doctor`, `nvidia-smi`) and run the same command again",
        )
    return None


def _text(error: BaseException) -> str:
    """Return class and message: the classes of NVML and cupy say more than their messages."""
    return f"{type(error).__module__}.{type(error).__qualname__}: {error}"


def _is_torch(error: BaseException, name: str) -> bool:
    """Return True if the error is of this class of torch; False if torch has not been imported."""
    cls = getattr(sys.modules.get("torch"), name, None)
    return isinstance(cls, type) and isinstance(error, cls)


def _memory(error: BaseException, remedy: str | None) -> OutOfMemory:
    device = _is_torch(error, "OutOfMemoryError") or bool(_OF_DEVICE.search(_text(error)))
    where, rule = ("The device", "device") if device else ("This machine", "machine")
    general = (
        "free it (`nvidia-smi` shows who holds it) and run the same command again, or use --device cpu"
        if device
        else "free memory, raise this process's limit (`ulimit -v`) or take a machine with more, and run the "
        "same command again; or ask for less at a time"
    )
    return OutOfMemory(
        f"{where} is out of memory ({_line(error, _MEMORY)})",
        f"What is computed at a time must fit into the memory of the {rule}",
        remedy or general,
    )


def _lost(error: BaseException) -> DeviceLost:
    return DeviceLost(
        f"The device failed ({_line(error, _LOST)})",
        "After such an error a process cannot use its device again",
        "check it (`embank doctor`, `nvidia-smi`) and run the same command again; committed work is kept",
    )


def _line(error: BaseException, words: re.Pattern[str]) -> str:
    """Return the most informative line of the message, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = next((line for line in lines if words.search(line)), lines[0]).rstrip(".")
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + "…"
