"""What the speed scripts share: interleaved rounds, medians with spread, facts of the machine, writers."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Spread:
    """n measurements in one number with its range."""

    n: int
    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Raises ValueError on an empty sequence."""
        return cls(len(values), statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{figure(self.median)} ({figure(self.min)}-{figure(self.max)}, n = {self.n})"


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contender in each round.

    All contenders run once a round, and the order turns from round to round, so that a machine that slows
    down or is shared slows all of them.

    Args:
        contenders: name -> what to time.
        rounds: of all contenders; 0 gives no seconds.
        warm_up: run each once, untimed, before the first round.
    """
    names = list(contenders)
    if warm_up:
        for name in names:
            contenders[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def rate(items: int, seconds: Sequence[float]) -> Spread:
    """Items a second, over the rounds."""
    return Spread.of([items / s for s in seconds])


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Quotient round by round: what side-by-side measurement makes steadier than either side.

    Raises:
        ValueError: the sequences are not of the same rounds.
    """
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=True)])


def figure(value: float) -> str:
    """A number to three significant digits, whole numbers from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, devices, driver, versions, date and commit."""
    import psutil

    from engine.runtime import describe_devices, toolkit_versions, usable_cores
    from engine.versions import versions

    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_at_start": list(os.getloadavg()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "devices": describe_devices(),
        "driver": driver_version(),
        "toolkit": toolkit_versions(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def driver_version() -> str:
    """NVIDIA driver version, or an empty text where there is none."""
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]


def commit() -> str:
    """Commit of this code: EMBANK_COMMIT where set (copies without history), else what git says."""
    if stated := os.environ.get("EMBANK_COMMIT"):
        return stated
    found = _output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    if found and _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"):
        found += " with changes"
    return found or "unknown"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write a result, whole or not at all: a reader, or a run cut short, never meets half a file."""
    replace_text(path, json.dumps(result, indent=1, default=_plain) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write beside the file and rename over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return asdict(value)
    return value.item() if hasattr(value, "item") else str(value)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats are shortened, bars and line breaks in cells made harmless."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(value: Any) -> str:
    text = figure(value) if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def parser(about: str) -> argparse.ArgumentParser:
    """The options that every speed script has."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    found.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    found.add_argument("-o", "--out", type=Path, help="also write the JSON document here")
    return found


def finish(result: Mapping[str, Any], table: str, options: argparse.Namespace) -> None:
    """Print a result as asked: JSON or table on stdout, a file with --out."""
    if options.out:
        write_json(result, options.out)
    print(json.dumps(result, indent=1, default=_plain) if options.json else table)


def say(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)
