"""The same patients in train and test, in spellings that nobody sees or that mean nothing."""

from pathlib import Path

import pytest

from engine.evals.neighbours.audit import audit
from engine.evals.probe.bank import probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from stores.manifest.problems import CheckReport
from tests.command import embank
from tests.said import said
from tests.text_banks import EDGES, MODEL, as_earlier, bank_of

FOLDER = EDGES / "invisible-differences-groups"
#: What is put behind or into each test patient's name: nobody sees it.
UNSEEN = (" ", "\u00a0", "\u200b", "\ufeff", "\u00ad", "\t", "\ufe0f", "\u2060", "\u3000")
#: (train, test): nobody means another patient.
SPELT = (("P{}", "p{}"), ("{}", "00{}"), ("{}", "{}.0"), ("{}", "{}.00"), ("Pat-0{}", "pat-{}.0"))


def _codes(report: CheckReport) -> dict[str, int]:
    return {problem.code: problem.count for problem in report.problems}


def _table(path: Path, train: str, test: str) -> Path:
    """The plain table with the test patients' names, and the others', in another form."""
    lines = (FOLDER / "leak_plain.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    form = {"train": train, "test": test}
    new = [",".join([*row[:3], form[row[2]].format(row[3][1:])]) for row in rows]
    path.write_text("\n".join([lines[0], *new]) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(("name", "code"), [
    ("leak_plain.csv", "group_across_splits"),
    ("leak_space.csv", "group_across_splits"),
    ("leak_float.csv", "group_spelling_across_splits"),
])  # fmt: skip
def test_check_sees_the_leak(name: str, code: str) -> None:
    report = check(Manifest.read(FOLDER / name), files=False)
    assert _codes(report)[code] == 20
    assert report.ok == (code == "group_spelling_across_splits")


@pytest.mark.parametrize("sign", UNSEEN)
def test_what_nobody_sees_makes_no_other_patient(sign: str, tmp_path: Path) -> None:
    plain = Manifest.read(_table(tmp_path / "plain.csv", "p{}", "p{}"))
    for form in ("p{}" + sign, sign + "p{}"):
        manifest = Manifest.read(_table(tmp_path / "t.csv", "p{}", form))
        assert manifest.digest == plain.digest
        assert any("20 cells read without what cannot be seen" in note for note in manifest.notes)


@pytest.mark.parametrize(("train", "test"), SPELT)
def test_spellings_are_warned_of_with_their_pairs(train: str, test: str, tmp_path: Path) -> None:
    report = check(Manifest.read(_table(tmp_path / "t.csv", train, test)), files=False)
    assert _codes(report)["group_spelling"] == _codes(report)["group_spelling_across_splits"] == 20
    assert "group_across_splits" not in _codes(report) and report.ok
    (across,) = [p for p in report.problems if p.code == "group_spelling_across_splits"]
    one, two = sorted([train.format(1), test.format(1)])
    assert f"{one!r} (" in across.examples[1] and f"{two!r} (" in across.examples[1]
    assert "(train)" in across.examples[1] and "(test)" in across.examples[1]


def test_the_command_prints_the_pairs(tmp_path: Path) -> None:
    ran = embank("manifest", "check", FOLDER / "leak_float.csv", "--root", tmp_path)
    assert "'1000' (train) = '1000.0' (test)" in ran.out
    ran = embank("manifest", "check", FOLDER / "leak_space.csv", "--root", tmp_path, "--json")
    assert "column group: 20 cells read" in ran.err and "column group: 20 cells read" in ran.json["notes"][0]


@pytest.mark.parametrize(
    ("name", "says", "counts"),
    [
        ("leak_plain.csv", "20 of 20 test images belong to a patient", (20, 0)),
        ("leak_space.csv", "20 of 20 test images belong to a patient", (20, 0)),
        ("leak_float.csv", "a trailing .0 are one patient's", (0, 20)),
    ],
)
def test_audit_and_probe_see_the_leak(name: str, says: str, counts: tuple[int, int], tmp_path: Path) -> None:
    bank = bank_of(Manifest.read(FOLDER / name), tmp_path)
    (found,) = probes_from_bank(str(bank.path), [MODEL], options=ProbeOptions(C=(0.1, 1.0), bootstrap=0))
    assert any(says in sentence for sentence in said(found))
    groups = audit(str(bank.path), MODEL).report["groups"]
    assert (groups["across_splits"], groups["across_splits_by_spelling"]) == counts


def test_a_bank_of_an_earlier_version_keeps_its_text_and_is_resumed(tmp_path: Path) -> None:
    """Its digests were made of uncleaned cells; the same table still opens it, and check says what to do."""
    from stores.bank.writer import as_in_bank, open_or_create, refuse_other_labels

    manifest = Manifest.read(FOLDER / "leak_space.csv")
    bank = bank_of(as_earlier(manifest), tmp_path)
    assert bank.manifest_digest != manifest.digest
    assert "p7 " in bank.manifest().column("group") and bank.manifest().notes == ()
    again = as_in_bank(bank, manifest)
    assert again.digest == bank.manifest_digest
    refuse_other_labels(open_or_create(bank.path, again), again)
    assert _codes(check(bank.manifest(), files=False))["unclean_text"] == 1
    ran = embank("manifest", "table", bank.path / "manifest.parquet", "-o", tmp_path / "clean.parquet")
    assert ran.code == 0 and "20 cells read" in ran.err
    clean = Manifest.read(tmp_path / "clean.parquet")
    assert clean.digest == manifest.digest and clean.before is None
    assert "unclean_text" not in _codes(check(clean, files=False))
