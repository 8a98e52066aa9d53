"""One contract for all evaluations: names, options, refusals, records, predictions; bank and arrays alike."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import Refused
from engine.evals import catalogue
from engine.evals.catalogue import EVALUATIONS
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.record import USED_FIELDS
from engine.evals.common.result import Metric
from engine.evals.common.validity import CODES, SEVERITIES, ValidityIssue
from engine.evals.probe.options import LowShot, SplitOptions
from stores.bank.predictions import read_predictions, tables_of
from stores.bank.reader import Bank
from stores.bank.records import read_all, record_files
from stores.maintenance.quarantine import quarantine
from stores.maintenance.verify import verify
from tests.contracts.predictions import check_classes
from tests.engine.evals.invariance_banks import MODEL as PICTURED
from tests.probe_banks import FIRST, SECOND, make_probe_bank
from tests.stores.banks import content, flip

#: Evaluations without the contract as yet.
NOT_CONVERTED: set[str] = set()
CONVERTED = sorted(set(EVALUATIONS) - NOT_CONVERTED)
CLASSIFYING = [kind for kind in CONVERTED if EVALUATIONS[kind].classifies]
IN_IMAGES = [kind for kind in CONVERTED if EVALUATIONS[kind].opens_images]
CPU = Compute(backend="array")


@dataclasses.dataclass(frozen=True)
class Case:
    """How the suite calls one evaluation.

    Attributes:
        options: that suit the bank of the suite.
        nonsense: options that are refused, one after the other.
        with_split: options that name a split.
        from_bank: what its command calls, given bank and model; returns the report.
        check: recomputes metrics from the tables of predictions.
    """

    options: dict[str, Any]
    nonsense: list[dict[str, Any]]
    with_split: Callable[[str], dict[str, Any]] | None
    from_bank: Callable[[Path, str], dict[str, Any]]
    check: Callable[[dict[str, pa.Table], dict[str, Any]], None]


def _fewshot(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.fewshot.bank import fewshot_from_bank
    from engine.evals.fewshot.options import Protocol

    return fewshot_from_bank(bank, model, Protocol(n_way=3, n_shot=3, n_query=4, episodes=25))


def _check_fewshot(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    episodes, images = tables["episodes"], tables["images"]
    assert episodes.column("episode").to_pylist() == list(range(25))
    accuracies = episodes.column("accuracy").to_numpy()
    assert accuracies.mean() == pytest.approx(report["accuracy"], rel=1e-12)
    assert 1.96 * accuracies.std(ddof=1) / 5 == pytest.approx(report["ci95"], rel=1e-12)
    queries, correct = (images.column(name).to_numpy() for name in ("queries", "correct"))
    assert queries.sum() == 25 * 3 * 4 and queries.min() == 1 and (correct <= queries).all()
    assert correct.sum() / queries.sum() == pytest.approx(report["accuracy"], rel=1e-12)


def _knn(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.neighbours.knn import KnnOptions, knn_from_bank

    return knn_from_bank(bank, model, KnnOptions(k=(5, 1), backend="array"))


def _check_knn(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    (table,) = tables.values()
    assert table.num_rows == report["test_images"]
    check_classes(table, report["test"])


def _probe(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.probe.bank import probes_from_bank
    from engine.evals.probe.options import ProbeOptions

    return probes_from_bank(bank, [model], options=ProbeOptions(C=(0.01, 0.1, 1.0), bootstrap=30))[0]


def _check_probe(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    (table,) = tables.values()
    assert table.num_rows == report["images"]["test"]
    check_classes(table, report["test"])


def _search(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.neighbours.search import search

    return search(bank, model, image_id="image 1", k=4, backend="array", device="cpu").report


def _check_search(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    hits = tables["neighbours"].to_pylist()
    assert [(hit["rank"], hit["row"], hit["image_id"], hit["distance"]) for hit in hits] == [
        (n["rank"], n["row"], n["image_id"], n["distance"]) for n in report["neighbours"]
    ]


def _audit(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.neighbours.audit import audit

    return audit(bank, model, threshold=0.7).report


def _check_audit(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    pairs = tables["pairs"]
    assert pairs.num_rows == report["pairs"] == report["listed"]
    first, second = (pairs.column(f"row_{side}").to_pylist() for side in "ab")
    assert len({*first, *second}) == report["images_in_pairs"]
    assert pairs.column("image_id_b").to_pylist() == [f"image {row}" for row in second]
    similarity = pairs.column("similarity").to_numpy()
    assert (similarity >= 0.7).all() and (np.diff(similarity) <= 0).all()


def _multiview(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.invariance.bank import multiview_from_bank
    from engine.evals.invariance.options import MultiViewOptions

    return multiview_from_bank(bank, model, MultiViewOptions(images=60, seed=3))


def _check_multiview(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    pairs = tables["pairs"]
    assert report["left_out"]["failed"] == 3 and pairs.num_rows == report["n"] == 60
    assert "row" not in pairs.column_names
    for name in ("cosine", "mahalanobis"):
        assert pairs.column(name).to_numpy().mean() == pytest.approx(report[name], rel=1e-12)
    laterals, frontals = (
        [int(text.removeprefix("image ")) for text in pairs.column(f"image_id_{side}").to_pylist()]
        for side in "ab"
    )
    assert all(
        a % 3 == 2 and b % 3 == 0 and a // 3 == b // 3 for a, b in zip(laterals, frontals, strict=True)
    )
    assert (laterals, frontals) == tuple(pairs.column(f"row_{side}").to_pylist() for side in "ab")


def _invariance(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.invariance.bank import invariances_from_bank
    from engine.evals.invariance.options import InvarianceOptions

    options = InvarianceOptions(("hue",), images=14, views=4)
    return {"transforms": [result.report for result in invariances_from_bank(bank, model, options)]}


def _check_invariance(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    (report,) = report["transforms"]
    images, views = tables["images"], tables["views"]
    cosine = images.column("cosine").to_numpy()
    assert report["grey"] > 0 and len(cosine) == report["n"] == 14 - report["grey"] >= 10
    assert set(images.column("drawn").to_pylist()) == {1}
    for name in ("cosine", "mahalanobis"):
        assert images.column(name).to_numpy().mean() == pytest.approx(report[name], rel=1e-12)
    assert views.column("view").to_pylist() == list(range(report["views"]))
    by_view = np.stack([images.column(f"cosine.{view}").to_numpy() for view in range(report["views"])])
    assert by_view.mean(axis=0) == pytest.approx(cosine, rel=1e-12)
    assert by_view.mean(axis=1) == pytest.approx(views.column("cosine").to_numpy(), rel=1e-12)
    assert (np.diff(views.column("turns").to_numpy()) > 0).all()


def _saliency(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.saliency.bank import saliency_from_bank
    from engine.evals.saliency.options import SaliencyOptions

    return saliency_from_bank(bank, model, SaliencyOptions(stride=10, images=2), device="cpu", threads=1)


def _check_saliency(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    (table,) = tables.values()
    diffusion = table.column("attentive_diffusion").to_numpy()
    assert len(diffusion) == report["images"] == 2 and not report["failed"]
    assert diffusion.mean() == pytest.approx(report["mean"], rel=1e-12)
    assert diffusion.std(ddof=1) == pytest.approx(report["sd"], rel=1e-12)
    assert (diffusion.min(), diffusion.max()) == (report["min"], report["max"])
    assert table.column("mean_score").to_pylist() == [item["mean_score"] for item in report["items"]]
    assert table.column("image_id").to_pylist() == [item["image_id"] for item in report["items"]]


#: `invariance_banks` has no splits.
HELD_OUT = SplitOptions(holdout=True)


def _finetune(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.finetune.bank import finetune
    from engine.evals.finetune.options import FinetuneOptions
    from engine.runtime import Runtime
    from tests.engine.evals.invariance_banks import spec

    options = FinetuneOptions(steps=2, batch_size=6, bootstrap=30, splits=HELD_OUT)
    runtime = Runtime("cpu", "fp32", 1)
    return finetune(Bank.open(bank).manifest(), [spec()], bank, options, runtime=runtime)[0]


def _check_finetune(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    (table,) = tables.values()
    assert table.num_rows == report["images"]["test"]
    check_classes(table, report["test"])


def _reconstruct(bank: Path, model: str) -> dict[str, Any]:
    from engine.evals.reconstruction.bank import reconstruct_from_bank
    from engine.evals.reconstruction.options import ReconstructionOptions

    options = ReconstructionOptions(steps=1, seeds=1, images=2)
    return reconstruct_from_bank(bank, model, options, device="cpu", threads=1)


def _check_reconstruct(tables: dict[str, pa.Table], report: dict[str, Any]) -> None:
    images, networks = tables["images"], tables["networks"]
    losses = networks.column("loss").to_numpy()
    assert losses.tolist() == [item["loss"] for item in report["items"]] and (losses > 0).all()
    assert networks.column("seed").to_pylist() == [item["seed"] for item in report["items"]]
    means = images.column("loss.mean").to_numpy()
    assert len(means) == report["images"] == 2 and not report["failed"]
    assert means.mean() == pytest.approx(report["loss"]["mean"], rel=1e-12)
    assert images.column("image_id").to_pylist() == [image["image_id"] for image in report["by_image"]]


CASES = {
    "finetune": Case(
        {"steps": 2, "batch_size": 6, "bootstrap": 30, "splits": HELD_OUT},
        [
            {"steps": 0},
            {"batch_size": 0},
            {"lr": float("nan")},
            {"momentum": 1.0},
            {"weight_decay": -1.0},
            {"schedule": "x"},
            {"select": "x"},
            {"mode": "x"},
            {"class_weight": "x"},
            {"accumulate": 0},
            {"findings": ("one", "one")},
            {"mode": "as-published", "schedule": "constant"},
            {"mode": "as-published", "findings": ("one",)},
            {"mode": "as-published", "accumulate": 2},
        ],
        None,
        _finetune,
        _check_finetune,
    ),
    "reconstruct": Case(
        {"steps": 1, "seeds": 1, "images": 2},
        [{"mode": "x"}, {"steps": 0}, {"seeds": 0}, {"images": 0}, {"lr": 0.0}, {"seed": -1}],
        None,
        _reconstruct,
        _check_reconstruct,
    ),
    "probe": Case(
        {"C": (0.01, 0.1, 1.0), "bootstrap": 30},
        [
            {"C": ()},
            {"C": (0.0,)},
            {"select": "x"},
            {"backend": "x"},
            {"mode": "x"},
            {"bootstrap": -1},
            {"findings": ("one", "one")},
            {"findings": ("one",), "low_shot": LowShot()},
            {"mode": "as-published", "low_shot": LowShot()},
            {"mode": "as-published", "findings": ("one",)},
        ],
        lambda word: {"C": (1.0,), "bootstrap": 0, "splits": SplitOptions("val", "test", word)},
        _probe,
        _check_probe,
    ),
    "multiview": Case(
        {"images": 60, "seed": 3}, [{"seed": -1}, {"pair": ("a", "a")}], None, _multiview, _check_multiview
    ),
    "invariance": Case(
        {"transforms": ("hue",), "images": 14, "views": 4},
        [{"transforms": ()}, {"images": 0}, {"views": 0}, {"mode": "x"}, {"batch_norm": "train"}],
        None,
        _invariance,
        _check_invariance,
    ),
    "saliency": Case(
        {"stride": 10, "images": 2},
        [{"size": 0}, {"stride": 0}, {"fill": "x"}, {"mode": "x"}, {"images": 0}, {"batch_norm": "train"}],
        None,
        _saliency,
        _check_saliency,
    ),
    "knn": Case(
        {"k": (5, 1)},
        [{"k": (0,)}, {"distance": "x"}, {"weights": "x"}, {"temperature": float("nan")}],
        lambda word: {"k": (1,), "test_split": word, "train_split": "val"},
        _knn,
        _check_knn,
    ),
    "search": Case(
        {"image_id": "image 1", "k": 4},
        [{"image_id": None}, {"image": Path("x.png")}, {"index": "x"}, {"distance": "x"}, {"k": 0}],
        None,
        _search,
        _check_search,
    ),
    "audit": Case({"threshold": 0.7}, [{"threshold": 0}, {"max_pairs": 0}], None, _audit, _check_audit),
    "fewshot": Case(
        {"n_way": 3, "n_shot": 3, "n_query": 4, "episodes": 25},
        [{"n_way": 1}, {"episodes": 0}, {"seed": -1}, {"distance": "x"}, {"bootstrap": -1}],
        lambda word: {"n_way": 3, "n_shot": 2, "n_query": 2, "episodes": 9, "split": word},
        _fewshot,
        _check_fewshot,
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A bank with a record of every evaluation that opens no image, and the reports."""
    bank = Path(make_probe_bank(tmp_path_factory.mktemp("contract"), views=True).path)
    return bank, {kind: CASES[kind].from_bank(bank, FIRST) for kind in CONVERTED if kind not in IN_IMAGES}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A bank with images and a record of every evaluation that opens them, and the reports."""
    from tests.engine.evals import invariance_banks

    bank = Path(invariance_banks.build(tmp_path_factory.mktemp("images"), 24, grey=4).path)
    return bank, {kind: CASES[kind].from_bank(bank, PICTURED) for kind in IN_IMAGES}


@pytest.fixture
def at(kind: str, request: pytest.FixtureRequest) -> tuple[Path, str, dict[str, Any]]:
    """The bank of an evaluation, its model, and the evaluation's report."""
    bank, reports = request.getfixturevalue("pictured" if kind in IN_IMAGES else "made")
    return bank, PICTURED if kind in IN_IMAGES else FIRST, reports[kind]


