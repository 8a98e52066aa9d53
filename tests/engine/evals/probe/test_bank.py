"""Probes from a bank: what the arrays give, several models and columns, and the records they leave."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import BankError, Refused
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions, probe
from engine.evals.probe.lowshot import LowShot
from engine.evals.probe.parts import SplitOptions
from engine.evals.probe.selection import grid
from engine.evals.probe.targets import Policies
from engine.executors import SERIAL
from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.one_by_one import OneByOne
from tests.probe_banks import FAILED, FIRST, ROWS, SECOND, make_probe_bank
from tests.said import said

OPTIONS = ProbeOptions(C=grid(1e-3, 1e1, 3), bootstrap=20)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_probe_bank(tmp_path_factory.mktemp("probe"))


def parts(bank: Bank) -> dict[str, np.ndarray]:
    codes, names = bank.column("split")
    return {name: codes == names.index(name) for name in ("train", "val", "test")}


def test_the_bank_gives_what_the_arrays_give(bank: Bank) -> None:
    (found,) = probes_from_bank(bank.path, [FIRST], options=OPTIONS)
    features = bank.features(FIRST)
    groups = bank.column("group")[0]
    expected = probe(features.array, features.labels, **parts(bank), groups=groups, options=OPTIONS).to_dict()
    for name in ("best_C", "val_score", "converged", "objective", "images", "masked"):
        assert found[name] == expected[name]
    assert found["test"]["accuracy"] == expected["test"]["accuracy"]
    assert found["test"]["intervals"] == expected["test"]["intervals"]
    assert found["classes"] == ["apple", "pear", "zebra"]
    assert found["masked"] == {
        "failed": len(FAILED),
        "unlabelled": sum(r % 5 == 4 and r not in FAILED for r in range(ROWS)),
    }


class _Elsewhere(OneByOne):
    """As a worker process: what goes in and comes out has been pickled."""

    def run(self, function: Any, tasks: Any) -> Any:
        for position, found in super().run(function, pickle.loads(pickle.dumps(tasks))):
            yield position, pickle.loads(pickle.dumps(found))


@pytest.mark.parametrize("together", [False, True])
def test_workers_find_the_same(bank: Bank, together: bool) -> None:
    asked = BankProbe(("edema", "oedema"), multi_label=together, policies=Policies("zeros", "zeros"))
    here, there = (
        probes_from_bank(bank.path, [SECOND, FIRST], asked, OPTIONS, executor=executor)
        for executor in (SERIAL, _Elsewhere())
    )
    timed = ("seconds", "stages")
    assert [_without(one, timed) for one in there] == [_without(one, timed) for one in here]


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _without(each, names) for name, each in value.items() if name not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else repr(value)


def test_several_models_and_columns_and_their_records(bank: Bank) -> None:
    before = len(read_all(bank.path))
    asked = BankProbe(("label", "oedema"))
    found = probes_from_bank(bank.path, [FIRST, SECOND], asked, OPTIONS)
    assert [(one["model"], one["label"]) for one in found] == [
        (FIRST, "label"), (FIRST, "oedema"), (SECOND, "label"), (SECOND, "oedema")
    ]  # fmt: skip
    records = read_all(bank.path)[before:]
    assert [(r.kind, r.asked["model"], r.asked["label"]) for r in records] == [
        ("probe", one["model"], one["label"]) for one in found
    ]
    record, one = records[1], found[1]
    assert record.metrics["test"]["accuracy"] == one["test"]["accuracy"]
    assert record.metrics["sweep"]["val_score"] == one["sweep"]["val_score"]
    assert record.convergence["oedema"]["sweep"]["fits"] == 3
    assert record.convergence["oedema"]["refit"]["converged"] is True
    assert record.failures == {"oedema": one["masked"]}
    assert record.used["feature"] == bank.features(FIRST).name
    assert record.used["manifest_digest"] == bank.manifest_digest
    assert record.asked["splits"]["fraction"] == 0.2 and record.asked["standardise"] is True
    assert record.versions["numpy"] == np.__version__


def test_policies_decide_what_uncertain_and_blank_cells_are(bank: Bank) -> None:
    codes = {}
    for uncertain, blank in (("ignore", "ignore"), ("ones", "zeros")):
        asked = BankProbe(("edema",), policies=Policies(uncertain, blank))
        (found,) = probes_from_bank(bank.path, [FIRST], asked, OPTIONS)
        codes[uncertain] = sum(found["images"].values())
        assert found["classes"] == ["negative", "positive"]
    fine = [row for row in range(ROWS) if row not in FAILED]
    assert codes == {"ignore": sum(row % 7 not in (2, 3) for row in fine), "ones": len(fine)}
    with pytest.raises(Refused, match="finding"):
        probes_from_bank(bank.path, [FIRST], BankProbe(("edema",)), OPTIONS)


def test_findings_in_one_run(bank: Bank) -> None:
    asked = BankProbe(("edema", "oedema"), multi_label=True, policies=Policies())
    (found,) = probes_from_bank(bank.path, [FIRST], asked, OPTIONS)
    assert [one["label"] for one in found["findings"]] == ["edema", "oedema"]
    assert found["select"] == "auroc"
    record = read_all(bank.path)[-1]
    assert set(record.convergence) == {"edema", "oedema"} == set(record.failures)
    assert record.asked["policies"] == {"uncertain": "ignore", "blank": "ignore"}
    alone = BankProbe(("oedema",), multi_label=True, policies=Policies())
    (again,) = probes_from_bank(bank.path, [FIRST], alone, OPTIONS)
    assert again["findings"][0]["images"] == found["findings"][1]["images"]


def test_low_shot_and_a_cut_for_validation(bank: Bank) -> None:
    told: list[str] = []
    asked = BankProbe(low_shot=LowShot((1, 4), 2), splits=SplitOptions(val="none such"))
    (found,) = probes_from_bank(
        bank.path,
        [FIRST],
        asked,
        OPTIONS,
        on_progress=lambda name: lambda what, *_: told.append(f"{name}: {what}"),
    )
    assert [point["images"] for point in found["low_shot"]["curve"]] == [3, 12]
    assert f"{FIRST}, label: low-shot" in told
    assert any(note.startswith("Validation: 20% of the train part's patients") for note in found["notes"])


def test_as_published_is_the_study_s_loop(bank: Bank) -> None:
    """scikit-learn in the study's order, from one fit to the next, at most 100 iterations."""
    import warnings

    from sklearn.linear_model import LogisticRegression

    options = ProbeOptions(mode="as-published", bootstrap=20)
    asked = BankProbe(splits=SplitOptions(mode="as-published"))
    (found,) = probes_from_bank(bank.path, [FIRST], asked, options)
    features = bank.features(FIRST)
    fine = features.ok & (features.labels >= 0)
    train, val, test = (part & fine for part in parts(bank).values())
    x, y = features.array.astype(np.float32), features.labels
    model = LogisticRegression(max_iter=100, warm_start=True)
    scores = []
    decays = np.logspace(-6, 5, 45)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for decay in decays:
            model.set_params(C=1 / decay, tol=1e-4 / train.sum()).fit(x[train], y[train])
            scores.append(model.score(x[val], y[val]))
    # An image at the border may fall to either side: products round as their rows lie in memory.
    np.testing.assert_allclose(found["sweep"]["val_score"], scores[::-1], atol=1.01 / val.sum())
    np.testing.assert_allclose(np.median(found["sweep"]["val_score"]), np.median(scores), atol=1e-9)
    tied = np.array(found["sweep"]["val_score"]) == found["val_score"]
    assert found["val_score"] == max(found["sweep"]["val_score"])
    assert found["best_C"] == max(np.array(found["sweep"]["C"])[tied]) == 1 / found["weight_decay"]
    np.testing.assert_allclose(found["sweep"]["C"], 1 / decays[::-1])
    assert found["sweep"]["C"] == sorted(found["sweep"]["C"])
    assert "of 45 fits" in found["convergence"]
    assert found["convergence"] in (found["notes"] if found["converged"] else said(found))
    far = np.array(found["sweep"]["excess"]) > 1e-6
    assert not (far & found["sweep"]["converged"]).any()
    assert found["converged"] == (all(found["sweep"]["converged"]) and found["refit"]["converged"])
    assert (found["standardise"], found["backend"]) == (False, "sklearn")
    assert 0 <= found["test"]["intervals"]["accuracy"]["low"] <= found["test"]["accuracy"]
    assert test.sum() == found["images"]["test"]


