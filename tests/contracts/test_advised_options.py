"""An option that a message names is an option of the command that prints it, or of the one that it names.

Messages are found in the source: every text there with `--option`. Within backticks the option belongs to
the command that stands there (`embank embed --max-failed SHARE`); elsewhere it must be one of every command
that can print the message, which `WHERE` says for modules that serve some commands and not others.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import cli

ROOT = Path(__file__).parents[2]
SOURCES = [path for part in ("engine", "stores") for path in sorted((ROOT / part).rglob("*.py"))]
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
_COMMAND = re.compile(r"`embank ([^`]*)`")
_CODE = re.compile(r"`[^`]*`")
#: Programs of others whose options are named.
OTHERS = ("aws s3", "pip install", "dask ", "nvidia-smi")

EMBED, BACKBONE = ("embed",), ("embed", "saliency")
RESTORED = ("bank repair", "search", "invariance", "saliency")
#: Module, or the folder that it is in -> the commands that print its messages; others are open to any.
WHERE: dict[str, tuple[str, ...]] = {
    "engine/embed/certify.py": EMBED,
    "engine/embed/plan.py": ("embed", "bank repair"),
    "engine/embed/worker.py": ("embed", "bank repair"),
    "engine/commands/checking.py": ("embed",),
    "engine/commands/embed.py": EMBED,
    "engine/commands/fewshot.py": ("fewshot",),
    "engine/commands/finetune.py": ("finetune",),
    "engine/commands/invariance.py": ("invariance",),
    "engine/commands/knn.py": ("knn",),
    "engine/commands/probe.py": ("probe",),
    "engine/commands/processes.py": ("embed", "probe"),
    "engine/commands/saliency.py": ("saliency",),
    "engine/commands/search.py": ("search",),
    "engine/decode/deep.py": EMBED,  # its message says so
    "engine/decode": ("embed", "bank repair", "search", "invariance", "saliency"),
    "engine/datasets": ("manifest build",),
    "engine/evals/invariance/batch_norm.py": ("invariance", "saliency"),
    "engine/evals/comparison": ("compare",),
    "engine/evals/fewshot": ("fewshot",),
    "engine/evals/finetune": ("finetune",),
    "engine/evals/probe/fitted.py": ("probe",),
    "engine/evals/invariance": ("invariance",),
    "engine/evals/neighbours/knn.py": ("knn",),
    "engine/evals/neighbours/parts.py": ("knn",),
    "engine/evals/probe/lowshot.py": ("probe",),
    "engine/evals/probe/evaluate.py": ("probe",),
    "engine/evals/probe/bank.py": ("probe",),
    "engine/evals/probe/options.py": ("probe",),
    "engine/evals/probe/as_published.py": ("probe",),
    "engine/evals/saliency": ("saliency",),
    "engine/commands/reconstruct.py": ("reconstruct",),
    "engine/evals/reconstruction": ("reconstruct",),
    "engine/models/backbones/feature_maps.py": ("reconstruct",),
    "engine/models/forward/feature_map.py": ("reconstruct",),
    "engine/report/reconstruct_gallery.py": ("reconstruct",),
    "engine/report/reconstruct_progress.py": ("reconstruct",),
    "engine/commands/perceptual.py": ("perceptual",),
    "engine/evals/perceptual": ("perceptual",),
    "engine/models/perceptual.py": ("perceptual",),
    "engine/report/perceptual_text.py": ("perceptual",),
    "engine/evals/neighbours/search.py": ("search",),
    "engine/evals/neighbours/approximate.py": ("search",),
    "engine/evals/probe/selection.py": ("probe",),
    "engine/evals/probe/solvers.py": ("probe",),
    "engine/evals/probe/parts.py": ("finetune", "probe"),
    "engine/embed/inputs.py": ("embed", "bank repair"),
    "engine/kernels/topk.py": ("knn", "search"),
    "engine/kernels/episodes.py": ("fewshot",),
    "engine/kernels/occlusion.py": ("saliency",),
    "engine/kernels/prototypes.py": ("fewshot",),
    "engine/kernels/transforms.py": ("invariance",),
    "engine/kernels/whitening.py": ("invariance",),
    "engine/models/checkpoints/download.py": ("models fetch",),
    "engine/models/checkpoints/sources.py": ("embed", "saliency", "models show"),
    "engine/quickstart.py": ("quickstart",),
    "engine/embed/repair.py": ("bank repair",),
    "engine/report/overlays.py": ("saliency",),
    "engine/report/views.py": ("invariance",),
    "engine/embed/restore.py": RESTORED,
    "engine/executors": ("embed", "probe"),
    "stores/bank/export.py": ("bank export",),
    "stores/manifest/check.py": ("manifest check",),
    "stores/members": (*RESTORED, "embed", "manifest check"),
    "stores/outputs.py": (
        "manifest folder",
        "manifest table",
        "manifest build",
        "probe",
        "compare",
        "search",
        "bank audit",
        "records export",
        "report",
    ),
}


@functools.cache
def options() -> dict[str, set[str]]:
    """Command -> its options."""
    group = typer.main.get_command(cli.app)
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for inner, each in getattr(command, "commands", {"": command}).items():
            words = {word for option in each.params for word in (*option.opts, *option.secondary_opts)}
            found[f"{name} {inner}".strip()] = words | {"--help"}
    return found


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a module that are no docstrings, an f-string as one, with `{}` for its values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside, skipped = set[int](), set[int]()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            skipped.add(id(body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            parts = [str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield node.lineno, "".join(parts)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in skipped | inside
        ):
            yield node.lineno, node.value


def fits(name: str, known: dict[str, set[str]]) -> tuple[str, ...]:
    """The commands that print a module's messages."""
    parts = Path(name).parts
    places = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return next((WHERE[place] for place in reversed(places) if place in WHERE), ())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_options_that_messages_name_exist_where_they_are_printed(path: Path) -> None:
    known, name = options(), path.relative_to(ROOT).as_posix()
    every = set().union(*known.values())
    for line, text in texts(path):
        if not _OPTION.search(text) or any(other in text for other in OTHERS):
            continue
        where = f"{name}:{line}: {text}"
        for words in _COMMAND.findall(text):
            command = next((c for c in known if words == c or words.startswith(f"{c} ")), None)
            named = set(_OPTION.findall(words))
            assert not named or command is not None, where
            assert named <= known.get(command or "", set()), where
        for option in _OPTION.findall(_CODE.sub("", text)):
            commands = fits(name, known)
            assert option in every, where
            lacking = [command for command in commands if option not in known[command]]
            assert not lacking, f"{where}: {', '.join(lacking)} lack {option}"


def test_the_table_names_modules_and_commands_that_exist() -> None:
    known = options()
    for place, commands in WHERE.items():
        assert (ROOT / place).exists(), place
        assert set(commands) <= known.keys(), place
