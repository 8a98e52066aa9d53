"""Memory that a loop frees and takes again costs no page faults while the heap is kept."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine import malloc

_BYTES = 64 << 20  # beyond what glibc keeps of its own accord


def _faults(turns: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(turns):
        np.empty(_BYTES, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_freed_memory_stays_and_is_given_back_at_the_end() -> None:
    """In a process of its own: where many tests have run, other mappings may lie in the way of the heap."""
    code = "from tests.engine.test_malloc import keep_and_give_back; keep_and_give_back()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def keep_and_give_back() -> None:
    with malloc.kept():
        first, later = _faults(1), _faults(8)
        inside = _resident()
    assert later <= first / 10
    assert _resident() <= inside - _BYTES // 2


def test_an_error_inside_comes_out() -> None:
    with pytest.raises(ZeroDivisionError), malloc.kept():
        _ = 1 / 0
