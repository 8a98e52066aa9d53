"""`embank records`: what evaluations found, as a list, one in full, and as a table of tidy rows."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import cli
from stores.bank import documents
from stores.bank.names import give
from stores.bank.record_index import record_of
from stores.bank.records import FOLDER, RunRecord
from tests.command import Ran, embank
from tests.probe_banks import FIRST, SECOND, make_probe_bank
from tests.stores.banks import flip

WORDS = {
    "fewshot": f"fewshot BANK --model {FIRST} --model {SECOND} --n-way 2 --n-shot 3 --n-query 2",
    "knn": f"knn BANK --model {FIRST} -k 1 -k 5 --device cpu",
    "probe": f"probe BANK --model {FIRST} --values 3 --bootstrap 40 --device cpu --low-shot 1,2 --seeds 2",
    "findings": f"probe BANK --model {SECOND} --values 2 --bootstrap 0 --device cpu --multi-label"
    " --label edema --label oedema",
    "audit": f"bank audit BANK --model {FIRST} --threshold 0.5 --device cpu",
    "search": f"search BANK --model {FIRST} -k 3 --device cpu --id",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bank that every evaluation ran on which opens no image, and what each printed with --json."""
    root = tmp_path_factory.mktemp("records")
    bank, reports = make_probe_bank(root).path, {}
    for name, line in WORDS.items():
        words = [bank if word == "BANK" else word for word in line.split()]
        more = {"search": ["image 1"], "probe": ["-o", root / "probe.svg"]}.get(name, [])
        ran = embank(*words, *more, "--json")
        assert ran.code == 0, ran.err
        reports[name] = ran.json
    return Path(bank), reports


@pytest.fixture
def bank(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "bank"))


def records(*words: object) -> Ran:
    ran = embank("records", *words)
    assert "Traceback" not in ran.err
    return ran


def test_list_has_the_number_of_every_evaluation(made: tuple[Path, dict[str, Any]]) -> None:
    bank, reports = made
    ran = records("ls", bank, "--json")
    assert ran.code == 0 and ran.json["damaged"] == []
    found = ran.json["records"]
    assert [each["kind"] for each in found] == [
        "fewshot",
        "fewshot",
        "knn",
        "probe",
        "probe",
        "audit",
        "search",
    ]
    assert [each["created"] for each in found] == sorted(each["created"] for each in found)
    for each, report in zip(found[:2], reports["fewshot"], strict=True):
        assert (each["model"], each["feature"]) == (report["model"], report["feature"])
        assert (each["metric"], each["value"]) == ("accuracy", report["accuracy"])
        assert each["high"] - each["value"] == pytest.approx(report["ci95"], rel=1e-12)
        assert each["value"] - each["low"] == pytest.approx(report["ci95"], rel=1e-12)
    knn, probe, findings, audit = found[2:6]
    assert (knn["metric"], knn["value"]) == ("test.accuracy", reports["knn"]["test"]["accuracy"])
    assert knn["text"].endswith(f"at k = {reports['knn']['k']}")
    bounds = reports["probe"]["test"]["intervals"]["accuracy"]
    assert (probe["value"], probe["low"]) == (reports["probe"]["test"]["accuracy"], bounds["low"])
    assert probe["high"] == bounds["high"]
    assert (findings["metric"], findings["value"]) == ("test.auroc", reports["findings"]["test"]["auroc"])
    assert (findings["model"], audit["value"]) == (SECOND, reports["audit"]["pairs"])
    assert found[6]["text"] == "3 neighbours of image 1"


def test_list_for_people_fits_80_columns(made: tuple[Path, dict[str, Any]]) -> None:
    bank, reports = made
    text = records("ls", bank).out
    assert max(map(len, text.splitlines())) <= 80
    for report in reports["fewshot"]:
        assert f"{report['accuracy']:.3f} ± {report['ci95']:.3f}" in text
    assert len([line for line in text.splitlines() if " fewshot " in line]) == 2


def test_filters(bank: Path) -> None:
    of = records("ls", bank, "--kind", "fewshot", "--model", SECOND, "--json").json["records"]
    assert [(each["kind"], each["model"]) for each in of] == [("fewshot", SECOND)]
    give(bank, {of[0]["feature"]: "mine"})
    for word in ("mine", of[0]["feature"], SECOND, "mi"):
        renamed = records("ls", bank, "--model", word, "--json").json["records"]
        assert {each["model"] for each in renamed} == {"mine"} and len(renamed) == 2
    for words in (("--kind", "nothing"), ("--model", "nothing"), ("--kind", "search", "--model", SECOND)):
        for command in (("ls", bank), ("export", bank, "-o", bank.parent / "new" / "x.csv")):
            ran = records(*command, *words)
            assert ran.code == 2 and "fewshot (2)" in ran.err
    assert not (bank.parent / "new").exists()


