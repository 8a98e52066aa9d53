"""Interrupts that wait until the state of a run is consistent."""

import signal
import threading
from collections.abc import Callable
from typing import Any, Self


class Interrupted(KeyboardInterrupt):
    """An interrupt at a moment when the state of the run is consistent."""


class Interruption:
    """Note SIGINT and SIGTERM in the body, for `check` to raise; a second one acts at once.

    An update that is cut short would leave weights half changed. Outside the main thread, which alone may
    handle signals, nothing is noted, and interrupts act at once.
    """

    def __init__(self) -> None:
        self._noted = False
        self._before: dict[int, Callable[..., Any]] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self._noted:
            self._before[number](number, frame)
        self._noted = True

    def check(self) -> None:
        """Raise Interrupted if a signal was noted."""
        if self._noted:
            raise Interrupted
