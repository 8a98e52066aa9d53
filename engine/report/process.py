"""The process of a command: standard streams, signals, working folder, memory, and unexpected errors.

Whatever their state, a command ends with an exit code and a message, not with a traceback. If standard error
cannot be written, its messages are lost and the command goes on. Standard output carries the results: if it
is closed from the start, the command is refused before it does anything; if it is full, that is a fault of
the machine; and if the reader of a pipe has gone, the command ends silently with 141, like programs that
SIGPIPE ends.
"""

import atexit
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from stores.backends import deadlines
from stores.errors import EmbankError, MachineFault, Refused
from stores.limits import available_memory

#: 128 + SIGPIPE, 128 + SIGINT.
EXIT_BROKEN_PIPE = 141
EXIT_INTERRUPTED = 130
#: Address space that numpy takes with OpenBLAS, which has a buffer for each core.
_NUMPY_BYTES, _BYTES_A_CORE = 128 << 20, 40 << 20
#: Address space that torch takes, for each byte of its libraries (3.1 with CUDA's, which lie elsewhere).
_TORCH_FACTOR = 3.5
#: Environment variable that makes unexpected errors print their traceback.
DEBUG_VARIABLE = "EMBANK_DEBUG"

_interrupted = _announced = False


def interrupt(*_: Any) -> None:
    """Handle SIGINT and SIGTERM: end waits for a network, and raise KeyboardInterrupt."""
    global _interrupted
    _interrupted = True
    deadlines.stop_soon()
    raise KeyboardInterrupt


def say_stopped() -> None:
    """Print on standard error, once, that the command was interrupted, and what is kept."""
    global _announced
    if not _announced:
        from engine.report import stop_messages

        print(f"\n{stop_messages.sentence(sys.argv[1:])}", file=sys.stderr, flush=True)
    _announced = True


@contextlib.contextmanager
def guarded_errors() -> Iterator[None]:
    """Make writes of the body to standard error always succeed, even if their text is lost."""
    before = sys.stderr
    closed = before is None
    if closed:
        _open_closed()
    sys.stderr = cast(TextIO, _Stream(_lenient(before), 2))
    try:
        yield
    finally:
        if not closed:  # otherwise the interpreter's last flush would fail
            sys.stderr = before


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Make standard output and signals safe for the body, and flush standard output after it.

    Raises:
        Refused: standard output is closed, or the working folder is gone.
        MachineFault: standard output cannot be written, or too little memory is available.
        SystemExit: 141 if the reader of standard output has gone; 130 after a signal.
    """
    global _interrupted, _announced
    _interrupted = _announced = False
    atexit.register(_leave_cycles)
    deadlines.go_on()
    _open_closed()
    if sys.stdout is None:
        raise Refused(
            "Standard output is closed", "Results are written there", "leave it open, or send it to /dev/null"
        )
    _refuse_gone_folder()
    _refuse_little_memory()
    before = sys.stdout
    sys.stdout = cast(TextIO, _Stream(_lenient(before), 1))
    try:
        with _signals():
            yield
        sys.stdout.flush()
    except BaseException as error:
        stopped = isinstance(error, SystemExit) and error.code == EXIT_INTERRUPTED
        if stopped or _interrupted or isinstance(error, KeyboardInterrupt):
            say_stopped()
            _forget_interrupt()
            raise SystemExit(EXIT_INTERRUPTED) from error
        sys.stdout.flush()
        raise
    finally:
        sys.stdout = before


def _forget_interrupt() -> None:
    """Let `python -m` end with the exit code that it is given.

    CPython notes a KeyboardInterrupt that leaves code of a string, such as what `dataclass` makes of a class,
    as one that nobody handles, and then ends the process by SIGINT whatever its exit code. Evaluating another
    string removes the note (`run_eval_code_obj` in Python/pythonrun.c).
    """
    eval("None")


def _leave_cycles() -> None:
    """Spare the interpreter's end its search for cycles, after which the system frees all memory anyway.

    It stays where something must be taken down in order: what is on a GPU, DALI's threads, or Triton, which
    reports objects in cycles as leaks.
    """
    if "torch" in sys.modules:
        from engine.runtime import cuda_in_use

        if cuda_in_use():
            return
    if not any(name in sys.modules for name in ("triton", "nvidia.dali")):
        gc.freeze()


def _open_closed() -> None:
    """Open /dev/null for each closed descriptor among 0, 1, 2, which the next opened file would take."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _lenient(stream: TextIO | None) -> TextIO:
    """Make a stream escape characters that its encoding lacks (`±` in ASCII), instead of failing."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


class _Stream:
    """A standard stream whose failures are reported once (standard output) or ignored (standard error).

    Args:
        stream: the stream.
        number: 1 for standard output, 2 for standard error.
    """

    def __init__(self, stream: TextIO, number: int) -> None:
        self._stream, self._number = stream, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._guarded():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._guarded():
            self._stream.flush()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._discard()
            if self._number == 2:
                return
            if isinstance(error, BrokenPipeError):
                raise SystemExit(EXIT_BROKEN_PIPE) from None
            raise MachineFault(
                f"Standard output: {error.strerror or error}",
                "Results are written there",
                "give it room, and run the same command again; what it keeps in files is kept",
            ) from error

    def _discard(self) -> None:
        """Send the rest of the buffer to /dev/null, as the interpreter would fail to flush it at its end."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            self._stream.flush()