def test_show_says_all_of_one_record(made: tuple[Path, dict[str, Any]]) -> None:
    bank, reports = made
    knn = records("ls", bank, "--kind", "knn", "--json").json["records"][0]
    for word in (knn["record"], knn["record"][:7], knn["file"], Path(knn["file"]).name[:26]):
        ran = records("show", bank, word, "--json")
        assert ran.code == 0, ran.err
        assert ran.json == {**ran.json, **knn}
    written = documents.read(bank / knn["file"])
    written.pop("schema")
    assert {name: ran.json[name] for name in written} == written
    assert ran.json["metrics"]["by_k"] == reports["knn"]["by_k"]
    probe = records("ls", bank, "--kind", "probe", "--json").json["records"][0]["record"]
    text = records("show", bank, probe).out
    assert max(map(len, text.splitlines())) <= 80
    assert f"test.auroc: {reports['probe']['test']['auroc']:.6g} (" in text
    assert f"manifest_digest: {written['used']['manifest_digest'][:12]}\n" in text
    for word in ("asked", "used", "found", "seconds", "versions", "numpy", "pear", "low_shot.curve"):
        assert word in text


def test_a_record_that_is_not_named_clearly_is_refused_with_the_candidates(bank: Path) -> None:
    listed = records("ls", bank, "--json").json["records"]
    for word in ("zzz", "", "20", "records/"):
        ran = records("show", bank, word)
        assert ran.code == 2
        assert all(each["record"] in ran.err for each in listed)
        assert ("beginning of several" in ran.err) == (word == "20")
    file = bank / listed[0]["file"]
    twin = file.with_name(f"{file.stem[:-1]}{'0' if file.stem[-1] != '0' else '1'}.json")
    shutil.copy(file, twin)
    ran = records("show", bank, listed[0]["record"][:5])
    assert ran.code == 2 and listed[0]["record"] in ran.err and twin.stem[-8:] in ran.err
    assert records("show", bank, listed[0]["record"]).code == 0
    shutil.rmtree(bank / FOLDER)
    ran = records("show", bank, "20")
    assert ran.code == 2 and "has no records" in ran.err
    assert records("ls", bank, "--json").json == {"bank": str(bank), "records": [], "damaged": []}
    assert records("export", bank, "-o", bank.parent / "x.csv").code == 2


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_export_holds_every_number_of_every_record(bank: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "new" / f"r.{ending}" for ending in ("csv", "parquet", "json")]
    for path in paths:
        ran = records("export", bank, "-o", path, "--json")
        assert ran.code == 0, ran.err
    table = pq.read_table(paths[1]).to_pylist()
    few = tmp_path / "few.parquet"  # where most columns are empty, they have their types all the same
    assert records("export", bank, "-o", few, "--kind", "search").code == 0
    assert pq.read_schema(few).equals(pq.read_schema(paths[1]))
    types = {field.name: str(field.type) for field in pq.read_schema(few)}
    assert (types["value"], types["seed"], types["transform"]) == ("double", "int64", "string")
    assert (len(table), ran.json["rows"], ran.json["records"]) == (ran.json["rows"], len(table), 7)
    assert json.loads(paths[2].read_text()) == table
    as_text = [
        {
            name: "" if cell is None else cell if isinstance(cell, str) else float(cell)
            for name, cell in row.items()
        }
        for row in table
    ]
    numbers = ("value", "low", "high", "n_way", "n_shot", "k", "seed")
    assert [
        {name: float(cell) if name in numbers and cell else cell for name, cell in row.items()}
        for row in read_csv(paths[0])
    ] == as_text  # the CSV keeps every bit of every number
    keys = [(row["record"], row["part"], row["metric"], row["item"]) for row in table]
    assert len(set(keys)) == len(keys)
    for path in sorted((bank / FOLDER).glob("*.json")):
        body = json.loads(path.read_text())
        mine = [row for row in table if row["record"] == path.stem[-8:]]
        assert json.loads(mine[0]["settings"]) == body["asked"]
        for part in ("metrics", "failures", "convergence", "seconds"):
            wanted = sorted(numbers_of(body[part]))
            named = [int(row["item"].rpartition("=")[2]) for row in mine if row["metric"] == "by_k.accuracy"]
            shots = sorted(
                {int(row["item"].split(" | ")[0][6:]) for row in mine if "shots=" in (row["item"] or "")}
            )
            inside = (named + shots) * (part == "metrics")  # these are said by the column `item`
            got = sorted(
                [*(row["value"] for row in mine if row["part"] == part and row["value"] is not None), *inside]
            )
            assert got == wanted


