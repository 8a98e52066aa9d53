"""Errors that cost one cell, and faults that every cell would meet."""

import errno
import os
import re
from pathlib import Path

import pytest

from engine.errors import DeviceLost, EmbankError, MachineFault, OutOfMemory, Refused
from engine.study.attempts import attempt


def failing(error: Exception) -> int:
    raise error


@pytest.mark.parametrize(
    "error",
    [Refused("k = 9", "It is at most 5", "lower it"), OutOfMemory("8 GiB", "They fit", "take less")],
)
def test_an_error_of_one_cell_is_returned(error: EmbankError) -> None:
    assert attempt(failing, error) is error


@pytest.mark.parametrize(
    "error",
    [
        MachineFault("disk", "It has room", "make room"),
        DeviceLost("cuda:0", "It works", "reset it"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        KeyboardInterrupt(),
    ],
)
def test_what_others_would_meet_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        attempt(failing, error)
    assert caught.value is error


def test_errors_of_libraries_are_told_apart() -> None:
    assert attempt(int, "7") == 7
    memory = attempt(failing, RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert isinstance(memory, OutOfMemory)
    with pytest.raises(DeviceLost):
        attempt(failing, RuntimeError("CUDA error: an illegal memory access was encountered"))
    bug = attempt(failing, ZeroDivisionError("division by zero"))
    assert isinstance(bug, EmbankError) and "ZeroDivisionError: division by zero" in bug.found
    (path,) = re.findall(r"report it with (\S+);", bug.remedy)
    assert "ZeroDivisionError" in Path(path).read_text()
    Path(path).unlink()
