"""The command line is of one piece: an option is the same wherever it is, and no command is a long one."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

import cli
from engine.commands.choices import Backend, Distance, Plot, Precision, Uncertain
from engine.commands.declaring import MACHINE, OUTPUT, PROTOCOL, WHAT, Options, command, expanded, option
from tests.command import Ran, embank

ROOT = Path(__file__).parents[2]
COMMANDS = sorted((ROOT / "engine" / "commands").rglob("*.py"))
PANELS = [WHAT, PROTOCOL, MACHINE, OUTPUT]
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][a-z-]*(?<!-)")

#: Options of which a command may take some words of one set.
SOME_OF: dict[str, type[StrEnum]] = {
    "--backend": Backend,
    "--distance": Distance,
    "--plot": Plot,
    "--precision": Precision,
    "--uncertain": Uncertain,
}
#: Options that these commands take more than once, and others once.
REPEATED = {
    "--id": {"saliency", "reconstruct"},
    "--k": {"knn"},
    "--label": {"finetune", "probe"},
    "--model": {"embed", "fewshot", "finetune", "knn", "probe", "bank relabel", "compare", "reconstruct"}
    | {"models choose", "invariance", "saliency"},
}
#: Options that are something else in these commands: columns of a table, votes, a file for each model, folds
#: to test on.
OTHERWISE = {
    "--folds": {"probe"},
    "--id": {"manifest table"},
    "--seeds": {"reconstruct"},
    "--split": {"manifest table"},
    "--weights": {"embed", "finetune", "knn"},
}


def walk(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with its name, groups and the program itself (an empty name) included."""
    group = group or typer.main.get_command(cli.app)
    yield " ".join(path), group
    for name, each in getattr(group, "commands", {}).items():
        yield from walk(each, (*path, name))


TREE = dict(walk())


def options(given: Any) -> list[Any]:
    """The options of a command, but for typer's own."""
    return [o for o in given.params if o.param_type_name == "option" and "completion" not in str(o.name)]


def words(given: Any) -> set[str]:
    return {word for each in given.params for word in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}


def kind(each: Any) -> tuple[Any, ...]:
    """The type of an option: what it takes, within which bounds."""
    choices = tuple(getattr(each.type, "choices", ()))
    name = max(each.opts, key=len)
    if name in SOME_OF and set(choices) <= {word.value for word in SOME_OF[name]}:
        choices = ("some of", SOME_OF[name].__name__)
    return each.type.name, choices, *(getattr(each.type, end, None) for end in ("min", "max")), each.is_flag