def numbers_of(value: Any) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for inner in value for number in numbers_of(inner)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_export_reads_well_in_pandas(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    bank, reports = made
    assert records("export", bank, "-o", tmp_path / "r.parquet").code == 0
    frame = pd.read_parquet(tmp_path / "r.parquet")
    knn = frame[(frame.kind == "knn") & (frame.metric == "by_k.accuracy")].set_index("k")["value"]
    assert knn.to_dict() == {each["k"]: each["accuracy"] for each in reports["knn"]["by_k"]}
    test = frame[(frame.kind == "probe") & (frame.metric == "test.auroc")].iloc[0]
    bounds = reports["probe"]["test"]["intervals"]["auroc"]
    assert (test.value, test.low, test.high) == (
        reports["probe"]["test"]["auroc"],
        bounds["low"],
        bounds["high"],
    )
    assert (test["mode"], test.label, test.split, test.seed) == ("default", "label", "test", 0)
    findings = frame[frame.metric == "findings.test.auroc"].set_index("label")["value"].to_dict()
    assert findings == {each["label"]: each["test"]["auroc"] for each in reports["findings"]["findings"]}
    few = frame[(frame.kind == "fewshot") & (frame.metric == "paired.difference")].iloc[0]
    paired = reports["fewshot"][0]["paired"][0]
    assert (few["item"], few.value, few.n_way, few.n_shot) == (SECOND, paired["difference"], 2, 3)
    assert (few.low, few.high) == pytest.approx((paired["low"], paired["high"]), rel=1e-12)
    sweep = frame[(frame.kind == "probe") & (frame.metric == "sweep.val_score")]
    assert [float(item[2:]) for item in sweep["item"]] == reports["probe"]["sweep"]["C"]
    cell = frame[(frame.metric == "test.confusion_matrix") & (frame["item"] == "pear | zebra")].iloc[0]
    classes = reports["probe"]["classes"]
    assert (
        cell.value
        == reports["probe"]["test"]["confusion_matrix"][classes.index("pear")][classes.index("zebra")]
    )


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_the_same_records_give_the_same_bytes(bank: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"r.{ending}"
    assert records("export", bank, "-o", out).code == 0
    first = out.read_bytes()
    refused = records("export", bank, "-o", out, "--kind", "knn")
    assert refused.code == 2 and "--force" in refused.err and out.read_bytes() == first
    assert records("export", bank, "-o", out, "--force").code == 0
    assert out.read_bytes() == first
    assert records("export", bank, "-o", out, "--kind", "knn", "--force").code == 0
    assert 0 < len(out.read_bytes()) < len(first)


def test_damaged_records_are_named_and_cost_no_other(bank: Path, tmp_path: Path) -> None:
    everything = records("ls", bank, "--json").json["records"]
    lost, foreign = (bank / everything[at]["file"] for at in (0, 3))
    flip(lost)
    foreign.write_bytes(documents.encode({**documents.read(foreign), "schema": 9}))
    linked = bank / FOLDER / "link.json"
    linked.symlink_to(bank / everything[1]["file"])
    (bank / FOLDER / "folder.json").mkdir()
    ran = records("ls", bank, "--json")
    assert ran.code == 1
    whole = [each["record"] for at, each in enumerate(everything) if at not in (0, 3)]
    assert [each["record"] for each in ran.json["records"]] == whole
    reasons = {Path(each["path"]).name: each for each in ran.json["damaged"]}
    assert set(reasons) == {lost.name, foreign.name, "link.json", "folder.json"}
    assert "embank bank repair" in reasons[lost.name]["remedy"]
    assert "schema version 9" in reasons[foreign.name]["reason"]
    text = records("ls", bank)
    assert text.code == 1 and lost.name in text.out and "remedy: " in text.out and "unreadable" in text.out
    shown = records("show", bank, everything[0]["record"])
    assert shown.code == 2 and "embank bank repair" in shown.err
    out = records("export", bank, "-o", tmp_path / "r.csv", "--json")
    assert (out.code, out.json["records"], len(out.json["damaged"])) == (1, len(everything) - 2, 4)
    assert {row["record"] for row in read_csv(tmp_path / "r.csv")} == {
        r["record"] for r in ran.json["records"]
    }
    for path in (foreign, linked):
        path.unlink()
    (bank / FOLDER / "folder.json").rmdir()
    embank("bank", "repair", bank)  # the remedy, which sets the damaged one aside
    assert records("ls", bank).code == 0


def test_spreadsheets_run_nothing_and_odd_records_end_nothing(bank: Path, tmp_path: Path) -> None:
    shutil.rmtree(bank / FOLDER)
    odd = {
        "=1+1": "@x",
        "n": [{}, 1, "a\rb\ud800"],
        "huge": 10**400,
        "ok": {"ok": [[], [[2.5]]]},
        "undefined": None,
    }
    for kind in ("fewshot", "knn", "probe", "invariance", "saliency", "embed", "audit", "search", "=new"):
        for more in (
            {},
            odd,
            {"accuracy": None, "reason": "none", "test": [], "mean": {}, "cosine": "x", "ok": None},
        ):
            asked = {
                "model": "=model",
                "seed": 2**80,
                "k": "\x1b[31m",
                "splits": 3,
                "query": [],
                "label": None,
            }
            RunRecord(kind, asked, {"feature": 3}, more, {}, created="yesterday").write(bank)
    for words in (
        ("ls", bank),
        ("export", bank, "-o", tmp_path / "r.csv"),
        ("export", bank, "-o", tmp_path / "r.parquet"),
    ):
        ran = records(*words)
        assert ran.code == 0, ran.err
        assert "\x1b" not in ran.out
    for each in records("ls", bank, "--json").json["records"]:
        assert records("show", bank, each["record"]).code == 0
    cells = {cell for row in read_csv(tmp_path / "r.csv") for cell in row.values()}
    assert {"'=model", "'=new", "'=1+1", "'@x", str(10**400), "a\\rb\\ud800", "none"} <= cells
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "@")]
    assert not (tmp_path / "r.csv").read_bytes().count(b"\r")


