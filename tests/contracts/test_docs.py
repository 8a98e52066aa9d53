"""The documentation is true to the command line and the code; and the check that says so can fail."""

from pathlib import Path
from typing import Any

import pytest

from tests import docs_check


@pytest.fixture(scope="module")
def parser() -> Any:
    return docs_check.embank_parser()


def faults(tmp_path: Path, text: str, parser: Any) -> list[tuple[int, str]]:
    page = tmp_path / "page.md"
    page.write_text(text)
    return docs_check.page_faults(page, parser)


def shell(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])


def test_the_documentation_holds(parser: Any) -> None:
    found = {
        f"{page.relative_to(docs_check.ROOT)}:{line}: {fault}"
        for page in docs_check.pages()
        for line, fault in docs_check.page_faults(page, parser)
    }
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        shell("embank manifest folder images -o m.parquet && embank manifest check m.parquet"),
        shell("embank embed m.parquet --model torchvision/resnet18 \\", "    --bank bank  # a comment"),
        shell("$ embank doctor", "embank wrote this", "$ .venv/bin/embank doctor --json | jq ."),
        shell("embank --help", "embank manifest --help", "embank"),
        shell("X=1 embank doctor > out.txt 2> err.txt 2>&1", "make test", "python3 -m stores.bank.reader"),
        "```text\nembank no such thing\n```",
        "```python\nfrom stores.manifest.manifest import Manifest\nimport numpy as np\n```",
        "```python\n>>> from stores.manifest import manifest\n>>> 1 +\\\n... 1\n2\n```",
        "# A heading, `here`\n\n[a](#a-heading-here) [d](page.md#a-heading-here)",
        "[b](https://example.org/x) `[c](nowhere)` [e](mailto:a@example.org)",
        "`engine/models/catalog/*.py`, `stores/errors.py`, `.ci/run`, and `a/b.py` of somebody else",
        "see /tmp/images, and https://example.org/work/x, and ../home/x",
    ],
)  # fmt: skip
def test_right_pages_pass(text: str, tmp_path: Path, parser: Any) -> None:
    assert faults(tmp_path, text, parser) == []


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (shell("", "embank nonsense"), 3, "nonsense"),
        (shell("embank manifest nonsense"), 2, "nonsense"),
        (shell("embank manifest check m.parquet --nonsense"), 2, "--nonsense"),
        (shell("embank manifest check a b"), 2, "unexpected extra argument"),
        (shell("embank embed m.parquet"), 2, "Missing option"),
        (shell("true && embank doctor \\", "   --nonsense"), 2, "--nonsense"),
        (shell("$ embank doctor --nonsense", "output"), 2, "--nonsense"),
        (shell("embank 'open"), 2, "no shell reads"),
        (shell("make nonsense"), 2, "no make target nonsense"),
        (shell("python -m benchmarks.nonsense"), 2, "no module benchmarks.nonsense"),
        ("```python\nx =\n```", 2, "does not compile"),
        ("```python\n\nimport no_such_package\n```", 3, "cannot import no_such_package"),
        ("```python\nfrom stores.manifest.manifest import NoSuchThing\n```", 2, "cannot import NoSuchThing"),
        ("text\n[a](absent.md)", 2, "no such file"),
        ("![a](absent.png)", 1, "no such file"),
        ('<img src="absent.svg" width="3">', 1, "no such file"),
        ("[a]: absent.md", 1, "no such file"),
        ("[![badge](https://example.org/b.svg)](absent)", 1, "no such file"),
        ("written in `engine/no_such_file.py`", 1, "no such file"),
        ("# Here\n[a](#there)", 2, "no such heading"),
        ("it lies in /home/someone/data", 1, "path of a machine"),
        ("```text\n/Users/someone\n```", 2, "path of a machine"),
    ],
)
def test_wrong_pages_fail(text: str, line: int, says: str, tmp_path: Path, parser: Any) -> None:
    found = faults(tmp_path, text, parser)
    assert len(found) == 1
    assert found[0][0] == line
    assert says in found[0][1]


def test_headings_get_githubs_anchors() -> None:
    page = "# One & two\n## Exit codes\n## Exit codes\n```\n# no heading\n```\n### [Link](x) 1.2 `a_b`\n"
    page += '<a id="own"></a>'
    assert docs_check.anchors(page) == {"one--two", "exit-codes", "exit-codes-1", "link-12-a_b", "own"}
