"""The contract of evaluations for findings in one run and for the study's loop; what workers hand back."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.record import USED_FIELDS
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import evaluate
from engine.evals.probe.options import Options, Policies, ProbeOptions, SplitOptions
from engine.executors import Serial
from stores.bank.predictions import read_predictions
from stores.bank.reader import Bank
from stores.bank.records import read_all, record_files, together
from tests.contracts.predictions import check_classes, check_finding
from tests.probe_banks import CELLS, FIRST, ROWS, SECOND, make_probe_bank
from tests.stores.banks import flip

FINDINGS = BankProbe(("edema", "oedema"), multi_label=True, policies=Policies("ignore", "zeros"))
PUBLISHED = BankProbe(splits=SplitOptions(mode="as-published"))
FITTING = {
    "findings": ProbeOptions(C=(0.01, 0.1, 1.0), bootstrap=20),
    "published": ProbeOptions(mode="as-published", bootstrap=20),
}
WANTED = {"findings": FINDINGS, "published": PUBLISHED}
KINDS = tuple(WANTED)
#: As tables have them, and as numbers of which one is missing.
NUMBER = {"1.0": 1.0, "0.0": 0.0, "-1.0": -1.0, "": float("nan")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bank with a record of each kind, in the order of `KINDS`, and the reports."""
    bank = Path(make_probe_bank(tmp_path_factory.mktemp("contract")).path)
    return bank, {kind: probes_from_bank(bank, [FIRST], WANTED[kind], FITTING[kind])[0] for kind in KINDS}


