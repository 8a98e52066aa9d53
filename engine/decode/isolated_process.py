"""Decoding in isolated child processes, so that a file that crashes or stalls a decoder only fails its row.

Ordinary JPEG and PNG files are decoded in the main process: their decoders are small and thoroughly tested,
and a child process would cost throughput. Other formats go to a child process that contains only Pillow and
runs within the limits of `budget`. A child that dies is replaced, and the image is tried once more in a new
one, so that no result depends on earlier images.
"""

import json
import os
import pickle
import queue
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, NoReturn

from PIL import Image

from engine.decode.formats.header import Header
from engine.errors import BadImage, MachineFault
from engine.recipes import Recipe
from stores.json_types import JsonObject

#: Images of up to this many pixels may take `_SECONDS` of processor time; larger ones in proportion.
_PIXELS = 16_000_000
_SECONDS = 10.0
#: Address space for the libraries, and for each pixel in a decoder (JPEG 2000 takes 30 bytes).
_BYTES, _BYTES_A_PIXEL = 1 << 30, 64
#: Wall-clock seconds for each second of processor time: a stalled decoder may use no processor time, and a
#: busy machine slows down regular work.
_PATIENCE = 3
#: Exit status of a child process that has exhausted its address space.
_NO_MEMORY = 77
#: Size of an answer without the pixels in bytes, at most.
_MAX_ANSWER = 10_000
#: Size of the shared memory kept between images in bytes, at most.
_MAX_SHARED = 1 << 26
_LENGTHS = struct.Struct("<QQ")
#: Renderer of the child processes, as `module:function` with the arguments of `pillow.picture_here`.
_RENDERER = "engine.decode.pillow:picture_here"


def needs_isolation(header: Header) -> bool:
    """Return True for kinds of images that are not decoded in the main process."""
    return not (header.plain or header.format == "PNG")


@dataclass(frozen=True)
class Budget:
    """Limits of decoding one image: seconds of processor time, bytes of address space."""

    seconds: float
    bytes: int


def budget(header: Header, size: int) -> Budget:
    """Return the limits of an image of `size` coded bytes: 10 s and 2 GiB up to 16 Mpixels, then more."""
    pixels = max(header.width * header.height, _PIXELS)
    return Budget(_SECONDS * pixels / _PIXELS, _BYTES + _BYTES_A_PIXEL * pixels + 2 * size)