def arrays(bank: Path, **more: Any) -> Features:
    """The same features as arrays."""
    store = Bank.open(bank)
    given: dict[str, Any] = {}
    for name in ("label", "group", "split"):
        codes, names = store.column(name)
        given[name] = [names[code] if code >= 0 else "" for code in codes.tolist()]
    features = store.features(FIRST)
    given = {
        "groups": given["group"],
        "splits": given["split"],
        "views": store.manifest().frame["view"].tolist(),
        "labels": given["label"],
        "image_ids": store.manifest().image_ids,
        "data_set": store.image_digest,
        **more,
    }
    return Features.from_arrays(np.array(features.array), given.pop("labels"), **given)


def run(kind: str, features: Features, **options: Any) -> Any:
    return catalogue.evaluate(kind, features, CPU, **(options or CASES[kind].options))


def record_of(bank: Path, kind: str) -> tuple[Path, Any]:
    recorded_as = EVALUATIONS[kind].recorded_as or kind
    pairs = zip(record_files(bank), _in_order(bank), strict=True)
    (chosen,) = [(path, record) for path, record in pairs if record.kind == recorded_as]
    return chosen


def _in_order(bank: Path) -> list[Any]:
    from stores.bank.records import read_record

    return [read_record(path) for path in record_files(bank)]


