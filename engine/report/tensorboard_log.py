"""Scalars of a running training as event files, which a running TensorBoard shows as they are written.

TensorBoard is an optional dependency (`embank[tensorboard]`), imported here alone, when first needed.
Its record writer is used without the thread of its event writer: a step is on disk when `add` returns, and a
full disk is an error here and not a traceback of a thread.
"""

import contextlib
import functools
import importlib
import importlib.util
import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from engine.errors import MachineFault, Refused
from stores.outputs import check_folder, make_folder

_RECORDS = "tensorboard.summary.writer.record_writer"
_EVENTS, _SUMMARIES = "tensorboard.compat.proto.event_pb2", "tensorboard.compat.proto.summary_pb2"
#: Version of event files from which TensorBoard heeds the start of a session.
_VERSION = "brain.Event:2"


@functools.cache
def unavailable_reason() -> str:
    """Return in one line why TensorBoard cannot be used; "" if it can."""
    if importlib.util.find_spec("tensorboard") is None:
        return "TensorBoard is not installed here"
    try:
        for module in (_RECORDS, _EVENTS, _SUMMARIES):
            importlib.import_module(module)
    except Exception as error:  # protobuf of another version, for example
        reason = " ".join(str(error).split())[:300]
        return f"TensorBoard is installed here but cannot be imported ({type(error).__name__}: {reason})"
    return ""


def check_log(folder: Path) -> None:
    """Refuse a folder for event files before anything is computed; writes nothing.

    Raises:
        Refused: TensorBoard is absent, or the folder lies in a bank, or cannot be written to.
    """
    if reason := unavailable_reason():
        install = "install embank[tensorboard]"
        raise Refused(f"event files in {folder}", reason, f"{install}, or leave the option out")
    check_folder(folder)


class TensorBoardLog:
    """One event file, to which the scalars of steps are appended.

    A run that goes on after it was stopped opens a further file in the same folder. TensorBoard then drops
    what earlier files say of the steps from `step` on, because these are written again.

    Args:
        folder: of the event files; it and missing parents are made.
        step: the first step that will be written.

    Raises:
        Refused: as `check_log`. MachineFault: the disk is full or fails.
    """

    _numbers = itertools.count()

    def __init__(self, folder: Path, step: int = 0) -> None:
        check_log(folder)
        make_folder(folder)
        name = f"events.out.tfevents.{int(time.time()):010}.embank.{os.getpid()}.{next(self._numbers)}"
        self.path = folder / name
        self._event: Any = importlib.import_module(_EVENTS)
        try:
            self._file: IO[bytes] = self.path.open("xb")
        except OSError as error:
            raise self._fault(error) from error
        self._records = importlib.import_module(_RECORDS).RecordWriter(self._file)
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._write(file_version=_VERSION)
        self._write(step=step, session_log=start)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append the scalars of a step; those that are not finite are left out.

        Args:
            values: tag -> value, e.g. `loss/train`; the part before the slash makes a group of charts.

        Raises:
            MachineFault: the disk is full or fails.
        """
        summary = importlib.import_module(_SUMMARIES).Summary()
        for tag, value in values.items():
            if math.isfinite(value):
                summary.value.add(tag=tag, simple_value=value)
        self._write(step=step, summary=summary)

    def close(self) -> None:
        """Close the file; what was added is there in any case."""
        with contextlib.suppress(OSError):  # of a write that has failed already, and said so
            self._file.close()

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, **parts: Any) -> None:
        event = self._event.Event(wall_time=time.time(), **parts)
        try:
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> MachineFault:
        return MachineFault(
            f"{self.path}: {error.strerror}",
            "The event files of TensorBoard must be written",
            "free space, or leave the option out, and run the same command again",
        )


class RunLogs:
    """Event files of several runs, a subfolder for each.

    Args:
        folder: of the subfolders.

    Raises:
        Refused: as `check_log`.
    """

    def __init__(self, folder: Path) -> None:
        check_log(folder)
        self._folder = folder
        self._logs: dict[str, tuple[TensorBoardLog, int]] = {}

    def show(self, run: str, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Write what is not written yet of a run; at first all of it, so that a resumed run is complete.

        Args:
            run: name of the subfolder.
            points: step and scalars of all of the run so far, by rising steps.

        Raises:
            MachineFault: the disk is full or fails.
        """
        log, written = self._logs.get(run) or (TensorBoardLog(self._folder / run), -1)
        for step, values in points:
            if step > written:
                log.add(step, values)
                written = step
        self._logs[run] = (log, written)

    def __enter__(self) -> "RunLogs":
        return self

    def __exit__(self, *_: object) -> None:
        """Close all files."""
        for log, _step in self._logs.values():
            log.close()
