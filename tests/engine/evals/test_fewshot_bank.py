"""Few-shot from a bank: counts, records, splits, several models, and what the command must not import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BankError, Refused
from engine.evals.fewshot.bank import fewshot_from_bank, fewshots_from_bank
from engine.evals.fewshot.evaluate import Protocol, fewshot
from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.stores.banks import fill, is_bad, make_bank, make_key

PROTOCOL = Protocol(n_way=2, n_shot=3, n_query=4, episodes=30)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """150 images of three labels, every fourth unlabelled, row 5, 34, ... failed; two models."""
    made = make_bank(tmp_path / "bank")
    fill(made, make_key(made.image_digest, model="timm/other"), 24, seed=1)
    return made


def test_the_bank_gives_what_the_arrays_give(bank: Bank) -> None:
    found = fewshot_from_bank(bank.path, "timm/other", PROTOCOL)
    features = bank.features("timm/other")
    patients = {"groups": np.arange(150) // 3, "data_set": bank.image_digest}
    expected = fewshot(features.array, features.labels, PROTOCOL, **patients)
    assert (found["accuracy"], found["ci95"]) == (expected.accuracy, expected.ci95)
    assert (found["group_disjoint"], found["patients"]) == (True, expected.patients.to_dict())
    bad = [row for row in range(150) if is_bad(row)]
    unlabelled = [row for row in range(150) if row % 4 == 2 and not is_bad(row)]
    assert (found["failed"], found["unlabelled"]) == (len(bad), len(unlabelled))
    assert found["masked"] == len(bad) + len(unlabelled) == 150 - found["images"]
    assert {"model", "n_way", "n_shot", "n_query", "episodes", "seed", "accuracy", "ci95", "seconds"} <= set(
        found
    )
    assert found["paired"] == []


def test_several_models_are_paired_and_each_is_recorded(bank: Bank) -> None:
    one, other = fewshots_from_bank(bank.path, ["torchvision/resnet18", "timm/other"], PROTOCOL, bootstrap=50)
    assert [p["model"] for p in one["paired"]] == ["timm/other"]
    assert one["paired"][0]["difference"] == pytest.approx(one["accuracy"] - other["accuracy"])
    assert other["paired"][0]["difference"] == pytest.approx(-one["paired"][0]["difference"])
    assert one["episodes_digest"] == other["episodes_digest"]
    records = read_all(bank.path)
    assert [r.asked["model"] for r in records] == ["torchvision/resnet18", "timm/other"]
    record = records[0]
    assert record.kind == "fewshot"
    assert record.metrics["accuracy"] == one["accuracy"]
    assert record.metrics["paired"] == one["paired"]
    pair, patients = one["paired"][0], one["paired"][0]["patients"]
    assert pair["low"] < pair["difference"] < pair["high"]
    assert patients["groups"] > 2 and patients["low"] < pair["difference"] < patients["high"]
    assert record.metrics["bootstrap"]["resamples"] == 50
    assert record.failures["failed"] == one["failed"]
    assert record.used["feature"] == one["feature"] and record.asked["distance"] == "sqeuclidean"
    assert record.versions["numpy"] == np.__version__
    assert {"total", "open", "sampling", "kernel"} <= set(record.seconds)


def test_a_split_is_all_that_is_drawn_from(bank: Bank) -> None:
    found = fewshot_from_bank(bank.path, "timm/other", PROTOCOL, split="test")
    features, codes = bank.features("timm/other"), bank.column("label")[0]
    labels = np.where(np.arange(150) % 2 == 1, codes, -1)
    patients = {"groups": np.arange(150) // 3, "data_set": bank.image_digest}
    expected = fewshot(features.array, labels, PROTOCOL, **patients)
    assert found["accuracy"] == expected.accuracy
    assert (found["outside_split"], found["images"]) == (75, expected.used)
    assert found["images"] + found["masked"] + found["outside_split"] == 150


def test_patients_apart(bank: Bank) -> None:
    features, data_set = bank.features("timm/other"), bank.image_digest
    groups = np.arange(150) // 3
    for asked in (None, True, False):
        apart = Protocol(n_way=2, n_shot=3, n_query=4, episodes=30, group_disjoint=asked)
        expected = fewshot(features.array, features.labels, apart, groups=groups, data_set=data_set)
        found = fewshot_from_bank(bank.path, "timm/other", apart)
        assert found["episodes_digest"] == expected.episodes_digest
        assert (
            found["group_disjoint"] is read_all(bank.path)[-1].asked["group_disjoint"] is (asked is not False)
        )
        assert found["patients"]["groups"] == expected.patients.groups > 0


def test_refusals_leave_no_record(bank: Bank) -> None:
    with pytest.raises(Refused, match="The bank has test, train"):
        fewshot_from_bank(bank.path, "timm/other", PROTOCOL, split="val")
    with pytest.raises(Refused, match="together"):
        fewshot_from_bank(bank.path, "timm/other", Protocol(mode="as-published"), split="train")
    with pytest.raises(Refused, match="named once"):
        fewshots_from_bank(bank.path, ["timm/other", "timm/other"], PROTOCOL)
    with pytest.raises(BankError, match="'nothing' is not in"):
        fewshot_from_bank(bank.path, "nothing", PROTOCOL)
    with pytest.raises(Refused, match=r"largest: (apple|zebra|pear) \d+"):
        fewshot_from_bank(bank.path, "timm/other", Protocol(n_way=5))
    assert read_all(bank.path) == []


def test_the_command_starts_without_heavy_packages(bank: Bank) -> None:
    words = ["fewshot", str(bank.path), "--model", "timm/other", "--json"]
    words += ["--n-way", "2", "--n-shot", "3", "--n-query", "4", "--episodes", "30"]
    program = (
        "import sys, cli\n"
        f"sys.argv = ['embank', *{words!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(' '.join(sorted(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    heavy = {"torch", "pandas", "scipy", "zarr", "pyarrow", "rich", "sklearn", "matplotlib", "faiss", "PIL"}
    for allowed in ({"pyarrow"}, set()):  # the first evaluation of a bank reads its image ids for good
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
        )
        assert json.loads(done.stdout)["episodes"] == 30
        assert (heavy - allowed) & set(done.stderr.split()) == set()