def _refuse_gone_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise Refused(
            f"The working folder cannot be used ({error.strerror})",
            "Relative paths start from a folder that exists",
            "change to another folder (`cd`) and run the same command there",
        ) from error


def _refuse_little_memory() -> None:
    """Stop if the libraries do not fit into memory: OpenBLAS would exit with 1, which has its own meaning."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _require_memory("The libraries", _NUMPY_BYTES + cores * _BYTES_A_CORE)
    if not any(isinstance(finder, _TorchGuard) for finder in sys.meta_path):
        sys.meta_path.insert(0, cast(Any, _TorchGuard()))


def _require_memory(what: str, needed: float) -> None:
    if (available := available_memory()) < needed:
        raise MachineFault(
            f"{available / 2**20:.0f} MiB of memory are left to this process",
            f"{what} take {needed / 2**20:.0f} MiB before they do anything",
            "raise its limit (`ulimit -v`)",
        )


class _TorchGuard:
    """An import hook that checks for memory before torch is imported, which aborts the process without it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name != "torch":
            return
        for folder in map(Path, sys.path):
            if libraries := list((folder / "torch" / "lib").glob("*.so*")):
                size = sum(library.stat().st_size for library in libraries)
                _require_memory("torch's libraries", _TORCH_FACTOR * size)
                return


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Handle SIGINT and SIGTERM for the body; a signal that is ignored (`nohup`, `&`) stays ignored."""
    defaults: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    replaced = []
    with contextlib.suppress(ValueError):  # not the main thread, which alone may handle signals
        for number, handler in defaults.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, interrupt)
                replaced.append(number)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, defaults[number])


def unexpected(error: BaseException) -> EmbankError:
    """Translate an error that is neither an EmbankError nor a fault of memory or device (`engine.faults`).

    Returns:
        An error with exit code 3; for a bug, its message names the file with the traceback.
    """
    text = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
    if isinstance(error, RecursionError):
        return MachineFault(
            "Something is nested too deeply to be read",
            "Files and options nest a few levels",
            "look for brackets within brackets in the JSON file that was given",
        )
    attachment = _keep_traceback(error)
    return MachineFault(
        f"{type(error).__name__}: {text or 'no message'}",
        "This is an error in embank, not in what was asked",
        f"report it with {attachment}; what is done is kept",
    )


def _keep_traceback(error: BaseException) -> str:
    """Print or write the traceback, and return what to attach to a report."""
    import tempfile  # here, because these would slow every start
    import traceback

    lines = traceback.format_exception(error)
    if os.environ.get(DEBUG_VARIABLE):
        sys.stderr.write("".join(lines))
        return "the lines above"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="embank-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.writelines(lines)
        return file.name
    except OSError:
        return f"what it shows with {DEBUG_VARIABLE}=1"
