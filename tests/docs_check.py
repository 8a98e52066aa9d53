"""Check that what the documentation says can be done. Run as `python -m tests.docs_check`.

Every `embank` command in a shell block parses, every make target and `python -m` module in one exists, every
Python block compiles and what it imports is there (or made by the page; blocks that are not run only have to
compile), each command of embank is used on some page, every relative link and anchor leads somewhere, each
file of the repository that a text names is there, and no page or Python file names a path of the machine it
was written on.
"""

import ast
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHELL = frozenset({"sh", "bash", "shell", "console", "zsh"})
PYTHON = frozenset({"py", "python", "python3", "pycon"})
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*([\w+-]*)")
_MACHINE = re.compile(
    r"(?<![\w./-])(/home/|/Users/|/root/|/work/|/mnt/|/data\d*/|/scratch/|[A-Z]:\\\w)[\w./\\-]*"
)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_HTML = re.compile(r"<(?:img|a|source)\b[^>]*?\b(?:src|href|srcset)=\"([^\"]+)\"")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$")
#: A file of the repository in a text, as code; `*` stands for several.
_NAMED = re.compile(r"`((?:engine|stores|benchmarks|tests|docker|\.ci)/[^`\s]+)`")
_SEPARATORS = frozenset({"&&", "||", "|", ";", "&", "(", ")"})


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, first line's number in the file, and text."""

    language: str
    line: int
    text: str


def split_page(page: str) -> tuple[list[Block], list[tuple[int, str]]]:
    """(fenced blocks, the other lines with their numbers)."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    fence, language, start, inside = "", "", 0, []
    for number, line in enumerate(page.splitlines(), 1):
        opening = _FENCE.match(line)
        if not fence and opening:
            fence, language, start, inside = opening[1], opening[2].lower(), number + 1, []
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            blocks.append(Block(language, start, "\n".join(inside)))
            fence = ""
        elif fence:
            inside.append(line)
        else:
            prose.append((number, line))
    if fence:
        blocks.append(Block(language, start, "\n".join(inside)))
    return blocks, prose


# Shell


def shell_commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """(line, words) of every simple command; in a console block only of the lines after a prompt."""
    lines = block.text.splitlines()
    prompts = any(line.startswith("$ ") for line in lines)
    number = 0
    while number < len(lines):
        first, line = number, lines[number]
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line = line[:-1] + " " + lines[number].lstrip("> ")
        number += 1
        if prompts and not line.startswith("$ "):
            continue
        for words in _simple_commands(line.removeprefix("$ ")):
            yield block.line + first, words


def _simple_commands(line: str) -> Iterator[list[str]]:
    line = re.sub(r"(^|\s)\d+(?=[<>])", r"\1", line)  # the descriptor of a redirection is no word
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;()<>")
    lexer.whitespace_split = True
    words: list[str] = []
    tokens = iter([*lexer, ";"])
    for token in tokens:
        if token in _SEPARATORS:
            if words:
                yield words
            words = []
        elif token.strip("<>&"):
            words.append(token)
        else:  # a redirection, and the file it leads to
            next(tokens, None)


def command_fault(words: list[str], parser: Any) -> str | None:
    """What is wrong with one simple command, or None; commands of other programs are nobody's business."""
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        words = words[1:]
    program = words[0].rpartition("/")[2] if words else ""
    if program == "embank":
        return embank_fault(words[1:], parser)
    if program == "make":
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        unknown = [target for target in targets if target not in make_targets()]
        return f"no make target {', '.join(unknown)}" if unknown else None
    if re.fullmatch(r"python[\d.]*", program) and "-m" in words[:-1]:
        module = words[words.index("-m") + 1]
        return None if _exists(module) else f"no module {module}"
    return None


def make_targets() -> set[str]:
    makefile = ROOT / "Makefile"
    text = makefile.read_text() if makefile.exists() else ""
    return {name for line in re.findall(r"^([\w .-]+):(?!=)", text, re.M) for name in line.split()}


def embank_parser() -> Any:
    """The application's command tree with nothing to run: parsing alone is left."""
    from typer.main import get_command

    import cli

    def disarm(command: Any) -> None:
        command.callback = None
        for inner in getattr(command, "commands", {}).values():
            disarm(inner)

    tree = get_command(cli.app)
    disarm(tree)
    return tree


def embank_fault(arguments: list[str], parser: Any) -> str | None:
    """Why the command line refuses these arguments, or None. Files need not exist."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            parser.main(list(arguments), prog_name="embank", standalone_mode=False)
    except Exception as error:  # the classes differ between versions of typer
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        harmless = type(error).__name__ in ("Exit", "NoArgsIsHelpError") or "does not exist" in message
        return None if harmless else message.splitlines()[0]
    return None


# Python


def python_faults(
    block: Block, made: frozenset[str] = frozenset(), *, imports: bool = True
) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of a Python block: syntax, and imports that lead nowhere.

    Args:
        made: modules that the page makes.
        imports: whether to look at them.
    """
    text = _without_prompts(block.text)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield block.line + (error.lineno or 1) - 1, f"does not compile: {error.msg}"
        return
    for node in ast.walk(tree) if imports else ():
        if isinstance(node, ast.Import):
            missing = [
                alias.name for alias in node.names if alias.name not in made and not _exists(alias.name)
            ]
        elif isinstance(node, ast.ImportFrom):
            missing = [a.name for a in node.names if not _offers(node.module or "", a.name, made)]
        else:
            continue
        if missing:
            yield block.line + node.lineno - 1, f"cannot import {', '.join(missing)}"


