"""Limits of numbers in options, and of memory; values beyond them are refused before anything is done."""

import contextlib
import math
import operator
import resource
from pathlib import Path
from typing import Any

from stores.errors import Refused

#: Largest seed that numpy, torch and embank's own random streams all accept.
MAX_SEED = 2**63 - 1
MAX_THREADS = 1024
#: With more resamples than this, no displayed digit of a percentile would change.
MAX_RESAMPLES = 1_000_000


def check_whole(name: str, value: Any, least: int, most: int, remedy: str = "") -> None:
    """Refuse anything but a whole number from `least` to `most`. Raises Refused."""
    with contextlib.suppress(TypeError):
        if not isinstance(value, bool) and least <= operator.index(value) <= most:
            return
    remedy = remedy or ("raise it" if isinstance(value, int) and value < least else "lower it")
    raise Refused(f"{name} = {_shown(value)}", f"It is a whole number from {least:,} to {most:,}", remedy)


def check_number(name: str, value: float, least: float, most: float, remedy: str) -> None:
    """Refuse anything but a number from `least` to `most`, NaN included. Raises Refused."""
    if not least <= value <= most:
        raise Refused(f"{name} = {_shown(value)}", f"It is a number from {least:g} to {most:g}", remedy)


def check_seed(value: Any) -> None:
    """Refuse a seed that some generator would not accept. Raises Refused."""
    check_whole("seed", value, 0, MAX_SEED, "choose a seed in this range, for instance 0")


def check_resamples(value: Any) -> None:
    """Refuse a number of bootstrap resamples that is out of range. Raises Refused."""
    check_whole("bootstrap", value, 0, MAX_RESAMPLES, "1000 are usual, 0 is for no interval")


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value) if _is_short(value) else "a huge number"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_short(value: Any) -> bool:
    return not isinstance(value, int) or value.bit_length() < 10_000  # Python refuses to print longer ones


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse work that needs more memory than this process can get.

    Args:
        needed: bytes.
        what: needs them, as the beginning of a sentence.
        remedy: of the error.

    Raises:
        Refused: less memory is available.
    """
    if needed > (free := available_memory()):
        raise Refused(
            f"{what} would take {needed / 2**30:,.1f} GiB of memory",
            f"{free / 2**30:,.1f} GiB are available",
            remedy,
        )


def available_memory() -> float:
    """Return the bytes that machine, control group and the process's own limit leave to this process."""
    available = [math.inf]
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        available += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):  # without a limit the file reads "max"
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text("ascii"))
        available.append(limit - int((group / "memory.current").read_text("ascii")) + _file_cache(group))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
            available.append(limit - pages * resource.getpagesize())
    return max(0.0, min(available))


def _file_cache(group: Path) -> int:
    """Return the bytes of a control group that cache files, which the kernel drops when memory is needed."""
    for line in (group / "memory.stat").read_text("ascii").splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0