def test_the_table_has_every_evaluation_and_the_suite_a_case_for_each_that_is_converted() -> None:
    assert set(CASES) == set(CONVERTED) and set(EVALUATIONS) > NOT_CONVERTED
    for kind, evaluation in EVALUATIONS.items():
        assert evaluation.kind == kind and evaluation.load().__name__ == evaluation.module


@pytest.mark.parametrize("kind", CONVERTED)
def test_names_are_the_same(kind: str) -> None:
    module = EVALUATIONS[kind].load()
    assert {"Options", "evaluate", "Result"} <= set(vars(module))
    for name in ("Options", "Result"):
        made = getattr(module, name)
        assert dataclasses.is_dataclass(made) and made.__dataclass_params__.frozen, name
    assert all(hasattr(module.Result, name) for name in ("metrics", "predictions", "to_dict"))


@pytest.mark.parametrize("kind", CONVERTED)
def test_options_refuse_nonsense_when_they_are_made(kind: str) -> None:
    options = EVALUATIONS[kind].load().Options
    options(**CASES[kind].options)
    for bad in CASES[kind].nonsense:
        with pytest.raises(Refused) as error:
            options(**{**CASES[kind].options, **bad})
        assert error.value.remedy


def test_an_unknown_kind_or_option_is_refused(made: tuple[Path, Any]) -> None:
    features = arrays(made[0])
    with pytest.raises(Refused, match="It is one of fewshot, knn"):
        catalogue.evaluate("nonsense", features)
    with pytest.raises(Refused, match="option 'shots' of fewshot"):
        catalogue.evaluate("fewshot", features, shots=3)


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_is_evaluated_is_what_the_command_reports(kind: str, at: tuple[Path, str, Any]) -> None:
    bank, model, report = at
    result = run(kind, Features.from_bank(bank, model))
    body = {name: value for name, value in _without_clock(result.to_dict()).items() if name != "masked"}
    _assert_within(json.loads(json.dumps(body)), json.loads(json.dumps(report)))
    assert result.metrics()
    for name, metric in result.metrics().items():
        assert isinstance(metric, Metric) and (metric.value == metric.value or metric.reason), name
    assert result.predictions().tables and isinstance(result.notes, tuple)


