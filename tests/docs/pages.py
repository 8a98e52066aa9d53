"""Follow a page of the documentation: run its blocks in order in one folder, and compare what they print.

A shell or Python block is run. A `text` block right after it is what it prints. A comment in the line above a
fence says more:

    <!-- not run: REASON -->       it is parsed by `tests.docs_check` alone
    <!-- save as: FILE -->         the block is the content of a file
    <!-- append to: FILE -->       the block is added to the end of a file
    <!-- change: FILE -->          lines of the file that begin with a minus are replaced by those with a plus
    <!-- exit code: 2 -->          the last command of the block ends with it (0 unless said)
    <!-- numbers vary: REASON -->  before an output: its words are compared, and its numbers are not

`python -m tests.docs.pages PAGE...` writes what blocks print today into the pages, so that nobody types it.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docs_check import PYTHON, ROOT, SHELL, Block, split_page

COMMENT = re.compile(r"<!-- (not run|save as|append to|change|exit code|numbers vary): (.+?) -->")
#: Pages that begin with the script that draws pictures alone; the others, with what the tutorial makes first.
FROM_NOTHING = ("README.md", "docs/tutorial.md")
#: What the tutorial makes first.
TUTORIAL = (
    "python docs/draw_xrays.py xrays",
    "embank manifest folder xrays -o xrays.parquet --group-pattern '(p[0-9]+)_'",
    "embank embed xrays.parquet --model efficientnet-lite0 --bank xrays.bank",
)
#: A command that only a shell understands.
_SHELL_WORDS = re.compile(r"[|&;<>$`*?(){}]")
_UNITS = r"(?:s|ms|min|h|img/s|/s|B|KiB|MiB|GiB)"
_CLOSE = 0.02


@dataclass
class Step:
    """A block with what the page says about it.

    Attributes:
        comments: of the line above the fence: word -> what it says.
        output: the `text` block that follows, if one does.
    """

    block: Block
    comments: dict[str, str] = field(default_factory=dict)
    output: Block | None = None

    @property
    def runs(self) -> bool:
        return self.block.language in SHELL | PYTHON and not self.comments.keys() & {
            "not run",
            "save as",
            "append to",
        }


def steps(text: str) -> list[Step]:
    """The blocks of a page in order, with their comments and outputs."""
    blocks, prose = split_page(text)
    lines = dict(prose)
    found: list[Step] = []
    for block in blocks:
        comment = COMMENT.search(lines.get(block.line - 2, ""))
        before = found[-1] if found else None
        if block.language == "text" and before is not None and _follows(before.block, block, lines):
            before.output = block
            before.comments |= {comment[1]: comment[2]} if comment else {}
        else:
            found.append(Step(block, {comment[1]: comment[2]} if comment else {}))
    return found


def _follows(first: Block, second: Block, lines: dict[int, str]) -> bool:
    """Whether nothing but blank lines and comments is between two blocks."""
    end = first.line + len(first.text.splitlines())  # the line of the closing fence
    between = (lines.get(number, "").strip() for number in range(end + 1, second.line - 1))
    return all(not line or COMMENT.fullmatch(line) for line in between)


class Reader:
    """Somebody who follows a page in a folder of their own.

    Args:
        folder: where the commands run.
        environment: variables for child processes, beside those of this process.
        checkout: run every command in a child process, with the source code in `folder`.
    """

    def __init__(self, folder: Path, *, checkout: bool = False) -> None:
        self.folder, self.checkout = folder, checkout
        self.names: dict[str, Any] = {"__name__": "page"}
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "80",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if checkout:
            self.environment["PYTHONPATH"] = f"{folder}{os.pathsep}{folder / 'engine'}"

    def take(self, step: Step) -> str:
        """Do what a block says; return what it printed. Raises AssertionError where an exit code differs."""
        if "save as" in step.comments:
            path = self.folder / step.comments["save as"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.block.text + "\n")
            return ""
        if "append to" in step.comments:
            with (self.folder / step.comments["append to"]).open("a") as file:
                file.write("\n\n" + step.block.text + "\n")
            return ""
        if "change" in step.comments:
            change(self.folder / step.comments["change"], step.block.text)
            return ""
        if not step.runs:
            return ""
        if step.block.language in SHELL:
            return self._shell(step)
        return self._python(step.block)

    def _shell(self, step: Step) -> str:
        printed, code, out, error = [], 0, "", ""
        for command in whole_lines(step.block.text):
            assert code == 0, f"exit code {code} before `{command}`:\n{error}"
            out, code, error = self.command(command)
            printed.append(out)
        expected = int(step.comments.get("exit code", 0))
        assert code == expected, f"`{command}` ended with {code}, not {expected}:\n{out}{error}"
        return "".join(printed) + (error if expected else "")

    def command(self, line: str) -> tuple[str, int, str]:
        """(stdout, exit code, stderr) of one line of a shell block."""
        words = [] if _SHELL_WORDS.search(_unquoted(line)) else shlex.split(line, comments=True)
        if words[:1] == ["embank"] and not self.checkout:
            from tests.command import embank

            with self._here():
                ran = embank(*words[1:])
            return ran.out, ran.code, ran.err
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return ran.stdout, ran.returncode, ran.stderr

    def _python(self, block: Block) -> str:
        if self.checkout:
            ran = subprocess.run(
                [sys.executable, "-c", block.text],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.text, "page", "exec")
        with (
            self._here(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            exec(code, self.names)
        return printed.getvalue()

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        columns = os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = "80"
        try:
            with contextlib.chdir(self.folder):
                yield
        finally:
            os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)


def change(path: Path, difference: str) -> None:
    """Replace what a difference says in a file, which has the old lines once."""
    lines = difference.splitlines()
    old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has these lines {text.count(old)} times:\n{old}"
    path.write_text(text.replace(old, new))


def _unquoted(line: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"$`]*\"|(?<=\s)#.*", "", line)


def whole_lines(text: str) -> Iterator[str]:
    """The commands of a shell block: lines, those that end in a backslash with the next; no comments."""
    waiting, open_block = "", 0
    for line in text.splitlines():
        if not waiting and (not line.strip() or line.lstrip().startswith("#")):
            continue
        open_block += len(re.findall(r"(?:^|;\s*)(?:for|while|if)\b", line)) - len(
            re.findall(r"\b(?:done|fi)\b", line)
        )
        if line.endswith("\\"):
            waiting += line[:-1] + " "
        elif open_block > 0:
            waiting += line + "\n"
        else:
            yield waiting + line
            waiting = ""


# What was printed


def alike(shown: str, printed: str, *, numbers_vary: bool = False) -> bool:
    """Whether a page shows what was printed, but for times, rates, sizes, digests, and decimals within 0.02.

    A line `...` stands for any number of lines. Processors round differently: decimals differ a little, and
    where a choice hangs on them (`numbers_vary`) so does everything but the words.
    """
    if numbers_vary:
        return _words(shown) == _words(printed)
    return _alike(_lines(shown), _lines(printed))


def shows(step: Step, printed: str) -> bool:
    """Whether a step's output, as the page has it, is what was printed. Raises where it has none."""
    assert step.output is not None
    return alike(step.output.text, printed, numbers_vary="numbers vary" in step.comments)