def arrays(bank: Path, **more: Any) -> Features:
    """The same features as arrays; a finding as texts, the other one as numbers."""
    store = Bank.open(bank)
    features, columns = store.features(FIRST), {}
    for name in ("label", "group", "split"):
        codes, names = store.column(name)
        columns[name] = [names[code] if code >= 0 else "" for code in codes.tolist()]
    edema = np.array([NUMBER[CELLS[row % 7]] for row in range(ROWS)])
    values: dict[str, Any] = {
        "groups": columns["group"],
        "splits": columns["split"],
        "findings": {"edema": edema, "oedema": [("0.0", "1.0")[row // 2 % 2] for row in range(ROWS)]},
        "data_set": store.image_digest,
        **more,
    }
    return Features.from_arrays(np.array(features.array), columns["label"], **values)


def options(kind: str) -> Options:
    return WANTED[kind].options(FITTING[kind], WANTED[kind].runs[0])


def text(body: Any) -> str:
    """A document without seconds as text, in which NaN equals NaN."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(inner) for name, inner in value.items() if name != "stages"}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(without(body))


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_give_the_numbers_notes_and_predictions_of_the_bank(kind: str, made: tuple[Path, Any]) -> None:
    bank, reports = made
    result = evaluate(arrays(bank), options(kind), Compute())
    body = result.to_dict()
    assert text(body) == text({name: reports[kind][name] for name in body})
    assert result.notes == tuple(reports[kind]["notes"])
    metrics = result.metrics()
    assert next(iter(metrics)) == "accuracy"
    assert all(metric.value == reports[kind]["test"][name] for name, metric in metrics.items())
    beside = record_files(bank)[KINDS.index(kind)].with_suffix(".parquet").read_bytes()
    assert result.predictions().tables[""].to_parquet(Features.from_bank(bank, FIRST).ids) == beside


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_lie_beside_the_record_and_agree_with_its_metrics(
    kind: str, made: tuple[Path, Any]
) -> None:
    bank, reports = made
    path, record = record_files(bank)[KINDS.index(kind)], read_all(bank)[KINDS.index(kind)]
    assert set(USED_FIELDS) <= set(record.used) and record.used["targets"] == reports[kind]["targets"]
    assert set(record.used["splits"]) == {"train", "val", "test"}
    table = read_predictions(bank, path.name.removesuffix(".json"))
    assert table.num_rows == record.used["splits"]["test"]["rows"]
    assert table.column("image_id").to_pylist() == [f"image {row}" for row in table.column("row").to_pylist()]
    if kind == "published":
        assert record.used["backend"] == "sklearn" and record.used["label"] == "label"
        check_classes(table, reports[kind]["test"])
        return
    assert record.used["backend"] == "batched" and record.used["label"] == "edema, oedema"
    for finding in reports[kind]["findings"]:
        check_finding(table, finding["label"], finding["test"])
    cells = [CELLS[row % 7] for row in table.column("row").to_pylist()]
    expected = [{"1.0": 1.0, "0.0": 0.0, "": 0.0, "-1.0": float("nan")}[cell] for cell in cells]
    np.testing.assert_array_equal(table.column("truth.edema").to_numpy(), np.array(expected, np.float32))
    assert np.isnan(expected).any()


def test_a_part_that_was_cut_names_the_split_that_it_came_from(tmp_path: Path) -> None:
    bank = make_probe_bank(tmp_path).path
    wanted = BankProbe(splits=SplitOptions(val="none such"))
    probes_from_bank(bank, [FIRST], wanted, ProbeOptions(C=(0.1,), bootstrap=0))
    splits = read_all(bank)[-1].used["splits"]
    assert [splits[part]["split"] for part in ("train", "val", "test")] == ["train", "train", "test"]
    assert 0 < splits["val"]["rows"] < splits["train"]["rows"]


class _Elsewhere(Serial):
    """As a worker process: what goes in and comes out has been pickled."""

    def run(self, function: Any, tasks: Any) -> Any:
        for position, outcome in super().run(function, pickle.loads(pickle.dumps(tasks))):
            yield position, pickle.loads(pickle.dumps(outcome))


@pytest.mark.parametrize("damaged", [False, True])
def test_records_of_workers_have_their_predictions_and_a_lost_one_is_said(
    damaged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stores.bank import image_ids

    monkeypatch.setattr(image_ids, "_read", {})
    bank = Path(make_probe_bank(tmp_path).path)
    if damaged:
        flip(bank / "manifest.parquet")
    fitting = ProbeOptions(C=(0.1, 1.0), bootstrap=0)
    entries, lost = {}, {}
    for name, executor in (("here", None), ("there", _Elsewhere())):
        with together() as batch:
            entries[name] = probes_from_bank(bank, [FIRST, SECOND], options=fitting, executor=executor)
        lost[name] = [error.found for error in batch.lost]
        assert [one.asked["model"] for one in batch.made] == [FIRST, SECOND]
        values = [dict(one.metrics["test"])["accuracy"] for one in batch.made]
        assert values == [one["test"]["accuracy"] for one in entries[name]]
        assert all(bool(one.predictions) != damaged for one in batch.made)  # figures need none
    here, there = (text([entry["test"] for entry in entries[name]]) for name in ("here", "there"))
    assert here == there
    assert lost["here"] == lost["there"] and len(lost["here"]) == 2 * damaged
    records = read_all(bank)
    if damaged:
        assert records == [] and all(one["record"] is None for one in entries["there"])
        return
    assert len(records) == 4 and records[0].predictions == records[2].predictions
    stem = record_files(bank)[3].name.removesuffix(".json")
    check_classes(read_predictions(bank, stem), entries["there"][1]["test"])


def test_a_finding_that_arrays_lack_or_cannot_have_is_refused_with_a_remedy_that_works(
    made: tuple[Path, Any],
) -> None:
    bank, _ = made
    wanted = Options(C=(0.1,), bootstrap=0, findings=("edema",))
    with pytest.raises(Refused, match="column 'edema'") as error:
        evaluate(arrays(bank, findings={}), wanted, Compute())
    assert "`findings` of Features.from_arrays" in error.value.remedy
    assert evaluate(arrays(bank), wanted, Compute()).metrics()["accuracy"].value > 0
    with pytest.raises(Refused, match="finding called 'label'"):
        arrays(bank, findings={"label": [""] * ROWS})
    with pytest.raises(Refused, match=r"2 cells of 'edema' for 240 labels"):
        arrays(bank, findings={"edema": [1, 0]})
    numbers = Features.from_arrays(np.zeros((4, 2)), [1, 0, -1, 1], splits=["train", "val", "test", "train"])
    with pytest.raises(Refused, match="whole numbers") as error:
        evaluate(numbers, Options(policies=Policies("ones")), Compute())
    assert "as texts" in error.value.remedy


def test_a_backend_goes_by_its_former_name_for_one_release() -> None:
    assert ProbeOptions(backend="lockstep") == ProbeOptions() == ProbeOptions(backend="batched")
    assert Options(backend="lockstep").backend == "batched"
    with pytest.raises(Refused) as error:
        ProbeOptions(backend="magic")
    assert error.value.rule == "It is one of batched, sklearn, cuml"