def _assert_within(part: Any, whole: Any, where: str = "") -> None:
    """All of a document is in another, which may say more."""
    if isinstance(part, dict):
        for name, value in part.items():
            _assert_within(value, whole[name], f"{where}.{name}")
    elif isinstance(part, list):
        assert len(part) == len(whole), where
        for place, (value, other) in enumerate(zip(part, whole, strict=True)):
            _assert_within(value, other, f"{where}.{place}")
    else:
        assert part == whole or (part != part and whole != whole), where


@pytest.mark.parametrize("kind", [kind for kind in CONVERTED if kind not in IN_IMAGES])
def test_bank_and_arrays_give_equal_numbers(kind: str, made: tuple[Path, Any]) -> None:
    bank, _ = made
    result, other = run(kind, Features.from_bank(bank, FIRST)), run(kind, arrays(bank))
    documents = [json.dumps(_without_clock(one.to_dict())) for one in (result, other)]
    assert documents[0] == documents[1]  # as text, in which NaN equals NaN
    assert result.metrics() == other.metrics() and result.notes == other.notes
    for one, two in zip(_tables(result, bank), _tables(other, bank), strict=True):
        assert one.equals(two)


def _without_clock(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("seconds", "stages")}


def _tables(result: Any, bank: Path) -> list[pa.Table]:
    ids = Features.from_bank(bank, FIRST).ids
    return [pq.read_table(io.BytesIO(t.to_parquet(ids))) for t in result.predictions().tables.values()]