@dataclass
class Children:
    """Child processes for decoding, one for each thread that decodes. They end with this process.

    Attributes:
        renderer: function that they run.
        allow: (header, coded bytes) -> budget of an image.
    """

    renderer: str = _RENDERER
    allow: Callable[[Header, int], Budget] = budget
    _idle: "queue.LifoQueue[_Child]" = field(default_factory=queue.LifoQueue, repr=False)

    def picture(self, data: bytes, header: Header, recipe: Recipe) -> Image.Image:
        """Decode an image as `pillow.picture_here` does, in a child process.

        Raises:
            BadImage: as there, and decoder_died, too_slow, too_much_memory.
            MachineFault: no child can be started, or children are killed from outside.
        """
        allowed = self.allow(header, len(data))
        try:
            return self._ask(self._take(), data, header, recipe, allowed)
        except _Died as first:
            if first.signal == signal.SIGPROF:  # its processor time is used up: repeating would cost as much
                raise BadImage(first.code, str(first)) from None
        try:
            return self._ask(_Child(self.renderer), data, header, recipe, allowed)
        except _Died as second:
            if second.signal == signal.SIGKILL:
                raise _killed() from None
            raise BadImage(second.code, str(second)) from None

    def _take(self) -> "_Child":
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return _Child(self.renderer)

    def _ask(
        self, child: "_Child", data: bytes, header: Header, recipe: Recipe, allowed: Budget
    ) -> Image.Image:
        answer = child.ask(data, header, recipe, allowed)
        self._idle.put(child)
        if isinstance(answer, BadImage):
            raise answer
        return answer

    def close(self) -> None:
        """End the idle children; new ones are started when needed."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


class _Died(Exception):
    """The end of a child before it answered; `code` gives the reason, `signal` the signal (0 for none)."""

    def __init__(self, status: int, allowed: Budget) -> None:
        self.signal = max(0, -status)
        self.code, detail = "decoder_died", f"the decoder ended with status {status}"
        if self.signal in (signal.SIGPROF, signal.SIGALRM):
            self.code, detail = "too_slow", f"decoding takes more than {allowed.seconds:g} s"
        elif status == _NO_MEMORY:
            self.code, detail = "too_much_memory", f"decoding takes more than {allowed.bytes >> 20} MiB"
        elif self.signal:
            detail = f"the decoder crashed ({signal.strsignal(self.signal) or self.signal})"
        super().__init__(detail)


class _Child:
    """A child process. Image data go through shared memory, requests and answers (JSON) through pipes."""

    def __init__(self, renderer: str) -> None:
        # OpenBLAS would start threads, each of which takes address space.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100
        try:
            self._shared = os.memfd_create("embank-decode")
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, renderer, str(self._shared)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
                pass_fds=[self._shared],
            )
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        if self._out.read(1) != b"+":
            raise _not_started(f"it ended with status {self._end()}")

    @property
    def _in(self) -> IO[bytes]:
        assert self._process.stdin
        return self._process.stdin

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout
        return self._process.stdout

    def ask(self, data: bytes, header: Header, recipe: Recipe, allowed: Budget) -> Image.Image | BadImage:
        """Return the image, or the reason for a failure; raise _Died, also after an invalid answer."""
        question = pickle.dumps((header, recipe, allowed))
        try:
            _put(self._shared, data)
            self._in.write(_LENGTHS.pack(len(question), len(data)) + question)
            self._in.flush()
            length, size = _LENGTHS.unpack(self._read(_LENGTHS.size))
            if length > _MAX_ANSWER or size > 3 * header.width * header.height:
                raise ValueError
            answer = json.loads(self._read(length))
            if "code" in answer:
                return BadImage(
                    str(answer["code"]), str(answer["detail"]), pending=answer.get("pending") is True
                )
            image = Image.frombytes(answer["mode"], answer["size"], os.pread(self._shared, size, 0))
            if image.width * image.height != header.width * header.height:
                raise ValueError
            return image
        except (EOFError, OSError, ValueError, TypeError, KeyError):
            raise _Died(self._end(), allowed) from None

    def _read(self, size: int) -> bytes:
        data = self._out.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def _end(self) -> int:
        """Return the exit status, after making sure that the child has ended."""
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 0
        finally:
            self.close()

    def close(self) -> None:
        """End the child and release its pipes and memory."""
        with suppress(OSError):
            self._in.close()
        self._out.close()
        self._process.wait()
        os.close(self._shared)


def _put(shared: int, data: bytes) -> None:
    """Write to the start of shared memory, which shrinks only if it is large: new pages are expensive."""
    if os.fstat(shared).st_size > _MAX_SHARED:
        os.ftruncate(shared, 0)
    if os.pwrite(shared, data, 0) != len(data):
        raise OSError("no memory for the image")


def _killed() -> MachineFault:
    return MachineFault(
        "Processes that decode were killed from outside (SIGKILL), perhaps because memory ran out",
        "A fault of the machine must not mark an image as bad",
        "free memory, or use fewer threads (`embank embed --threads N`), then run the same command again; "
        "committed chunks are kept",
    )


def _not_started(reason: str) -> MachineFault:
    return MachineFault(
        f"A process for decoding could not be started ({reason})",
        "Formats other than JPEG and PNG are decoded in processes of their own",
        "end other processes or free memory, then run the same command again; committed chunks are kept",
    )


children = Children()


def _drop_inherited() -> None:
    # A forked copy of this process must not use its parent's children.
    children._idle = queue.LifoQueue()


os.register_at_fork(after_in_child=_drop_inherited)


# ---- the child process


def _serve(renderer: str, shared: int) -> NoReturn:
    """Answer requests until the parent closes the pipe."""
    import importlib

    module, _, name = renderer.partition(":")
    picture = getattr(importlib.import_module(module), name)
    Image.init()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text printed by libraries must not mix with answers
    sink.write(b"+")
    sink.flush()
    while head := source.read(_LENGTHS.size):
        length, size = _LENGTHS.unpack(head)
        header, recipe, allowed = pickle.loads(source.read(length))
        data = os.pread(shared, size, 0)
        _limit(allowed)
        answer, pixels = _answer(picture, data, header, recipe)
        _limit(None)
        _put(shared, pixels)
        text = json.dumps(answer).encode()
        sink.write(_LENGTHS.pack(len(text), len(pixels)) + text)
        sink.flush()
    os._exit(0)


def _limit(allowed: Budget | None) -> None:
    """Set the limits of one image, or lift them. The kernel enforces them in any code."""
    seconds = allowed.seconds if allowed else 0.0
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * seconds)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    address_space = allowed.bytes if allowed else hard
    if hard != resource.RLIM_INFINITY:
        address_space = min(address_space, hard)
    resource.setrlimit(resource.RLIMIT_AS, (address_space, hard))


def _answer(
    picture: Callable[[bytes, Header, Recipe], Image.Image], data: bytes, header: Header, recipe: Recipe
) -> tuple[JsonObject, bytes]:
    try:
        image = picture(data, header, recipe)
        return {"mode": image.mode, "size": list(image.size)}, image.tobytes()
    except BadImage as bad:
        if isinstance(bad.__cause__, MemoryError):
            os._exit(_NO_MEMORY)
        return {"code": bad.code, "detail": bad.detail, "pending": bad.pending}, b""
    except MemoryError:
        os._exit(_NO_MEMORY)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
