"""Streams and events of the pretended device.

Work is done at once, so nothing ever waits in truth. What is kept is the order that CUDA would promise: each
stream knows how far it is bound to come after the others (a vector clock), so that a tensor used on a stream
that was never told to wait for it is a `Race`. And a copy to the host that nobody has waited for has not
arrived: its memory holds rubbish until then.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.pretended.ledger import Ledger

#: Stream -> how many of its steps come before.
Clock = dict[int, int]


class Race(RuntimeError):
    """A stream used what another one may not have made yet."""


def merge(clock: Clock, other: Clock) -> None:
    for stream, step in other.items():
        clock[stream] = max(clock.get(stream, 0), step)


class Stream:
    """As `torch.cuda.Stream`."""

    _numbers = itertools.count(1)
    device_of: "Device"  # set by `Device.stream_class`

    def __init__(self, device: Any = None, priority: int = 0, *, default: bool = False) -> None:
        self.device = self.device_of.full(device)
        self.number = next(self._numbers)
        self.cuda_stream = 0 if default else self.number
        self.clock: Clock = {}
        self.arriving: list[Callable[[], None]] = []
        self.device_of.streams[self.number] = self

    def step(self) -> int:
        """Queue one piece of work, after all that the host has waited for."""
        merge(self.clock, self.device_of.host)
        self.clock[self.number] = self.clock.get(self.number, 0) + 1
        return self.clock[self.number]

    def wait_stream(self, other: "Stream") -> None:
        merge(self.clock, other.clock)

    def wait_event(self, event: "Event") -> None:
        merge(self.clock, event.clock)

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self.device_of.ledger.wait("stream")
        self.settle()

    def settle(self) -> None:
        """The host has waited for the stream."""
        merge(self.device_of.host, self.clock)
        arrive(self.arriving)


class Event:
    """As `torch.cuda.Event`."""

    device_of: "Device"
    ready = True

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.clock: Clock = {}
        self._timing, self._time = enable_timing, float("nan")
        self._arriving: list[Callable[[], None]] = []

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or self.device_of.current_stream()
        self.clock, self._time = dict(stream.clock), time.perf_counter()
        self._arriving = stream.arriving[:]

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.device_of.current_stream()).wait_event(self)

    def query(self) -> bool:
        """True, whereupon the host may read what has arrived; a test may patch `ready`."""
        if self.ready:
            merge(self.device_of.host, self.clock)
            arrive(self._arriving)
        return self.ready

    def synchronize(self) -> None:
        self.device_of.ledger.wait("event")
        merge(self.device_of.host, self.clock)
        arrive(self._arriving)

    def elapsed_time(self, other: "Event") -> float:
        """Milliseconds."""
        if not (self._timing and other._timing and self.clock is not None):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if not self._time <= other._time:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        return 1e3 * (other._time - self._time)


def arrive(copies: list[Callable[[], None]]) -> None:
    while copies:
        copies.pop(0)()


class Device:
    """All pretended devices of a process, as `torch.cuda` shows them.

    Attributes:
        ledger: what was done.
        count: of devices.
        host: what the host has waited for.
    """

    def __init__(self, count: int) -> None:
        self.ledger, self.count = Ledger(), count
        self.streams: dict[int, Stream] = {}
        self.host: Clock = {}
        self.Stream = type("Stream", (Stream,), {"device_of": self})
        self.Event = type("Event", (Event,), {"device_of": self})
        self._index = 0
        self._here = threading.local()
        self._default = [self.Stream(torch.device("cuda", i), default=True) for i in range(count)]

    def full(self, device: Any = None) -> torch.device:
        """A device with its number.

        Raises:
            RuntimeError: there is no such device.
        """
        named = torch.device("cuda" if device is None else device)
        if named.type == "cuda":
            named = torch.device("cuda", self._index if named.index is None else named.index)
            if named.index >= self.count:
                raise torch.AcceleratorError("CUDA error: invalid device ordinal")
        return named

    def current_device(self) -> int:
        return self._index

    def set_device(self, device: Any) -> None:
        named = torch.device("cuda", device) if isinstance(device, int) else device
        self._index = self.full(named).index

    def current_stream(self, device: Any = None) -> Stream:
        place = self.full(device)
        chosen: Stream | None = getattr(self._here, "stream", None)
        if chosen is not None and chosen.device == place:
            return chosen
        return self._default[place.index]

    def default_stream(self, device: Any = None) -> Stream:
        return self._default[self.full(device).index]

    @contextlib.contextmanager
    def stream(self, stream: Stream | None) -> Iterator[None]:
        before, self._here.stream = getattr(self._here, "stream", None), stream
        try:
            yield
        finally:
            self._here.stream = before

    def synchronize(self, device: Any = None) -> None:
        self.ledger.wait("device")
        for stream in list(self.streams.values()):
            if stream.device == self.full(device):
                stream.settle()