@pytest.mark.parametrize("kind", CLASSIFYING)
def test_what_cannot_be_classified_is_refused(kind: str, made: tuple[Path, Any]) -> None:
    bank, _ = made
    rows = len(Bank.open(bank).features(FIRST))
    for features in (
        arrays(bank, labels=[""] * rows),
        arrays(bank, labels=["one"] * rows),
        arrays(bank, ok=np.zeros(rows, bool)),
        Features.from_arrays(np.zeros((0, 4)), []),
    ):
        with pytest.raises(Refused) as error:
            run(kind, features)
        assert error.value.remedy


@pytest.mark.parametrize("kind", [kind for kind in CONVERTED if CASES[kind].with_split])
def test_an_unknown_split_is_refused_and_a_known_one_is_not(kind: str, made: tuple[Path, Any]) -> None:
    bank, _ = made
    with_split = CASES[kind].with_split
    assert with_split is not None
    for features in (Features.from_bank(bank, FIRST), arrays(bank)):
        with pytest.raises(Refused, match="split 'nowhere'") as error:
            run(kind, features, **with_split("nowhere"))
        assert "test" in error.value.rule
        assert run(kind, features, **with_split("train"))
    with pytest.raises(Refused, match="split") as error:
        run(kind, arrays(bank, splits=None), **with_split("train"))
    assert "Features.from_arrays" in error.value.remedy
    assert run(kind, arrays(bank), **with_split("train")), "the remedy works"