def _alike(shown: list[str], printed: list[str]) -> bool:
    while shown and shown[0] != "...":
        if not printed or not _same_line(shown[0], printed[0]):
            return False
        shown, printed = shown[1:], printed[1:]
    if not shown:
        return not printed
    return any(_alike(shown[1:], printed[start:]) for start in range(len(printed) + 1))


def _words(text: str) -> set[str]:
    return {word for line in _lines(text) for word in _plain(line).split() if not re.search(r"\d|NaN", word)}


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def _plain(line: str) -> str:
    line = re.sub(r"\b\d+(?:\.\d+)?(?:e-?\d+)? ?" + _UNITS + r"(?![\w/])", "TIME", line)
    line = re.sub(r"\b(?:[0-9a-f]{12,64}|(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,11})\b", "DIGEST", line)
    line = re.sub(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}(?::[0-9]{2}){1,2}(?:\.[0-9]+)?(?:Z|\+00:00)?", "DATE", line
    )
    return re.sub(r"[─━┄-]{2,}", "--", re.sub(r"\s+", " ", line)).strip()


def _same_line(shown: str, printed: str) -> bool:
    one, two = _plain(shown).split(" "), _plain(printed).split(" ")
    return len(one) == len(two) and all(map(_same_word, one, two))


def _same_word(one: str, two: str) -> bool:
    if one == two:
        return True
    pattern = r"[+-]?\d*\.?\d+(?:e[+-]?\d+)?"
    if re.sub(pattern, "N", one) != re.sub(pattern, "N", two):
        return False
    first, second = re.findall(pattern, one), re.findall(pattern, two)
    decimal = any("." in number for number in first + second)
    return decimal and all(abs(float(a) - float(b)) <= _CLOSE for a, b in zip(first, second, strict=True))