def by_name() -> dict[str, dict[str, Any]]:
    """Longest name of an option -> command -> the option."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, given in TREE.items():
        for each in options(given):
            found[max(each.opts, key=len)][name] = each
    return found


@pytest.mark.parametrize("name", sorted(by_name()))
def test_an_option_is_the_same_in_every_command(name: str) -> None:
    everywhere = by_name()[name]
    other = OTHERWISE.get(name, set())
    same = [each for where, each in everywhere.items() if where not in other]
    assert len({(kind(o), tuple(o.opts), o.help, o.rich_help_panel) for o in same}) == 1
    assert name in REPEATED or len({each.multiple for each in same}) == 1
    assert other < everywhere.keys(), "a difference that is permitted is one that there is"


def test_differences_that_are_permitted_are_there() -> None:
    everywhere = by_name()
    for name in SOME_OF:
        assert len({tuple(each.type.choices) for each in everywhere[name].values()}) > 1, name
    for name, commands in REPEATED.items():
        assert commands == {where for where, each in everywhere[name].items() if each.multiple}, name
    for name, commands in OTHERWISE.items():
        usual = next(each for where, each in everywhere[name].items() if where not in commands)
        for where in commands:
            each = everywhere[name][where]
            assert (kind(each), each.multiple, each.help) != (kind(usual), usual.multiple, usual.help), where


@pytest.mark.parametrize("name", TREE)
def test_every_option_has_help_and_a_panel(name: str) -> None:
    given = TREE[name]
    for each in options(given):
        assert each.help and each.help.endswith("."), each.opts
        assert each.rich_help_panel in (PANELS if name else ["Options"]), each.opts
    panels = list(dict.fromkeys(each.rich_help_panel for each in options(given)))
    assert not name or panels == [panel for panel in PANELS if panel in panels], "in their order"
    for each in given.params:
        assert each.param_type_name == "option" or (each.help and each.metavar), each.name


@pytest.mark.parametrize("name", [name for name, given in TREE.items() if not hasattr(given, "commands")])
def test_a_description_names_options_of_its_command(name: str) -> None:
    texts = [TREE[name].help, *(each.help for each in options(TREE[name]) if not each.hidden)]
    for text in texts if name != "bench" else ():
        named = set(_OPTION.findall(re.sub("`[^`]*`", "", text)))
        lacking = named - words(TREE[name])
        assert not lacking, f"{text} ({', '.join(lacking)})"


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Functions of a file with their lines, decorators and signature included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            yield node.name, (node.end_lineno or 0) - first + 1


@pytest.mark.parametrize("path", [*COMMANDS, ROOT / "cli.py"], ids=lambda path: path.stem)
def test_commands_and_their_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450
    long = {name: lines for name, lines in functions(path) if lines >= 40}
    assert not long


def test_the_finder_of_functions_finds_commands() -> None:
    names = {name for path in COMMANDS for name, _ in functions(path)}
    callbacks = {given.callback.__name__ for name, given in TREE.items() if name and given.callback}
    assert len(callbacks) > 25 and callbacks <= names


# How commands are declared


class Drawing(Options):
    count: Annotated[int, option(PROTOCOL, min=1, help="How many.")]
    seed: Annotated[int, option(PROTOCOL, help="Another.")] = 7


Json = Annotated[bool, option(OUTPUT, "--json", help="As JSON.")]
Images = Annotated[Path, option(WHAT, "--images", help="A folder.")]


def test_dataclasses_are_expanded(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @command(app)
    def draw(
        where: Annotated[str, typer.Argument(help="A place.")],
        drawing: Drawing,
        images: Images,
        json: Json = False,
    ) -> None:
        """Draw a few,
        or many.

        Told by --count,
        and by --seed."""
        print(where, drawing, images, json)

    made = typer.main.get_command(app)
    assert [each.name for each in made.params[:5]] == ["where", "images", "count", "seed", "json"]
    assert made.help == "Draw a few, or many.\n\nTold by --count, and by --seed."
    made(["here", "--json", "--count", "3", "--images", "x"], standalone_mode=False)
    assert capsys.readouterr().out == f"here {Drawing(3, 7)} x True\n"
    drawing = Drawing(1)
    assert is_dataclass(drawing) and drawing == Drawing(count=1, seed=7)
    with pytest.raises(FrozenInstanceError):
        drawing.seed = 8  # type: ignore[misc]
    draw("there", drawing, Path("y"))
    assert "there" in capsys.readouterr().out, "the function itself is as it was"


def test_what_cannot_be_expanded_is_refused() -> None:
    def twice(count: Annotated[int, option(WHAT, help="Again.")], drawing: Drawing) -> None: ...

    def late(count: "int") -> None: ...

    with pytest.raises(TypeError, match="two parameters of one name"):
        expanded(twice)
    with pytest.raises(TypeError, match="texts"):
        expanded(late)


def test_the_former_name_of_a_backend_is_accepted_and_shown_nowhere() -> None:
    words = ("probe", "no-such-bank", "--model", "x", "--backend")
    former, unknown = embank(*words, "lockstep"), embank(*words, "magic")
    assert former.err == embank(*words, "batched").err and "no-such-bank" in former.err
    assert "lockstep" not in unknown.err + embank("probe", "--help").out


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (("knn", "bank", "--model", "x", "--distance", "centred"), "It is cosine or euclidean"),
        (
            ("fewshot", "bank", "--model", "x", "--distance", "euclidean"),
            "It is sqeuclidean, cosine or centred",
        ),
        (("fewshot", "bank", "--model", "x", "--mode", "paper"), "It is default or as-published"),
        (("probe", "bank", "--model", "x", "--backend", "faiss"), "It is batched, sklearn or cuml"),
        (("search", "bank", "--model", "x", "--backend", "cuml"), "It is auto, array or faiss"),
        (("saliency", "bank", "--model", "x", "--precision", "fp16"), "It is fp32 or bf16"),
        (("manifest", "build", "digits", "x", "-o", "m.csv", "--uncertain", "twos"), "ones or soft"),
    ],
)
def test_a_word_that_a_command_does_not_take_is_refused(given: tuple[str, ...], rule: str) -> None:
    ran: Ran = embank(*given)
    assert ran.code == 2 and ran.out == ""
    assert f"{given[-2]} {given[-1]!r}" in ran.err and rule in ran.err
    words = re.search(r"remedy: write for instance (\S+ \S+)\.", ran.err)
    assert words, ran.err
    again = embank(*given[:-2], *words[1].split())
    assert "write for instance" not in again.err, "the remedy is taken"