@pytest.mark.parametrize("kind", CONVERTED)
def test_records_say_the_same_of_what_was_used(kind: str, at: tuple[Path, str, Any]) -> None:
    bank, model, _ = at
    used = record_of(bank, kind)[1].used
    store = Bank.open(bank)
    feature = store.features(model)
    assert set(USED_FIELDS) <= set(used)
    expected = {
        "feature": feature.name,
        "title": model,
        "key": feature.key.digest,
        "manifest_digest": store.manifest_digest,
        "image_digest": store.image_digest,
    }
    assert {name: used[name] for name in expected} == expected
    assert used["label"] == "label" or not EVALUATIONS[kind].classifies
    assert (used["device"], used["threads"] >= 1, bool(used["backend"])) == ("cpu", True, True)
    assert used["splits"] and all(set(p) == {"split", "rows", "digest"} for p in used["splits"].values())
    assert all(part["rows"] > 0 and len(part["digest"]) == 64 for part in used["splits"].values())


@pytest.mark.parametrize("kind", CONVERTED)
def test_records_and_reports_list_what_limits_their_numbers(kind: str, at: tuple[Path, str, Any]) -> None:
    bank, model, report = at
    record = record_of(bank, kind)[1]
    reports = report.get("transforms", [report])
    assert record.validity is not None
    assert all(one["validity"] == list(record.validity) for one in reports)
    own = run(kind, Features.from_bank(bank, model)).validity
    assert {one.code for one in own} <= {one["code"] for one in record.validity} <= set(CODES)
    for one in record.validity:
        assert set(one) == set(ValidityIssue.__dataclass_fields__) and one["sentence"] and one["remedy"]
        assert one["severity"] in SEVERITIES and not one["sentence"].endswith(".")
    graver = [SEVERITIES.index(one["severity"]) for one in record.validity]
    assert graver == sorted(graver)
    if kind not in IN_IMAGES:  # 3 of 240 rows have failed, whatever is evaluated
        assert "failed_rows" in {one["code"] for one in record.validity}


@pytest.mark.parametrize("kind", CONVERTED)
def test_predictions_lie_beside_the_record_and_agree_with_its_metrics(
    kind: str, at: tuple[Path, str, Any]
) -> None:
    bank, _, report = at
    path, record = record_of(bank, kind)
    promised = tables_of(record, path.name)
    assert promised and all((bank / table.path).is_file() for table in promised)
    stem = path.name.removesuffix(".json")
    beside = {p.name for p in path.parent.iterdir() if p.name.startswith(stem)} - {path.name}
    assert beside == {Path(table.path).name for table in promised}
    tables = {t.name: read_predictions(bank, stem, t.name) for t in promised}
    ids = Bank.open(bank).manifest().image_ids
    for promise in promised:
        table = tables[promise.name]
        assert table.num_rows == promise.rows > 0
        if "row" in table.column_names:
            rows = table.column("row").to_pylist()
            assert len(set(rows)) == len(rows), "one row an image"
            assert table.column("image_id").to_pylist() == [ids[row] for row in rows]
            if "truth" in table.column_names:
                codes, names = Bank.open(bank).column("label")
                assert table.column("truth").to_pylist() == [names[codes[row]] for row in rows]
    CASES[kind].check(tables, report)


