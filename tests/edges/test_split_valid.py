"""Splits by any of their usual names are train, val and test; rows of other splits are counted by name."""

from pathlib import Path

import pytest

from engine.errors import Refused
from engine.evals.fewshot.bank import fewshot_from_bank
from engine.evals.fewshot.evaluate import Protocol
from engine.evals.neighbours.knn import KnnOptions, knn_from_bank
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions
from engine.evals.probe.parts import SplitOptions
from stores.bank.records import read_all
from stores.manifest.manifest import Manifest
from tests.command import embank
from tests.text_banks import EDGES, MODEL, as_earlier, bank_of

FOLDER = EDGES / "split-valid"
WORDS = {
    "train": ("train", "Training", "TRAIN", "train ", "training set", "trn"),
    "val": ("valid", "Validation", "dev", "VAL", "val\u200b", "valid_set", "development"),
    "test": ("testing", "TEST", "test-set", "test split"),
}
FAST = ProbeOptions(C=(0.1, 1.0), bootstrap=0)


def _parts(manifest: Manifest) -> dict[str, int]:
    column = manifest.column("split")
    return {name: column.count(name) for name in sorted(set(column))}


@pytest.mark.parametrize("name", ["valid.csv", "space_split.csv"])
def test_every_row_has_its_part_and_the_note_says_so(name: str) -> None:
    manifest = Manifest.read(FOLDER / name)
    assert _parts(manifest) == {"test": 20, "train": 20, "val": 20}
    assert any(note.startswith("column split: ") for note in manifest.notes)


@pytest.mark.parametrize(("part", "word"), [(part, word) for part, words in WORDS.items() for word in words])
def test_usual_words(part: str, word: str) -> None:
    manifest = Manifest.from_columns({"uri": ["a.png", "b.png"], "split": [word, "holdout"]}, "/r")
    assert manifest.column("split") == [part, "holdout"]
    if word.strip() != part and "\u200b" not in word:
        assert f"column split: 1 rows of {word!r} are `{part}`" in manifest.notes


def test_two_words_of_one_part_become_one() -> None:
    manifest = Manifest.from_columns({"uri": ["a", "b", "c"], "split": ["val", "dev", "offset"]}, "/r")
    assert manifest.column("split") == ["val", "val", "offset"]
    assert manifest.notes == ("column split: 1 rows of 'dev' are `val`",)


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bank of today's reading, that of an earlier version, and one with a split of another name."""
    root = tmp_path_factory.mktemp("splits")
    manifest = Manifest.read(FOLDER / "valid.csv")
    frame = manifest.frame
    frame.loc[frame["split"] == "val", "split"] = "holdout"
    frame.loc[:2, "split"] = ""
    made = {"now": manifest, "earlier": as_earlier(manifest), "other": Manifest.from_frame(frame, "/r")}
    return {name: Path(str(bank_of(each, root / name).path)) for name, each in made.items()}


def test_a_probe_chooses_C_on_the_valid_rows(banks: dict[str, Path]) -> None:
    for name in ("now", "earlier"):
        (found,) = probes_from_bank(banks[name], [MODEL], options=FAST)
        assert found["images"] == {"train": 20, "val": 20, "test": 20}
        assert found["other_splits"] == {}
        assert ("Split 'val' is 'valid' here" in found["notes"]) == (name == "earlier")
    (found,) = probes_from_bank(banks["now"], [MODEL], BankProbe(splits=SplitOptions(val="dev")), FAST)
    assert found["images"]["val"] == 20 and "Split 'dev' is 'val' here" in found["notes"]


def test_rows_of_other_splits_are_counted_by_name_in_output_and_record(banks: dict[str, Path]) -> None:
    bank = banks["other"]
    frame_counts = {"holdout": 19, "": 3}
    (probed,) = probes_from_bank(bank, [MODEL], options=FAST)
    near = knn_from_bank(bank, MODEL, KnnOptions(k=(3,)))
    shots = fewshot_from_bank(
        bank, MODEL, Protocol(n_way=2, n_shot=2, n_query=2, episodes=5), split="training"
    )
    assert probed["other_splits"] == near["other_splits"] == frame_counts
    assert sum(probed["images"].values()) + 22 == 60
    assert near["train_images"] + near["test_images"] + 22 == 60
    assert shots["other_splits"] == {**frame_counts, "test": 19} and shots["outside_split"] == 41
    said = "22 images of other splits take no part: holdout 19, without a split 3"
    assert said in probed["notes"]
    records = {record.kind: record for record in read_all(bank)}
    for kind in ("probe", "knn"):
        assert records[kind].metrics["other_splits"] == frame_counts
    assert records["fewshot"].metrics["other_splits"]["holdout"] == 19
    ran = embank("knn", bank, "--model", MODEL, "--k", 3, "--device", "cpu")
    assert said in ran.out
    words = (
        "--n-way",
        2,
        "--n-shot",
        2,
        "--n-query",
        2,
        "--episodes",
        5,
        "--split",
        "Test",
        "--device",
        "cpu",
    )
    ran = embank("fewshot", bank, "--model", MODEL, *words)
    assert "holdout 19" in ran.out and "Split 'Test' is 'test' here" in ran.out


def test_two_words_for_one_split_are_refused(banks: dict[str, Path]) -> None:
    with pytest.raises(Refused, match="both parts"):
        knn_from_bank(banks["now"], MODEL, KnnOptions(k=(3,)), train_split="val", test_split="valid")
    with pytest.raises(Refused, match="no-such"):
        knn_from_bank(banks["now"], MODEL, KnnOptions(k=(3,)), train_split="no-such")


def test_what_an_evaluation_leaves_out_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Pairs without a partner, failed images of a search: a reader sees them without --json."""
    from engine.report.invariance_text import print_invariances
    from engine.report.search_text import print_search

    numbers = {"cosine": 0.5, "ci95": 0.1, "baseline": 0.0, "mahalanobis": 1.0, "n": 4}
    covariance = {"images": 9, "dimensions": 2, "regularisation": "none", "condition": 1.0}
    left = {"without_partner": 3, "failed": 2, "other_label": 0}
    pairs = {"model": "m", "transform": "multi-view", **numbers, "covariance": covariance, "left_out": left}
    print_invariances([pairs])
    found = {"model": "m", "distance": "cosine", "k": 1, "images": 7, "masked": 2, "index": "exact"}
    print_search({**found, "query": {}}, [], "a.png")
    out = capsys.readouterr().out
    assert "multi-view: left out: 3 without partner, 2 failed" in out
    assert "7 images searched, 2 without an embedding left out" in out
