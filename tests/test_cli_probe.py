"""embank probe from the command line: what is printed, written, refused and imported."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import cli
from stores.bank.reader import Bank
from stores.bank.record_table import leaves
from stores.bank.records import read_all
from tests.command import Ran, embank
from tests.probe_banks import FIRST, SECOND, make_probe_bank


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_probe_bank(tmp_path_factory.mktemp("probe"))


def probe(bank: Bank, *words: object, model: tuple[str, ...] = (FIRST,)) -> Ran:
    """With a grid of three values, on the CPU."""
    models = [word for each in model for word in ("--model", each)]
    grid = ("--c-min", 0.001, "--c-max", 10, "--values", 3, "--device", "cpu", "--bootstrap", 30)
    return embank("probe", bank.path, *models, *grid, *words)


def test_json_has_the_promised_keys(bank: Bank) -> None:
    ran = probe(bank, "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert {"model", "test", "seconds", "best_C", "val_score", "converged", "objective"} <= set(found)
    assert {"accuracy", "mean_per_class_accuracy", "auroc"} <= set(found["test"])
    assert found["sweep"]["C"] == [0.001, 0.1, 10]
    assert found["best_C"] in found["sweep"]["C"]
    assert found["masked"] == {"failed": 3, "unlabelled": 48}
    interval = found["test"]["intervals"]["accuracy"]
    assert interval["low"] <= found["test"]["accuracy"] <= interval["high"]
    assert found["converged"] is True and found["seconds"] > 0
    assert read_all(bank.path)[-1].metrics["best_C"] == found["best_C"]


@pytest.mark.slow
def test_several_models_and_labels_make_a_list_and_a_plot(bank: Bank, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    words = ("--label", "label", "--label", "oedema", "--low-shot", "1,3", "--seeds", 2, "-o", plot, "--json")
    ran = probe(bank, *words, model=(FIRST, SECOND))
    found = json.loads(ran.out)
    assert [(one["model"], one["label"]) for one in found] == [
        (model, label) for model in (FIRST, SECOND) for label in ("label", "oedema")
    ]
    assert all(one["plot"] == str(plot) for one in found)
    assert [point["shots"] for point in found[0]["low_shot"]["curve"]] == [1, 3]
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


def test_what_is_printed(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # heads in one line
    ran = probe(bank, "--low-shot", "2", "--seeds", 2, "-o", tmp_path / "p.png", "--select", "auroc")
    assert ran.code == 0, ran.err
    for text in ("auroc (val)", FIRST, "missing: 3 failed, 48 unlabelled", "images a class", "p.png"):
        assert text in ran.out
    assert ran.err == ""


def test_findings(bank: Bank) -> None:
    words = (
        "--multi-label",
        "--label",
        "edema",
        "--label",
        "oedema",
        "--uncertain",
        "ones",
        "--blank",
        "zeros",
    )
    found = probe(bank, *words, "--json").json
    assert (found["evaluated"], found["best_C"], found["select"]) == (2, None, "auroc")
    assert found["targets"][0]["counted"] == {"uncertain as 1": 34, "blank as 0": 34}
    mean = math.fsum(one["test"]["auroc"] for one in found["findings"]) / 2
    assert found["test"]["auroc"] == pytest.approx(mean)
    printed = probe(bank, *words).out
    assert "mean" in printed and "oedema" in printed


def test_calibration_thresholds_and_strata(bank: Bank) -> None:
    words = (
        "--label",
        "oedema",
        "--strata",
        "edema",
        "--specificity",
        0.8,
        "--threshold-rule",
        "specificity",
    )
    found = probe(bank, *words, "--json").json
    assert {"before", "after"} == set(found["calibration"]["ece"])
    assert found["operating"]["sensitivity_at_specificity"]["specificity"] == found["specificity"] == 0.8
    assert found["operating"]["threshold"]["rule"] == found["threshold"] == "specificity"
    assert found["stratify"] == ["edema"] and found["strata"][0]["column"] == "edema"
    record = read_all(bank.path)[-1]
    assert record.metrics["strata"] == found["strata"] and record.asked["stratify"] == ["edema"]
    exported = {(leaf.metric, leaf.item): leaf for leaf in leaves(record.metrics)}
    first = max(found["strata"][0]["strata"], key=lambda stratum: stratum["images"])
    leaf = exported["strata.strata.accuracy", f"0 | {first['stratum']}"]
    assert (leaf.value, leaf.low) == (first["accuracy"], first["intervals"]["accuracy"]["low"])
    printed = probe(bank, *words).out
    for text in ("Calibration on test", "PPV", "sens. at 0.8", "oedema by edema", "gap of accuracy"):
        assert text in printed
    assert max(map(len, printed[printed.index("Calibration") :].splitlines())) <= 80


def test_as_published_says_how_far_from_converged(bank: Bank) -> None:
    words = ("--model", FIRST, "--mode", "as-published", "--device", "cpu", "--bootstrap", 0)
    ran = embank("probe", bank.path, *words)
    assert ran.code == 0, ran.err
    assert "of 45 fits" in ran.out and "converged values" in ran.out
    assert "intervals" not in embank("probe", bank.path, *words, "--json").json["test"]


def test_fits_that_did_not_converge_are_said_aloud(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn may take one iteration only: it does not converge, and that is said first."""
    from engine.evals.probe import solvers

    for name in ("_MOST_ITERATIONS", "_MOST_STEPS"):
        monkeypatch.setattr(solvers, name, 1)
    ran = probe(bank, "--backend", "sklearn")
    assert ran.code == 0
    assert "NO" in ran.out and "fits did not converge" in ran.out
    error = "error: The fit on train and validation, which is tested, did not converge"
    assert ran.out.splitlines()[0] == error, "before the numbers"
    assert read_all(bank.path)[-1].convergence["label"]["refit"]["converged"] is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--label", "nothing"), "nothing"),
        (("--label", "edema"), "finding"),
        (("--test-split", "exam"), "exam"),
        (("--train-split", "test"), "two parts"),
        (("--holdout",), "--holdout"),
        (("--c-min", 5, "--c-max", 1), "C from 5 to 1"),
        (("--values", 0), "values of C = 0"),
        (("--val-fraction", 1), "validation fraction"),
        (("--low-shot", "1;2"), "1;2"),
        (("--low-shot", "900"), "900 images per class"),
        (("--multi-label", "--low-shot", "1"), "--multi-label"),
        (("--mode", "as-published"), "another grid"),
        (("--backend", "cuml"), "cuML"),
        (("-o", "cli.py/p.png"), "cli.py is not a folder"),
    ],
)
def test_refused_with_a_remedy(bank: Bank, words: tuple[object, ...], says: str) -> None:
    ran = probe(bank, *words)
    assert ran.code == 2, ran.err
    assert says in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.slow
def test_probing_imports_neither_matplotlib_nor_torchvision(bank: Bank) -> None:
    code = (
        "import sys, cli; sys.argv = ['embank', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('matplotlib', 'torchvision', 'PIL', 'sklearn') if m in sys.modules])"
    )
    words = ["probe", str(bank.path), "--model", FIRST, "--device", "cpu", "--values", "2"]
    root = Path(cli.__file__).parent
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=root)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
