"""The reference has every command, option and public name; the pictures are drawn from today's rules."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import embank
from tests import docs_check

DOCS = docs_check.ROOT / "docs"


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return module(DOCS / "_ext" / "cli_reference.py")


def test_every_command_and_option_is_described(reference: ModuleType) -> None:
    described = {
        words: reference.described(words, command) for words, command in reference.commands(reference.tree())
    }
    assert {("embank", "embed"), ("embank", "bank", "verify")} <= set(described)
    for words, command in reference.commands(reference.tree()):
        for parameter in command.params:
            told = parameter.name in ("help", "install_completion", "show_completion")
            if not told and not getattr(parameter, "hidden", False):
                name = parameter.opts[0] if parameter.param_type_name == "option" else ""
                assert f"`{name}" in described[words], (words, name)
        assert described[words].startswith("#")
        assert all(row.count(" | ") >= 3 for row in described[words].splitlines() if row.startswith("|"))


def test_every_public_name_is_described() -> None:
    page = (DOCS / "reference" / "python.md").read_text()
    described = set(re.findall(r"^\.\. auto\w+:: embank\.(\w+)", page, re.M))
    assert described == set(embank.__all__) - {"__version__"}


def test_every_command_is_used_on_a_page() -> None:
    parser = docs_check.embank_parser()
    texts = [page.read_text() for page in docs_check.pages()]
    assert docs_check.commands_without_page(parser, texts) == []
    assert "embank doctor" in docs_check.commands_without_page(parser, ["```sh\nembank models list\n```"])


def test_the_pictures_are_drawn_from_the_import_rules() -> None:
    draw = module(DOCS / "draw_pictures.py")
    for name, picture in draw.PICTURES.items():
        assert (DOCS / "pictures" / name).read_text() == picture(), "run `python docs/draw_pictures.py`"


def test_the_readme_is_a_door() -> None:
    assert len((docs_check.ROOT / "README.md").read_text().splitlines()) <= 120