def _without_prompts(text: str) -> str:
    lines = text.splitlines()
    if not any(line.startswith(">>> ") for line in lines):
        return text
    return "\n".join(line[4:] if line.startswith((">>> ", "... ")) else "" for line in lines)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _offers(module: str, name: str, made: frozenset[str]) -> bool:
    if {module, f"{module}.{name}"} & made:
        return True
    if not _exists(module):
        return False
    return hasattr(importlib.import_module(module), name) or _exists(f"{module}.{name}")


# Links and paths


def link_faults(page: Path, prose: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of links inside the repository."""
    for number, line in prose:
        plain = re.sub(r"`[^`]*`", "", line)
        targets = [*_LINK.findall(plain), *_HTML.findall(plain), *_REFERENCE.findall(plain)]
        for target in targets:
            fault = _target_fault(page, target)
            if fault:
                yield number, fault


def name_faults(prose: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) where a text names a file of the repository."""
    for number, line in prose:
        for name in _NAMED.findall(line):
            if next(ROOT.glob(name), None) is None:
                yield number, f"`{name}`: no such file"


def _target_fault(page: Path, target: str) -> str | None:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|//", target):
        return None
    path, _, anchor = urllib.parse.unquote(target).partition("#")
    there = page if not path else (ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path)
    if not there.exists():
        return f"link to {target}: no such file"
    if anchor and there.suffix == ".md" and anchor not in anchors(there.read_text()):
        return f"link to {target}: no such heading"
    return None


def anchors(page: str) -> set[str]:
    """The anchors GitHub gives to a page's headings, and those set by hand."""
    found: dict[str, int] = {}
    names = set(re.findall(r"<a\s+(?:name|id)=\"([^\"]+)\"", page))
    for _, line in split_page(page)[1]:
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            count = found[slug] = found.get(slug, -1) + 1
            names.add(f"{slug}-{count}" if count else slug)
    return names


def path_faults(page: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) where a text names a path of somebody's machine."""
    for number, line in enumerate(page.splitlines(), 1):
        for match in _MACHINE.finditer(line):
            yield number, f"path of a machine: {match[0]}"


# All of it


def page_faults(page: Path, parser: Any) -> list[tuple[int, str]]:
    """(line, what is wrong) of one Markdown page, in order."""
    text = page.read_text(encoding="utf-8")
    blocks, prose = split_page(text)
    found = [*path_faults(text), *link_faults(page, prose), *name_faults(prose)]
    lines, made = dict(prose), modules_made(text)
    for block in blocks:
        if block.language in SHELL:
            found += [fault for fault in _shell_faults(block, parser) if not _is_made(fault[1], made)]
        elif block.language in PYTHON:
            imports = "<!-- not run:" not in lines.get(block.line - 2, "")
            found += python_faults(block, made, imports=imports)
    return sorted(found)


def _is_made(fault: str, made: frozenset[str]) -> bool:
    """Whether a fault is about a command that the page makes itself; its test runs it."""
    commands = (module.rpartition(".")[2] for module in made if module.startswith("engine.commands."))
    return any(f"No such command '{name}'" in fault for name in commands)


def modules_made(text: str) -> frozenset[str]:
    """The modules that a page saves as files."""
    names = re.findall(r"<!-- save as: (\S+)\.py -->", text)
    return frozenset(name.replace("/", ".").removesuffix(".__init__") for name in names)


def commands_without_page(parser: Any, texts: Sequence[str]) -> list[str]:
    """The commands of embank that no shell block of these pages uses."""
    used = set()
    for text in texts:
        for block in split_page(text)[0]:
            if block.language in SHELL:
                used |= {tuple(words[:3]) for _, words in shell_commands(block)}
    return [
        " ".join(words)
        for words in _leaves(parser, ("embank",))
        if not any(each[: len(words)] == words for each in used)
    ]


def _leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    inner = {name: each for name, each in getattr(command, "commands", {}).items() if not each.hidden}
    if not inner:
        yield words
    for name, each in inner.items():
        yield from _leaves(each, (*words, name))


def _shell_faults(block: Block, parser: Any) -> Iterator[tuple[int, str]]:
    try:
        for line, words in shell_commands(block):
            fault = command_fault(words, parser)
            if fault:
                yield line, f"`{shlex.join(words)}`: {fault}"
    except ValueError as error:
        yield block.line, f"no shell reads this block: {error}"


def pages() -> list[Path]:
    """Markdown files that git knows or would take in."""
    return _files("*.md")


def sources() -> list[Path]:
    """Python files likewise, but for those that are about paths of machines."""
    return [path for path in _files("*.py") if path.name not in (Path(__file__).name, "test_docs.py")]


def _files(pattern: str) -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", pattern]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()})


def main() -> int:
    """Print what is wrong, and say how much was looked at."""
    sys.path.insert(0, str(ROOT))
    parser = embank_parser()
    count = 0
    for page in pages():
        for line, fault in page_faults(page, parser):
            count += 1
            print(f"{page.relative_to(ROOT)}:{line}: {fault}")
    for command in commands_without_page(parser, [page.read_text(encoding="utf-8") for page in pages()]):
        count += 1
        print(f"{command}: on no page")
    for source in sources():
        for line, fault in path_faults(source.read_text(encoding="utf-8")):
            count += 1
            print(f"{source.relative_to(ROOT)}:{line}: {fault}")
    print(f"{len(pages())} pages, {count} faults", file=sys.stderr)
    return 1 if count or not pages() else 0


if __name__ == "__main__":
    sys.exit(main())
