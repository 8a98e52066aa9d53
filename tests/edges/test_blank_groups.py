"""Groups of a space, `None` and their kin: each such image is a patient of its own, everywhere."""

from pathlib import Path

import numpy as np
import pytest

from engine.evals.fewshot.bank import fewshot_from_bank
from engine.evals.fewshot.evaluate import Protocol
from engine.evals.neighbours.audit import audit
from engine.evals.neighbours.knn import KnnOptions, knn_from_bank
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions
from engine.evals.probe.parts import SplitOptions
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.said import codes
from tests.text_banks import EDGES, MODEL, bank_of

FOLDER = EDGES / "blank-groups"
WORDS = (
    "",
    " ",
    "\u00a0",
    "\u200b",
    "None",
    "none",
    "NULL",
    "NaN",
    "NA",
    "n/a",
    "<NA>",
    "-",
    "\u2013",
    " NA ",
)


def _table(word: str, path: Path) -> Path:
    """The table of the folder with another word for its blank groups."""
    lines = (FOLDER / "none_group.csv").read_text().splitlines()
    path.write_text("\n".join(line.replace(",None", f",{word}") for line in lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("name", ["blank_group.csv", "none_group.csv"])
def test_blank_groups_are_missing_and_counted(name: str) -> None:
    manifest = Manifest.read(FOLDER / name)
    codes, names = manifest.codes("group")
    assert ((codes < 0).sum(), len(names)) == (30, 30)
    assert [note for note in manifest.notes if note.startswith("column group: 30 cells are missing")]
    problems = {problem.code: problem.count for problem in check(manifest, files=False).problems}
    assert problems["group_missing"] == 30 and "group_across_splits" not in problems


@pytest.mark.parametrize("word", WORDS)
def test_every_word_for_nothing_is_a_missing_group(word: str, tmp_path: Path) -> None:
    manifest = Manifest.read(_table(word, tmp_path / "t.csv"))
    assert manifest.digest == Manifest.read(_table("", tmp_path / "u.csv")).digest
    assert bool(manifest.notes) == (word != "")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("blank")
    return Path(str(bank_of(Manifest.read(FOLDER / "blank_group.csv"), root).path))


def test_evaluations_take_a_missing_group_as_a_patient_of_its_own(bank: Path) -> None:
    """30 named patients and 30 images without: 60 patients to resample, and no vote is lost to a blank."""
    (found,) = probes_from_bank(
        bank, [MODEL], BankProbe(splits=SplitOptions(holdout=False)), ProbeOptions(C=(0.1, 1.0), bootstrap=50)
    )
    assert found["test"]["intervals"]["accuracy"]["groups"] == found["images"]["test"] == 20
    assert not [code for code in codes(found) if "patient" in code]
    options = {"k": (20,), "distance": "euclidean"}
    apart = knn_from_bank(bank, MODEL, KnnOptions(**options, group_disjoint=True))
    plain = knn_from_bank(bank, MODEL, KnnOptions(**options, group_disjoint=False))
    assert apart["by_k"] == plain["by_k"] != []
    alone = knn_from_bank(bank, MODEL, KnnOptions(k=(59,), group_disjoint=True), leave_one_out=True)
    assert alone["train_images"] == 60
    shots = fewshot_from_bank(
        bank, MODEL, Protocol(n_way=2, n_shot=5, n_query=5, episodes=20, group_disjoint=True), bootstrap=50
    )
    assert shots["bootstrap"]["groups"] > 31
    assert audit(bank, MODEL).report["groups"]["across_splits"] == 0


def test_a_frame_with_missing_groups_reads_alike() -> None:
    import pandas as pd

    for blank in (None, np.nan, "None", " "):
        frame = pd.DataFrame({"uri": ["a.png", "b.png", "c.png"], "group": ["p", blank, blank]})
        assert Manifest.from_frame(frame, "/r").column("group") == ["p", "", ""]
