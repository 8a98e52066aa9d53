"""`embank compare`: words first, tables of 80 columns, JSON as promised, files, refusals without traces."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from engine.evals.fewshot.bank import fewshots_from_bank
from engine.evals.fewshot.options import Protocol
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.options import Policies, ProbeOptions
from engine.report.compare_figure import comparison_figure, draw_comparison
from tests.command import embank
from tests.probe_banks import FIRST, SECOND, make_probe_bank

FAST = ("--resamples", 50, "--threads", 1)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_probe_bank(tmp_path_factory.mktemp("compare-cli"))
    options = ProbeOptions(C=(0.01, 1.0), bootstrap=0, threads=1)
    probes_from_bank(made.path, [FIRST, SECOND], None, options)
    wanted = BankProbe(("edema", "oedema"), True, Policies("ignore", "ignore"))
    probes_from_bank(made.path, [FIRST, SECOND], wanted, options)
    protocol = Protocol(n_way=2, n_shot=3, n_query=3, episodes=20)
    fewshots_from_bank(made.path, [FIRST, SECOND], protocol, device="cpu", threads=1)
    return Path(made.path)


def test_the_verdict_is_first_and_lines_are_short(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = embank("compare", bank, "--evaluation", "probe", "--label", "label", *FAST)
    assert ran.code == 0, ran.err
    words = " ".join(ran.out.split("\n\n")[0].split())
    document = embank("compare", bank, "--evaluation", "probe", "--label", "label", *FAST, "--json").json
    assert words == document["verdict"][0]
    (pair,) = document["pairs"]
    assert f"{pair['low']:.3f} to {pair['high']:.3f} over 20 patients" in words
    assert ("is better than" in words) == pair["different"]
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "48 images of 20 patients" in ran.out and "balanced accuracy" in ran.out


def test_json_has_what_is_promised(bank: Path) -> None:
    ran = embank("compare", bank, "--evaluation", "fewshot", *FAST, "--json")
    document = ran.json
    assert (document["evaluation"], document["metric"], document["task"]) == (
        "fewshot",
        "accuracy",
        "2-way 3-shot",
    )
    assert set(document["pairs"][0]) >= {"a", "b", "difference", "low", "high", "p", "p_holm"}
    assert set(document["pairs"][0]["episodes"]) == {"low", "high", "p", "count"}
    assert set(document["best"]) <= {FIRST, SECOND}
    assert {"model", "value", "low", "high", "rank", "letters"} <= set(document["models"][0])


def test_findings_one_by_one(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    own = ("compare", bank, "--evaluation", "probe", "--label", "edema, oedema", "--by-finding", *FAST)
    ran = embank(*own, "-o", tmp_path / "new" / "pairs.csv")
    assert ran.code == 0, ran.err
    assert "Holm's adjustment for 3 tests" in " ".join(ran.out.split()) and "all pairs" in ran.out
    table = pd.read_csv(tmp_path / "new" / "pairs.csv")
    assert table["finding"].fillna("").tolist() == ["", "edema", "oedema"]
    document = embank(*own, "--json").json
    assert [part["name"] for part in document["findings"]] == ["edema", "oedema"]
    assert table["p_holm"].tolist() == pytest.approx(
        [part["pairs"][0]["p_holm"] for part in [document, *document["findings"]]]
    )
    figure = draw_comparison(document)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["mean", "edema", "oedema"]


def test_the_forest_plot_shows_each_pair(bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures" / "forest.png"
    words = ("compare", bank, "--evaluation", "probe", "--metric", "log-loss", "--label", "label", *FAST)
    assert embank(*words, "-o", out).code == 0
    assert embank(*words, "-o", out).code == 0, "a picture of the same command is drawn again"
    with Image.open(out) as picture:
        assert picture.width > 900 and len(picture.convert("L").getcolors(1 << 16)) > 20
    document = embank(*words, "--json").json
    (axes,) = draw_comparison(document).axes
    (pair,) = document["pairs"]
    drawn = [line.get_xdata() for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert drawn[0][0] == pytest.approx(-pair["difference"]) and -pair["difference"] >= 0
    pairs = [{**pair, "b": f"other {place}"} for place in range(7)]
    models = [document["models"][0], *({"model": p["b"]} for p in pairs)]
    many = {**document, "models": models, "pairs": pairs}
    comparison_figure(many, tmp_path / "many.svg")
    text = (tmp_path / "many.svg").read_text()
    assert "embank compare" in text
    undefined = {**pair, "difference": None, "low": None, "high": None, "p_holm": None}
    comparison_figure({**document, "pairs": [undefined]}, tmp_path / "none.pdf")


def test_the_ranking_by_the_command(bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures" / "ranking.svg"
    ran = embank("compare", bank, "--evaluation", "fewshot", *FAST, "-o", out, "--plot", "ranking")
    assert ran.code == 0 and "ranking, and the sets" in " ".join(ran.out.split()), ran.err
    assert "embank compare" in out.read_text()


def test_refusals_write_nothing(bank: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in bank.rglob("*"))
    for words, says in (
        (("--evaluation", "probe", "--metric", "f1"), "It is accuracy, mean-per-class"),
        (("--evaluation", "sorcery"), "It is probe, knn or fewshot"),
        (("--evaluation", "knn"), "0 models with a record of knn"),
        (("--evaluation", "fewshot", "-o", tmp_path / "new" / "x.gif"), "It ends in .png"),
        (("--evaluation", "fewshot", "-o", bank / "x.png"), "rule"),
        (("--evaluation", "fewshot", "--plot", "ranking"), "--plot ranking without -o"),
        (
            ("--evaluation", "fewshot", "--plot", "ranking", "-o", tmp_path / "new" / "x.csv"),
            "kind of picture",
        ),
        (
            ("--evaluation", "fewshot", "--plot", "strata", "-o", tmp_path / "new" / "x.png"),
            "forest or ranking",
        ),
    ):
        ran = embank("compare", bank, *words)
        assert ran.code == 2 and says in ran.err, ran.err
    assert embank("compare", tmp_path / "nowhere").code == 2
    record = next((bank / "records").glob("*-fewshot-*.json"))
    assert "1 model with a record" in embank("compare", record).err
    assert sorted(path.name for path in bank.rglob("*")) == before and not (tmp_path / "new").exists()


def test_the_output_is_checked_before_records_are_read(bank: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    record = next((bank / "records").glob("*-fewshot-*.json"))
    ran = embank("compare", record, "-o", tmp_path / "mine.csv")
    assert ran.code == 2 and "mine.csv" in ran.err
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert json.loads(record.read_text())["kind"] == "fewshot"