@pytest.mark.parametrize(
    ("models", "asked", "options", "says"),
    [
        ([FIRST, FIRST], {}, {}, "named once"),
        ([], {}, {}, "named once"),
        ([FIRST], {"labels": ("nothing",)}, {}, "nothing"),
        ([FIRST], {"splits": SplitOptions(test="exam")}, {}, "'exam'"),
        ([FIRST], {"low_shot": LowShot((50,))}, {}, "50 images per class"),
        ([FIRST], {"multi_label": True, "policies": Policies()}, {}, "'apple'"),
        ([FIRST], {"multi_label": True}, {"mode": "as-published"}, "--multi-label"),
        ([FIRST], {"low_shot": LowShot()}, {"mode": "as-published"}, "--low-shot"),
        ([FIRST], {}, {"mode": "as-published", "select": "auroc"}, "auroc"),
        ([FIRST], {}, {"mode": "as-published", "class_weight": "balanced"}, "balanced"),
        ([FIRST], {}, {"mode": "as-published", "C": (1.0, 2.0)}, "another grid"),
    ],
)
def test_refused(bank: Bank, models: list, asked: dict, options: dict, says: str) -> None:
    before = len(read_all(bank.path))
    with pytest.raises(Refused, match=says):
        probes_from_bank(bank.path, models, BankProbe(**asked), ProbeOptions(**options))
    assert len(read_all(bank.path)) == before


def test_an_unknown_model_is_refused(bank: Bank) -> None:
    with pytest.raises(BankError, match="no/model"):
        probes_from_bank(bank.path, ["no/model"], options=OPTIONS)


def test_low_shot_of_findings_is_refused() -> None:
    with pytest.raises(Refused, match="--low-shot with --multi-label"):
        BankProbe(multi_label=True, low_shot=LowShot())


def test_a_missing_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError):
        probes_from_bank(tmp_path / "none", [FIRST])
