"""`embank report`: a real bank's page, its numbers, its files, and what it refuses."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import embank as public
from engine.evals.fewshot.bank import fewshots_from_bank
from engine.evals.fewshot.options import Protocol
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.options import Policies, ProbeOptions
from stores.bank.record_index import read_index
from tests.command import embank
from tests.probe_banks import FIRST, SECOND, make_probe_bank


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_probe_bank(tmp_path_factory.mktemp("report-cli"))
    options = ProbeOptions(C=(0.01, 1.0), bootstrap=20, threads=1)
    probes_from_bank(made.path, [FIRST, SECOND], None, options)
    wanted = BankProbe(("edema", "oedema"), True, Policies("ignore", "ignore"))
    probes_from_bank(made.path, [FIRST, SECOND], wanted, options)
    for episodes in (10, 20):  # the second answers another question
        protocol = Protocol(n_way=2, n_shot=3, n_query=3, episodes=episodes)
        fewshots_from_bank(made.path, [FIRST, SECOND], protocol, device="cpu", threads=1)
    return Path(made.path)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def data_of(page: Path) -> dict[str, dict]:
    body = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert body is not None
    return json.loads(body[1])["tables"]


def test_the_path_is_the_last_line_and_the_bank_is_unchanged(bank: Path, tmp_path: Path) -> None:
    before = digests(bank)
    out = tmp_path / "new" / "folder" / "r.html"
    ran = embank("report", bank, "-o", out)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == str(out)
    assert digests(bank) == before
    page = out.read_text()
    assert page.startswith("<!doctype html>") and "Is it valid?" in page and "balanced accuracy" in page


def test_every_number_of_the_matrix_is_a_record_s(bank: Path, tmp_path: Path) -> None:
    assert embank("report", bank, "-o", tmp_path / "r.html").code == 0
    table = data_of(tmp_path / "r.html")["table-results-bank"]
    models = {row[0]: row[1:] for row in table["rows"]}
    heads = [(column.get("group", ""), column["title"]) for column in table["columns"][1:]]
    known = {}
    for entry in read_index(bank):
        record = entry.record
        assert record is not None
        if record.kind == "fewshot":
            head = f"2-way 3-shot, episodes {record.asked['episodes']}", "accuracy"
            value, half = record.metrics["accuracy"], record.metrics["ci95"]
            known[entry.model, head] = [value, value - half, value + half]
        elif record.asked["multi_label"]:
            test = record.metrics["test"]
            interval = test.get("intervals", {}).get("auroc", {})
            known[entry.model, ("linear probe: edema, oedema", "AUROC")] = [test["auroc"], *_ends(interval)]
        else:
            test = record.metrics["test"]
            interval = test["intervals"]["mean_per_class_accuracy"]
            value = [test["mean_per_class_accuracy"], *_ends(interval)]
            known[entry.model, ("linear probe", "balanced accuracy")] = value
    assert {(model, head) for model in (FIRST, SECOND) for head in heads} == set(known)
    for (model, head), numbers in known.items():
        cell = models[model][heads.index(head)]
        assert [*cell[1:4]][: len(numbers)] == numbers, (model, head)


def _ends(interval: dict[str, float]) -> list[float]:
    return [interval["low"], interval["high"]] if interval else []


def test_comparisons_are_made_for_the_page_where_none_is_kept(bank: Path, tmp_path: Path) -> None:
    assert embank("report", bank, "-o", tmp_path / "r.html").code == 0
    document = embank("compare", bank, "--evaluation", "probe", "--label", "label", "--json").json
    (pair,) = document["pairs"]
    page = tmp_path.joinpath("r.html").read_text().replace("\u00a0", " ").replace("&lt;", "<")
    assert f"over {document['units']} patients" in page
    assert f"{abs(pair['difference']):.3f} (95 % interval" in page
    assert ("is better than" in page) or ("cannot be told apart" in page)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes_in_any_process(bank: Path, tmp_path: Path) -> None:
    """Sets have another order in each process."""
    words = [sys.executable, "-m", "cli", "report", str(bank), "-o", str(tmp_path / "other.html")]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True)
    assert embank("report", bank, "-o", tmp_path / "r.html").code == 0
    assert (tmp_path / "r.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_timings_can_be_left_out(bank: Path, tmp_path: Path) -> None:
    assert embank("report", bank, "-o", tmp_path / "with.html").code == 0
    assert embank("report", bank, "-o", tmp_path / "without.html", "--no-timings").code == 0
    dates = {entry.record.created[:10] for entry in read_index(bank) if entry.record}
    ids = {entry.id for entry in read_index(bank)}
    assert all(date in tmp_path.joinpath("with.html").read_text() for date in dates)
    without = tmp_path.joinpath("without.html").read_text()
    assert not any(word in without for word in dates | ids)


def test_tables_are_written_as_csv_and_latex(bank: Path, tmp_path: Path) -> None:
    words = ("report", bank, "-o", tmp_path / "r.html", "--tables", tmp_path / "new" / "tables", "--json")
    document = embank(*words).json
    tables = data_of(tmp_path / "r.html")
    assert sorted(Path(path).name for path in document["tables"]) == sorted(
        f"{name}.{ending}" for name in tables for ending in ("csv", "tex")
    )
    text = (tmp_path / "new" / "tables" / "table-results-bank.csv").read_text()
    names, *rows = csv.reader(text.splitlines())
    own = next(row for row in tables["table-results-bank"]["rows"] if row[0] == FIRST)
    (line,) = [row for row in rows if row[0] == FIRST]
    assert names[:4] == ["model", *(f"linear probe: balanced accuracy{end}" for end in ("", " low", " high"))]
    assert [float(cell) for cell in line[1:4]] == own[1][1:4]
    assert embank(*words).code == 0, "its own files are replaced"
    (tmp_path / "new" / "tables" / "table-results-bank.tex").write_text("mine")
    before = digests(tmp_path)
    assert embank(*words).code == 2
    assert digests(tmp_path) == before
    assert embank(*words, "--force").code == 0


def test_a_page_is_replaced_and_another_file_only_with_force(bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    assert embank("report", bank, "-o", out).code == 0
    assert embank("report", bank, "-o", out).code == 0
    out.write_text("<!doctype html><title>mine</title>")
    ran = embank("report", bank, "-o", out)
    assert ran.code == 2 and "--force" in ran.err and "mine" in out.read_text()
    assert embank("report", bank, "-o", out, "--force").code == 0


def test_records_that_cannot_be_read_are_named(bank: Path, tmp_path: Path) -> None:
    """One is damaged, one is of a version to come: the page is made without them, and says so."""
    import shutil

    shutil.copytree(bank, tmp_path / "bank")
    damaged, foreign, *_ = sorted((tmp_path / "bank" / "records").glob("*-probe-*.json"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    body = json.loads(foreign.read_text())
    foreign.write_text(json.dumps({**body, "schema": 99}))
    ran = embank("report", tmp_path / "bank", "-o", tmp_path / "r.html")
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == str(tmp_path / "r.html")
    for path in (damaged, foreign):
        name = path.stem.rpartition("-")[2]
        assert name in ran.err
    assert "2 results could not be made or read" in (tmp_path / "r.html").read_text()


def test_a_bank_without_records_has_a_page(tmp_path: Path) -> None:
    made = make_probe_bank(tmp_path)
    ran = embank("report", made.path, "-o", tmp_path / "r.html")
    assert ran.code == 0, ran.err
    assert "there is nothing to compare" in (tmp_path / "r.html").read_text()


def test_python_has_it_too(bank: Path, tmp_path: Path) -> None:
    made = public.report(bank, tmp_path / "r.html", timings=False)
    assert made.page == tmp_path / "r.html" and made.size == made.page.stat().st_size
    assert embank("report", bank, "-o", tmp_path / "other.html", "--no-timings").code == 0
    assert made.page.read_bytes() == (tmp_path / "other.html").read_bytes()
    with pytest.raises(public.EmbankError, match="nothing"):
        public.report(bank, tmp_path / "r.html", against="nothing")
