"""Output on the terminal: results on stdout, progress and errors on stderr."""

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from stores.errors import EmbankError
from stores.manifest.uri_policy import BIDI, plain

if TYPE_CHECKING:
    from engine.pipeline import PassProgress

#: Seconds between two progress lines if stderr is not a terminal.
LINE_EVERY_S = 10.0
#: Columns for a model's name beside its bar, so that name, bar and count fit into 80.
_BAR_NAME = 28
#: Characters that a terminal would act on and JSON does not escape.
_UNESCAPED = re.compile(f"[\x7f-\x9f\u2028\u2029\ud800-\udfff]|{BIDI}")


def print_json(value: Any) -> None:
    """Print a JSON document on stdout; NaN and infinities become null, which JSON lacks."""
    text = _escaped(json.dumps(_plain(value), indent=2, ensure_ascii=False)) + "\n"
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # another encoding, or a file name that is not UTF-8: JSON can escape both
        text = json.dumps(_plain(value), indent=2) + "\n"
    sys.stdout.write(text)


def _escaped(text: str) -> str:
    """Escape characters that a terminal would act on; JSON has escaped C0 controls, but for its line ends."""
    return _UNESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def write(*parts: object, sep: str = " ", file: "TextIO | None" = None) -> None:
    """Print like Python's `print`, but escape what a terminal would act on in the parts, line ends included.

    Names, labels and reasons come from files that others made, and may be hostile.
    """
    print(sep.join(plain(str(part)) for part in parts), file=file or sys.stdout)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print a plain table on stdout, at most as wide as the terminal (`engine.report.tables`)."""
    from engine.report import tables

    drawn = tables.lines(
        [plain(column) for column in columns],
        [[_cell(cell) for cell in row] for row in rows],
        width(),
        ellipsis="…" if _can_write("…") else "~",
        rule="─" if _can_write("─") else "-",
    )
    print("", *([plain(title)] if title else []), *drawn, "", sep="\n")


def width() -> int:
    """Return COLUMNS if it is set, else the width of the terminal on standard output, else 80."""
    from engine.report import tables

    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns) > 0:
        return int(columns)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stdout.isatty():
            return os.get_terminal_size(sys.stdout.fileno()).columns or tables.USUAL
    return tables.USUAL


def _can_write(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _cell(value: Any) -> Any:
    """Return a number unchanged, and any other value as short, escaped text."""
    if isinstance(value, int | float):
        return value
    if hasattr(value, "item") and not isinstance(value, str):
        return value.item()
    return plain(clipped(str(value)))


def clipped(text: str, most: int = 200) -> str:
    """Return the text, cut to `most` characters with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def say(text: str) -> None:
    """Print one line on stderr; characters that a terminal would act on are escaped."""
    print(plain(text), file=sys.stderr, flush=True)


def print_error(error: EmbankError) -> None:
    """Print an error's value, rule and remedy on stderr."""
    for line in (f"embank: {error.found}.", f"  rule:   {error.rule}.", f"  remedy: {error.remedy}."):
        say(line)


def duration(seconds: float) -> str:
    """Format seconds as `1:02:03`, or `?` if not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


def _stage(name: str, clock: Any) -> str:
    waiting = clock.waiting_s / max(clock.busy_s + clock.waiting_s + clock.blocked_s, 1e-9)
    return f"{name} {clock.img_per_s:,.0f}/s ({waiting:.0%} waiting)"


def progress_line(progress: "PassProgress") -> str:
    """Describe a running pass in one line: count, rate, time left and stages."""
    stages = _stages(progress)
    return f"{_pace(progress)}; {stages}" if stages else f"{progress.models[0]}: {_pace(progress)}"


def _pace(progress: "PassProgress") -> str:
    return f"{_count(progress)}, {_rate(progress)}"


def _count(progress: "PassProgress") -> str:
    return f"{progress.done:,}/{progress.total:,} images"


def _rate(progress: "PassProgress") -> str:
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    return f"{progress.img_per_s:,.1f} img/s, {duration(progress.seconds_left)} left{failed}"


def _stages(progress: "PassProgress") -> str:
    """Describe the stages; empty for work without stages, such as comparing files."""
    clocks = {name: getattr(progress, name) for name in ("decode", "encode", "commit")}
    if not any(clock.images or clock.waiting_s for clock in clocks.values()):
        return ""
    return ", ".join(_stage(name, clock) for name, clock in clocks.items())


@contextmanager
def embed_progress(quiet: bool = False) -> Iterator[Callable[["PassProgress"], None] | None]:
    """Show progress on stderr, unless quiet: a live bar on a terminal, a line every ten seconds elsewhere."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _live_bar() as update:
            yield update
    else:
        yield _line_printer()


def _line_printer() -> Callable[["PassProgress"], None]:
    last = time.monotonic()

    def update(progress: "PassProgress") -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S or progress.done == progress.total:
            last = time.monotonic()
            say(progress_line(progress))

    return update


@contextmanager
def transfer_progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the bytes of one file on stderr: a live bar on a terminal, a line every ten seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _byte_printer(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _byte_printer(name: str) -> Callable[[int, int | None], None]:
    last = time.monotonic()

    def update(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S or done == total:
            last = time.monotonic()
            say(f"{name}: {done / 1e6:,.1f} of {'?' if total is None else f'{total / 1e6:,.1f}'} MB")

    return update


@contextmanager
def _live_bar() -> Iterator[Callable[["PassProgress"], None]]:
    """Show one bar for each decode pass, and below them how the running pass spends its time."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    from engine.report.tables import shortened

    bars = Bars(TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[count]}"))
    tasks: dict[tuple[str, ...], Any] = {}
    with Live(Group(bars, Text()), console=Console(stderr=True), refresh_per_second=8) as live:

        def update(progress: "PassProgress") -> None:
            if progress.models not in tasks:
                others = f" +{len(progress.models) - 1}" if len(progress.models) > 1 else ""
                name = plain(progress.models[0])
                short = escape(shortened([name], _BAR_NAME - len(others))[name])
                tasks[progress.models] = bars.add_task(short + others, total=progress.total, count="")
            bars.update(tasks[progress.models], completed=progress.done, count=_count(progress))
            status = "; ".join(filter(None, (_rate(progress), _stages(progress))))
            live.update(Group(bars, Text(status, style="dim")))  # rich wraps it between words

        yield update


@contextmanager
def probe_progress() -> Iterator[Callable[[str], Callable[[str, int, int], None]]]:
    """Yield a function from the name of a run to a callback (what, done, to do) that shows its progress.

    It is shown on stderr: on a terminal in one line that is overwritten, elsewhere a line every ten seconds.
    """
    from engine.report.tables import shortened

    live, last = sys.stderr.isatty(), time.monotonic()

    def callback(name: str) -> Callable[[str, int, int], None]:
        def update(what: str, done: int, todo: int) -> None:
            nonlocal last
            text = plain(f"{name}: {what} {done:,}/{todo:,}")
            if live:
                text = shortened([text], width() - 1)[text]  # a wrapped line could not be overwritten
                sys.stderr.write(f"\r{text}\x1b[K")
                sys.stderr.flush()
            elif time.monotonic() - last >= LINE_EVERY_S:
                last = time.monotonic()
                say(text)

        return update

    try:
        yield callback
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