# Folders to follow a page in


def lay_out(folder: Path, prepared: Path | None) -> Path:
    """Fill a folder as a reader has it: with what the tutorial makes first, or with the script alone."""
    if prepared is not None:
        shutil.copytree(prepared, folder, dirs_exist_ok=True)
        return folder
    script = folder / "docs" / "draw_xrays.py"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "draw_xrays.py", script)
    return folder


def prepare(folder: Path) -> Path:
    """Do the first steps of the tutorial."""
    reader = Reader(lay_out(folder, None))
    for command in TUTORIAL:
        _, code, error = reader.command(command)
        assert code == 0, error
    return folder


def check_out(folder: Path) -> Path:
    """Copy the source code, for a page that changes it."""
    for name in ("engine", "stores", "tests/contracts", "cli.py", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def pages() -> list[Path]:
    """The pages whose blocks are followed: the README, and all of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def folder_for(page: Path, folder: Path, prepared: Path) -> Reader:
    """A reader of a page, in a folder laid out for it."""
    name = page.relative_to(ROOT).as_posix()
    lay_out(folder, None if name in FROM_NOTHING else prepared)
    if name.startswith("docs/extending/"):
        return Reader(check_out(folder), checkout=True)
    return Reader(folder)


@contextlib.contextmanager
def surroundings(page: Path) -> Iterator[None]:
    """What a page takes for granted outside its folder: for that on buckets, a store, in this process."""
    if page.name != "buckets.md":
        yield
        return
    from benchmarks.faults.s3 import environment, serving
    from stores.backends import object_requests

    before = dict(os.environ)
    try:
        with serving("bucket") as server:
            os.environ.update(environment(server.url))
            object_requests.bucket_of.cache_clear()
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        object_requests.bucket_of.cache_clear()


def rewritten(page: Path, reader: Reader) -> str:
    """The text of a page with its outputs as they are printed now; those that are alike stay as they are."""
    text = page.read_text()
    lines = text.splitlines()
    changes: list[tuple[Block, str]] = []
    for step in steps(text):
        printed = reader.take(step)
        if step.output is not None and not shows(step, printed):
            changes.append((step.output, printed))
    for block, printed in reversed(changes):
        length = len(block.text.splitlines())
        lines[block.line - 1 : block.line - 1 + length] = _lines(printed)
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Write what blocks print into the pages named, or into all."""
    os.environ["EMBANK_CACHE"] = ""
    chosen = [Path(name).resolve() for name in names] or pages()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(Path(scratch) / "prepared")
        for number, page in enumerate(chosen):
            if any(step.runs for step in steps(page.read_text())):
                reader = folder_for(page, Path(scratch) / str(number), prepared)
                with surroundings(page):
                    text = rewritten(page, reader)
                page.write_text(text)
                for name in re.findall(r"\bpictures/(\w+\.png)", text):
                    if (reader.folder / name).is_file():
                        shutil.copy(reader.folder / name, page.parent / "pictures" / name)
                print(page.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
