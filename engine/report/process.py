"""Where a command meets its surroundings: standard streams, signals, the working folder, unexpected errors.

Whatever these are like, a command ends with an exit code and words, not with a traceback. Standard error that
cannot be written stops nothing: what it would say is lost. Standard output carries the results: closed from
the start it is refused before anything is done; full, it is a fault of the machine; and when the reader of a
pipe has gone, the command ends quietly with 141, as programs do that SIGPIPE ends.
"""

import contextlib
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
#: Address space that numpy with OpenBLAS takes, which has a buffer for each core.
_LEAST_BYTES, _BYTES_A_CORE = 128 << 20, 40 << 20
#: Address space that torch takes, for each byte of its libraries (3.1 with CUDA's, which lie elsewhere).
_TIMES_THEIR_SIZE = 3.5
#: Set, unexpected errors show where they arose.
DEBUG_VARIABLE = "EMBANK_DEBUG"

_interrupted = _said_so = False


def interrupt(*_: Any) -> None:
    """Handle SIGINT and SIGTERM: end what waits for a network, and raise KeyboardInterrupt."""
    global _interrupted
    _interrupted = True
    deadlines.stop_soon()
    raise KeyboardInterrupt


def say_stopped() -> None:
    """Say on standard error, once, that the command was interrupted, and what is kept."""
    global _said_so
    if not _said_so:
        from engine.report import stopping

        print(f"\n{stopping.sentence(sys.argv[1:])}", file=sys.stderr, flush=True)
    _said_so = True


@contextlib.contextmanager
def guarded_errors() -> Iterator[None]:
    """Let nothing that the body writes to standard error fail."""
    before = sys.stderr
    closed = before is None
    if closed:
        _open_closed()
    sys.stderr = cast(TextIO, _Stream(_lenient(before), 2))
    try:
        yield
    finally:
        if not closed:  # A last flush by the interpreter must not fail either.
            sys.stderr = before


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Make standard output and signals safe for the body, and flush standard output after it.

    Raises:
        Refused: standard output is closed, or the working folder is gone.
        MachineFault: standard output cannot be written.
        SystemExit: 141, if whoever read it has gone; 130 after a signal.
    """
    global _interrupted, _said_so
    _interrupted = _said_so = False
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
            raise SystemExit(EXIT_INTERRUPTED) from error
        sys.stdout.flush()
        raise
    finally:
        sys.stdout = before


def _open_closed() -> None:
    """Open whichever of 0, 1, 2 is closed on /dev/null, or the next file opened would be in its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _lenient(stream: TextIO | None) -> TextIO:
    """The stream, made to spell out what its encoding lacks (`±` in ASCII) instead of failing there."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


class _Stream:
    """A standard stream of which a failed write is reported once, if at all.

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
        """Let what is still in the buffer go nowhere, or the interpreter's end would fail at it again."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
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
    """Stop where no room is left for the libraries: OpenBLAS would exit with 1, which has a meaning."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _refuse_less("The libraries", _LEAST_BYTES + cores * _BYTES_A_CORE)
    if not any(isinstance(finder, _TorchGuard) for finder in sys.meta_path):
        sys.meta_path.insert(0, cast(Any, _TorchGuard()))


def _refuse_less(what: str, needed: float) -> None:
    if (room := available_memory()) < needed:
        raise MachineFault(
            f"{room / 2**20:.0f} MiB of memory are left to this process",
            f"{what} take {needed / 2**20:.0f} MiB before they do anything",
            "raise its limit (`ulimit -v`)",
        )


class _TorchGuard:
    """Looks, before torch is imported, whether it can be: without memory it aborts the process."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name != "torch":
            return
        for folder in map(Path, sys.path):
            if libraries := list((folder / "torch" / "lib").glob("*.so*")):
                size = sum(each.stat().st_size for each in libraries)
                _refuse_less("torch's libraries", _TIMES_THEIR_SIZE * size)
                return


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Handle SIGINT and SIGTERM for the body; one that is ignored (`nohup`, `&`) stays ignored."""
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    taken = []
    with contextlib.suppress(ValueError):  # not the main thread: whoever started it handles signals
        for number, handler in usual.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, interrupt)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, usual[number])


def unexpected(error: BaseException) -> EmbankError:
    """What to tell of an error that is none of ours, nor a fault of memory or device (`engine.faults`).

    Returns:
        The words, with exit code 3; of a bug the traceback is in a file that they name.
    """
    text = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
    if isinstance(error, RecursionError):
        return MachineFault(
            "Something is nested too deeply to be read",
            "Files and options nest a few levels",
            "look for brackets within brackets in the JSON file that was given",
        )
    kept = _keep_traceback(error)
    return MachineFault(
        f"{type(error).__name__}: {text or 'no message'}",
        "This is an error in embank, not in what was asked",
        f"report it with {kept}; what is done is kept",
    )


def _keep_traceback(error: BaseException) -> str:
    """Put the traceback where it can be found; return what to report."""
    import tempfile  # not above: these would slow every start
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
