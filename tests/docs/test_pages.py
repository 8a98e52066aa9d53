"""Every command and snippet of the documentation does what its page says; and the check of that can fail."""

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs_check import ROOT

RUN = [page for page in pages.pages() if any(step.runs for step in pages.steps(page.read_text()))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pages.prepare(tmp_path_factory.mktemp("tutorial"))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_can_be_followed(page: Path, prepared: Path, tmp_path: Path) -> None:
    reader = pages.folder_for(page, tmp_path, prepared)
    with pages.surroundings(page):
        for step in pages.steps(page.read_text()):
            follow_step(page, step, reader)


def follow_step(page: Path, step: pages.Step, reader: pages.Reader) -> None:
    try:
        printed = reader.take(step)
    except Exception as error:
        raise AssertionError(f"{page.name}:{step.block.line}: {error}") from error
    if step.output is not None:
        assert pages.shows(step, printed), f"{page.name}:{step.output.line}: it prints\n{printed}"


def test_what_is_not_run_says_why_and_is_little() -> None:
    blocks = [(page, step) for page in pages.pages() for step in pages.steps(page.read_text())]
    reasons = [step.comments["not run"] for _, step in blocks if "not run" in step.comments]
    assert all(reason.startswith("needs ") for reason in reasons)
    assert len(reasons) < sum(step.runs for _, step in blocks) / 2


PAGE = """\
# A page

```sh
echo one   # a comment
for i in 2 3; do
    echo $i
done
```

```text
one
2
3
```

<!-- save as: code/three.py -->
```python
print(1.2345)
```

```sh
python code/three.py
```

Words between.

```text
not an output
```

```python
x = 2 + 1
```

```python
print(x)
```

```text
3
```

<!-- exit code: 4 -->
```sh
bash -c 'exit 4'
```

<!-- not run: needs a moon -->
```sh
moon
```
"""


def follow(text: str, folder: Path) -> list[tuple[str, str | None]]:
    reader = pages.Reader(folder)
    return [(reader.take(step), step.output and step.output.text) for step in pages.steps(text)]


def test_blocks_run_in_order_in_one_folder(tmp_path: Path) -> None:
    printed = [("one\n2\n3\n", "one\n2\n3"), ("", None), ("1.2345\n", None), ("", None), ("", None)]
    assert follow(PAGE, tmp_path) == [*printed, ("3\n", "3"), ("", None), ("", None)]
    assert (tmp_path / "code" / "three.py").is_file()


@pytest.mark.parametrize(
    "block",
    [
        "```sh\nfalse\n```",
        "```sh\nfalse\ntrue\n```",
        "```sh\nfalse | cat\n```",
        "<!-- exit code: 2 -->\n```sh\ntrue\n```",
        "```python\n1 / 0\n```",
        "```sh\nembank no-such-command\n```",
    ],
)
def test_a_block_that_fails_is_seen(block: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ZeroDivisionError)):
        follow(block, tmp_path)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("accuracy 0.8750, 0.11 s", "accuracy  0.8751, 12 s"),
        ("model  key\n──────\nr18  4352e1ec8e44", "model  key\n────────\nr18    855600221066"),
        ("first\n...\nlast", "first\n1\n2\nlast\n"),
        ("0.556-0.889", "0.560-0.880"),
        ("26.7 img/s at 2026-11-30T01:02:03Z", "1.3 img/s at 2027-01-01T10:00:00Z"),
    ],
)
def test_times_digests_and_rounding_make_no_difference(shown: str, printed: str) -> None:
    assert pages.alike(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("accuracy 0.87", "accuracy 0.92"),
        ("96 images", "97 images"),
        ("ok", "failed"),
        ("one", "one\ntwo"),
        ("one\ntwo", "one"),
        ("first\n...\nlast", "first\n1"),
        ("0.5 of 10", "0.5 of 11"),
    ],
)
def test_other_differences_are_seen(shown: str, printed: str) -> None:
    assert not pages.alike(shown, printed)


def test_where_numbers_vary_words_do_not() -> None:
    shown, printed = "k  accuracy\n5  0.65\n\nmodel, 20 images", "k     accuracy\n5  0.7000\nmodel, 20 images"
    assert pages.alike(shown, printed, numbers_vary=True)
    assert not pages.alike(shown, printed.replace("accuracy", "AUROC"), numbers_vary=True)
    assert not pages.alike(shown, "", numbers_vary=True)


def test_a_difference_changes_the_lines_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\nthree\n")
    pages.change(tmp_path / "a.py", " one\n-two\n+2")
    assert (tmp_path / "a.py").read_text() == "one\n2\nthree\n"
    with pytest.raises(AssertionError, match="0 times"):
        pages.change(tmp_path / "a.py", "-two\n+2")