# Figures


def record_named(bank: Path, kind: str, at: int = 0) -> str:
    return str(records("ls", bank, "--kind", kind, "--json").json["records"][at]["record"])


def test_the_figure_of_a_probe_is_drawn_again_from_its_record(
    made: tuple[Path, Any], bank: Path, tmp_path: Path
) -> None:
    first, again = tmp_path / "a.svg", tmp_path / "new" / "b.svg"
    shutil.copy(made[0].parent / "probe.svg", first)
    record = record_named(bank, "probe")
    ran = records("show", bank, record, "-o", again, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["figure"] == str(again) and ran.json["record"] == record
    assert first.read_bytes() == again.read_bytes()
    findings = tmp_path / "f.svg"
    ran = records("show", bank, record_named(bank, "probe", 1), "-o", findings)
    assert ran.code == 0 and ran.out.splitlines()[-1].startswith(f"{findings}: figure of record")
    assert findings.read_text().count("oedema") >= 1
    # It replaces what the evaluation drew, as the evaluation does; another file only with --force.
    assert records("show", bank, record, "-o", first).code == 0
    other = tmp_path / "other.svg"
    other.write_text("mine")
    ran = records("show", bank, record, "-o", other)
    assert ran.code == 2 and "--force" in ran.err and other.read_text() == "mine"
    assert records("show", bank, record, "-o", other, "--force").code == 0
    assert other.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("kind", ["fewshot", "knn", "audit", "search"])
def test_a_record_without_a_figure_is_refused(kind: str, made: tuple[Path, Any], tmp_path: Path) -> None:
    bank, _ = made
    record = record_named(bank, kind)
    ran = records("show", bank, record, "-o", tmp_path / "a.svg")
    assert ran.code == 2 and ran.out == "" and list(tmp_path.iterdir()) == []
    assert f"record {record} ({kind} of {FIRST}) has no figure" in ran.err
    assert records("ls", bank, "--kind", "probe").code == 0  # the remedy


def test_a_record_of_an_earlier_version_is_refused_with_the_command_that_makes_another(
    bank: Path, tmp_path: Path
) -> None:
    entry = record_of(bank, record_named(bank, "probe", 1))
    assert entry.record is not None
    metrics = {
        **entry.record.metrics,
        "findings": [
            {name: value for name, value in finding.items() if name != "sweep"}
            for finding in entry.record.metrics["findings"]  # type: ignore[union-attr, misc]
        ],
    }
    old = replace(entry.record, metrics=metrics, predictions={}).write(bank)
    ran = records("show", bank, old.name, "-o", tmp_path / "a.svg")
    assert ran.code == 2 and old.stem[-8:] in ran.err and "metrics.findings.sweep" in ran.err
    remedy = re.search(r"`embank (.*?)`", ran.err)
    assert remedy is not None
    assert embank(*shlex.split(remedy[1]), "--values", 2, "--bootstrap", 0).code == 0
    assert records("show", bank, record_named(bank, "probe", -1), "-o", tmp_path / "a.svg").code == 0


@pytest.mark.slow
def test_a_figure_is_drawn_without_torch(made: tuple[Path, Any], tmp_path: Path) -> None:
    code = (
        "import sys, cli\n"
        "try: cli.main()\n"
        "finally: print([m for m in ('torch', 'torchvision', 'zarr') if m in sys.modules])"
    )
    words = ["records", "show", str(made[0]), record_named(made[0], "probe"), "-o", str(tmp_path / "a.svg")]
    root = Path(cli.__file__).parent
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=root)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert (tmp_path / "a.svg").is_file()
