"""What every adapter promises, the command line over them, and real radiographs with their real labels."""

import gzip
import inspect
import os
import shutil
from pathlib import Path

import pytest

from engine import datasets
from engine.errors import Refused
from stores.manifest.manifest import Manifest
from tests.command import embank
from tests.engine.datasets import trees

STUDY = ("bach", "chestx", "chexpert", "eyepacs", "ichallenge-amd", "ichallenge-pm", "montgomery", "shenzhen")
#: Real images, where there are any: `EMBANK_TEST_DATA`, or `shared/data` beside the checkout.
DATA = Path(os.environ.get("EMBANK_TEST_DATA") or Path(__file__).parents[4] / "shared/data")


@pytest.mark.parametrize("name", datasets.available())
def test_options_are_the_keywords_of_index(name: str) -> None:
    data_set = datasets.load(name)
    parameters = inspect.signature(data_set.index).parameters
    keywords = {k: p.default for k, p in parameters.items() if k not in ("root", "mode")}
    assert keywords == {option.name: option.default for option in data_set.facts.options}
    if expected := getattr(data_set, "expected", None):
        names = inspect.signature(expected).parameters
        assert {k: p.default for k, p in names.items() if k != "mode"} == keywords
    for option in data_set.facts.options:
        assert not (option.values and option.default) or option.default in option.values


@pytest.mark.parametrize("name", datasets.available())
def test_facts(name: str) -> None:
    facts = datasets.load(name).facts
    assert (
        facts.name == name
        and facts.title
        and facts.source
        and facts.licence
        and facts.groups
        and facts.caveats
    )
    assert facts.modes[0] == "default"
    assert sum(facts.classes.values()) == facts.images or not facts.classes
    page = datasets.page(facts)
    for option in facts.options:
        assert f"\n  {option.name}" in page
    assert facts.licence.split()[0] in page and max(map(len, page.splitlines())) <= 140


@pytest.mark.parametrize("name", STUDY)
def test_the_studys_sets_say_everything(name: str) -> None:
    facts = datasets.load(name).facts
    assert facts.modes == ("default", "as-published")
    assert facts.download and facts.layout and facts.label and facts.splits and facts.checked
    assert all(line.startswith("ROOT/") for line in facts.layout if line)


@pytest.mark.parametrize("name", STUDY)
def test_an_empty_folder_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=rf"embank datasets show {name}"):
        datasets.build(name, tmp_path)
    with pytest.raises(Refused, match=r"is a file|is missing"):
        (tmp_path / "file").touch()
        datasets.build(name, tmp_path / "file")


def test_unknown_modes_and_options() -> None:
    for mode, options, says in (
        ("paper", {}, "default and as-published"),
        ("default", {"colour": "1"}, "bach has seed"),
    ):
        with pytest.raises(Refused, match=says):
            datasets.build("bach", "nowhere", mode, options)
    with pytest.raises(Refused, match="digits has default"):
        datasets.build("digits", "nowhere", "as-published")
    with pytest.raises(Refused, match="It is one of ignore, zeros, ones, soft"):
        datasets.build("chexpert", "nowhere", options={"uncertain": "maybe"})


def test_view_pairs_need_the_column(tmp_path: Path) -> None:
    manifest = Manifest.from_columns({"uri": ["a.png"]}, tmp_path)
    with pytest.raises(Refused, match="column `pair`"):
        datasets.view_pairs(manifest)
    alone = Manifest.from_columns({"uri": ["a.png", "b.png"], "pair": ["b.png", "c.png"]}, tmp_path)
    assert datasets.view_pairs(alone).tolist() == [[0, 1]]


# The command line


def test_build_on_the_command_line(tmp_path: Path) -> None:
    rows = [trees.chexpert_row(n, 1, "view1_frontal", "-1.0" if n % 2 else "0.0") for n in range(1, 9)]
    root, out = trees.chexpert(tmp_path / "data", rows), tmp_path / "m.parquet"
    ran = embank(
        "manifest", "build", "chexpert", root, "-o", out, "--uncertain", "ones", "-O", "seed=1", "--json"
    )
    assert ran.code == 0 and ran.json["rows"] == 8 and ran.json["classes"] == ["negative", "positive"]
    assert "the whole data set has 223,414" in ran.err
    assert Manifest.read(out).classes == {"negative": 4, "positive": 4}
    again = embank("manifest", "build", "chexpert", root, "-o", out, "--mode", "as-published", "--force")
    assert again.code == 0, again.err
    assert Manifest.read(out).classes == {"negative": 8}
    assert embank("manifest", "check", out, "--json").code == 0
    for words, says in (
        (["-O", "seed"], "It reads NAME=VALUE"),
        (["-O", "colour=1"], "chexpert has label"),
        (["--mode", "paper"], "default or as-published"),
    ):
        ran = embank("manifest", "build", "chexpert", root, "-o", out, "--force", *words)
        assert ran.code == 2 and says in ran.err


@pytest.mark.parametrize("name", STUDY)
def test_show(name: str) -> None:
    ran = embank("datasets", "show", name)
    assert ran.code == 0
    for section in (
        "source",
        "licence",
        "download",
        "layout",
        "counts",
        "labels",
        "splits",
        "traps",
        "command",
    ):
        assert f"\n{section}" in ran.out
    facts = embank("datasets", "show", name, "--json").json
    assert facts["download"] and facts["options"][0]["name"]


# Real images


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "cxr3").is_dir(), reason="no real radiographs here (EMBANK_TEST_DATA)")
def test_real_radiographs_are_embedded_with_their_real_labels(tmp_path: Path) -> None:
    """Files with their names from NIH, sorted by others into pneumonia and no finding; the table agrees."""
    from engine.embed.run import embed
    from engine.models import resolve
    from engine.runtime import Runtime
    from stores.bank.reader import Bank

    truth = {}
    (tmp_path / "images").mkdir()
    for folder, label in (("pneumonia", "positive"), ("no_finding", "negative")):
        for path in (DATA / "cxr3" / folder).glob("????????_???.png"):
            shutil.copy(path, tmp_path / "images" / path.name)
            truth[path.stem] = label
    packed = trees.package_table("Data_Entry_2017_v2020.csv.gz").read_bytes()
    (tmp_path / "Data_Entry_2017_v2020.csv").write_bytes(gzip.decompress(packed))
    manifest = datasets.build("chestx", tmp_path, options={"label": "Pneumonia"})
    assert dict(zip(manifest.image_ids, manifest.column("label"), strict=True)) == truth
    spec = resolve("random/resnet18", recipe=resolve("random/resnet18").recipe.at(64))
    (report,) = embed(manifest, [spec], tmp_path / "bank", runtime=Runtime.resolve("cpu"))
    assert (report.ok, report.failed) == (len(truth), 0)
    features = Bank.open(tmp_path / "bank").features("random/resnet18")
    codes, names = features.labels, ["negative", "positive"]
    assert [names[code] for code in codes] == manifest.column("label")