def test_no_encoder_is_called_and_no_image_opened(
    made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.models
    from engine.embed import restore

    calls: list[str] = []
    for module, name in ((engine.models, "load"), (restore, "restore"), (restore, "one_file")):
        monkeypatch.setattr(module, name, lambda *a, _name=name, **k: calls.append(_name))
    bank, _ = made
    assert not list(bank.parent.glob("images/*")), "there is no image to open"
    for kind in CONVERTED:
        if not EVALUATIONS[kind].opens_images:
            run(kind, Features.from_bank(bank, FIRST))
    assert calls == []


@pytest.mark.parametrize("kind", IN_IMAGES)
def test_evaluations_of_images_refuse_arrays_and_say_what_to_do(kind: str, made: tuple[Path, Any]) -> None:
    with pytest.raises(Refused, match="of arrays") as error:
        run(kind, arrays(made[0]))
    assert "Features.from_bank" in error.value.remedy


# What becomes of the files


@pytest.mark.parametrize("harm", ["flip", "remove", "cut"])
def test_damaged_predictions_are_refused_verified_and_set_aside_with_their_record(
    harm: str, tmp_path: Path
) -> None:
    bank = Path(make_probe_bank(tmp_path).path)
    for model in (FIRST, SECOND):
        _fewshot(bank, model)
    before, whole = verify(bank), record_files(bank)
    assert before.ok
    path, record = whole[0], _in_order(bank)[0]
    table = next(t for t in tables_of(record, path.name) if t.name == "images")
    file = bank / table.path
    if harm == "flip":
        flip(file)
    elif harm == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(Exception, match="missing" if harm == "remove" else "damaged") as error:
        read_predictions(bank, path.name.removesuffix(".json"))
    assert "embank bank repair" in error.value.remedy
    assert read_predictions(bank, path.name.removesuffix(".json"), "episodes").num_rows == 25
    report = verify(bank)
    assert [damage.path for damage in report.damaged] == [table.path]
    quarantine(bank, report)
    assert verify(bank).ok and record_files(bank) == whole[1:]
    assert not [p for p in (bank / "records").iterdir() if p.name.startswith(path.name[:-5])]
    assert len(list((bank / ".embank" / "quarantine").rglob(f"*{path.name}"))) == 1
    assert read_predictions(bank, whole[1].name.removesuffix(".json")).num_rows > 0


def test_the_image_ids_are_read_from_the_manifest_once_and_a_damaged_copy_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stores.bank import image_ids as module
    from stores.bank.image_ids import image_ids

    monkeypatch.setattr(module, "_read", {})
    store = make_probe_bank(tmp_path)
    bank = Path(store.path)
    untouched = content(bank)
    ids = image_ids(store)
    assert list(ids) == store.manifest().image_ids and content(bank) == untouched, "reading changes nothing"
    _fewshot(bank, FIRST)
    (copy,) = (bank / ".embank" / "statistics").glob("image-ids-*")
    assert list(image_ids(store)) == store.manifest().image_ids
    (bank / "manifest.parquet").rename(tmp_path / "away")
    assert module._read == {} and list(image_ids(store)) == list(ids), "from the copy"
    (tmp_path / "away").rename(bank / "manifest.parquet")
    flip(copy)
    assert list(image_ids(store)) == list(ids), "from the manifest again"


def test_a_damaged_manifest_takes_the_record_and_not_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stores.bank import image_ids

    monkeypatch.setattr(image_ids, "_read", {})
    bank = Path(make_probe_bank(tmp_path).path)
    flip(bank / "manifest.parquet")
    report = _fewshot(bank, FIRST)
    assert 0 < report["accuracy"] <= 1 and report["record"] is None and "manifest" in report["record_reason"]
    assert read_all(bank) == []


def test_predictions_are_exported_by_the_command(made: tuple[Path, Any], tmp_path: Path) -> None:
    from tests.command import embank

    bank, _ = made
    path, record = record_of(bank, "fewshot")
    stem = path.name.removesuffix(".json")
    for table, ending in (("images", "csv"), ("episodes", "parquet"), ("images", "json")):
        out = tmp_path / "new" / f"{table}.{ending}"
        words = ("records", "export", bank, "--predictions", stem, "--table", table, "-o", out, "--json")
        ran = embank(*words)
        assert ran.code == 0, ran.err
        expected = read_predictions(bank, stem, table).to_pylist()
        assert (ran.json["rows"], ran.json["table"]) == (len(expected), table)
        if ending == "parquet":
            assert pq.read_table(out).to_pylist() == expected
        elif ending == "json":
            assert json.loads(out.read_text()) == expected
        else:
            frame = pd.read_csv(out)
            assert frame["image_id"].tolist() == [row["image_id"] for row in expected]
            assert frame["queries"].tolist() == [row["queries"] for row in expected]
    for words in (
        ("--table", "images"),
        ("--predictions", stem, "--table", "nothing"),
        ("--predictions", stem, "--kind", "fewshot"),
        ("--predictions", "zzz"),
    ):
        ran = embank("records", "export", bank, *words, "-o", tmp_path / "no" / "x.csv")
        assert ran.code == 2, ran.err
    assert not (tmp_path / "no").exists()
    shown = embank("records", "show", bank, stem)
    assert shown.code == 0 and f"{record.predictions['images']['rows']} rows" in shown.out


# What evaluations take


def test_features_of_arrays_that_do_not_belong_together_are_refused() -> None:
    x = np.zeros((5, 3), np.float32)
    fine: dict[str, Any] = {"labels": ["a", "b", "a", "b", ""]}
    assert len(Features.from_arrays(x, **fine)) == 5
    for bad in (
        {"labels": ["a"] * 4},
        {"groups": ["p"] * 4},
        {"splits": ["train"] * 6},
        {"ok": np.ones(4, bool)},
        {"image_ids": ["x"] * 5},
        {"image_ids": list("abcd")},
        {"image_ids": [1, 2, 3, 4, 5]},
    ):
        with pytest.raises(Refused) as error:
            Features.from_arrays(x, **{**fine, **bad})
        assert error.value.remedy
    with pytest.raises(Refused, match="shape"):
        Features.from_arrays(np.zeros(5), **fine)


def test_usable_rows_are_counted_by_the_first_reason_that_holds() -> None:
    x = np.ones((7, 2), np.float32)
    x[0], x[1] = np.nan, np.inf
    features = Features.from_arrays(x, ["", "a", "a", "", "b", "a", ""], splits=list("ttttxxx"))
    usable = features.usable()
    assert (usable.rows.tolist(), usable.failed, usable.unlabelled, usable.outside) == ([2, 4, 5], 2, 2, 0)
    usable = features.usable(features.split_rows({"part": "t"}).rows["part"])
    assert (usable.rows.tolist(), usable.failed, usable.unlabelled, usable.outside) == ([2], 2, 1, 3)


def test_features_copy_nothing_and_read_no_column_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_probe_bank(tmp_path)
    names: list[str] = []
    real = Bank.column
    monkeypatch.setattr(Bank, "column", lambda self, name: (names.append(name), real(self, name))[1])
    features = Features.from_bank(store, FIRST)
    assert names == [] and not features.array.flags.writeable and not features.array.flags.owndata
    assert features.groups is not None and features.labels.names and names == ["group", "label"]
    other = Features.from_bank(store, FIRST, label="edema")
    assert other.labels.names == ("-1.0", "0.0", "1.0")
    x = np.zeros((4, 2))
    assert Features.from_arrays(x, [0, 1, 0, 1]).array is x


def test_compute_is_decided_once_and_refuses_nonsense() -> None:
    assert Compute.resolve("cpu", 3, "faiss", 1 << 30) == Compute("cpu", 3, "faiss", 1 << 30)
    assert Compute.resolve().threads >= 1
    for bad in (
        {"device": "tpu"},
        {"device": "cuda"},
        {"threads": 0},
        {"threads": 1.5},
        {"backend": "numpy"},
        {"memory": 0},
    ):
        with pytest.raises(Refused) as error:
            Compute(**bad)
        assert error.value.remedy
    with pytest.raises(Refused):
        Compute.resolve("tpu")


@pytest.mark.parametrize("kind", ["fewshot", "knn"])
def test_the_memory_that_is_allowed_is_a_limit(kind: str, made: tuple[Path, Any]) -> None:
    features = Features.from_bank(made[0], FIRST)
    options = CASES[kind].options
    with pytest.raises(Refused, match="are allowed"):
        catalogue.evaluate(kind, features, Compute(backend="array", memory=100), **options)
    assert catalogue.evaluate(kind, features, Compute(backend="array", memory=1 << 24), **options)


def test_a_number_that_is_undefined_has_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Metric(float("nan"))
    assert Metric(float("nan"), reason="one class").value != 0.5
