"""Comparisons from records against scikit-learn, scipy, plain loops, and the evaluations' own numbers."""

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, balanced_accuracy_score, log_loss, roc_auc_score

from engine.errors import Refused
from engine.evals.comparison.evaluate import compare
from engine.evals.fewshot.bank import fewshots_from_bank
from engine.evals.fewshot.options import Protocol
from engine.evals.neighbours.knn import KnnOptions, knn_from_bank
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.options import Policies, ProbeOptions, SplitOptions
from engine.kernels.paired.bootstrap import resample_weights
from engine.kernels.paired.mcnemar import clustered_mcnemar
from stores.bank.predictions import read_predictions
from stores.bank.reader import Bank
from stores.bank.record_index import read_index
from tests.probe_banks import FIRST, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key

THIRD = "random/third"
FAST = ProbeOptions(C=(0.01, 1.0), bootstrap=0, threads=1)
FINDINGS = BankProbe(("edema", "oedema"), True, Policies("ignore", "ignore"))


def add_third(bank: Bank, rows: int, dim: int) -> None:
    """Add a model whose features know nothing."""
    features = np.random.default_rng(9).normal(size=(rows, dim)).astype(np.float32)
    fill_with(bank, make_key(bank.image_digest, model=THIRD), features, (5, 77, 200))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank with records of three models: probes of classes and of findings, k-NN, few-shot."""
    made = make_probe_bank(tmp_path_factory.mktemp("compare"))
    add_third(made, made.rows, 12)
    models = [FIRST, SECOND, THIRD]
    probes_from_bank(made.path, models, FINDINGS, FAST)
    probes_from_bank(made.path, models, None, FAST)
    for model in models:
        knn_from_bank(made.path, model, KnnOptions(k=(5,), device="cpu", threads=1))
    protocol = Protocol(n_way=2, n_shot=3, n_query=3, episodes=40)
    fewshots_from_bank(made.path, models, protocol, device="cpu", threads=1)
    return Path(made.path)


def record_of(bank: Path, kind: str, model: str, label: str | None = None) -> tuple[str, dict]:
    """The id and the metrics of a record."""
    entries = [
        entry
        for entry in read_index(bank)
        if entry.record is not None
        and entry.record.kind == kind
        and entry.model == model
        and label in (None, entry.record.asked.get("label"))
    ]
    return entries[-1].id, dict(entries[-1].record.metrics)


def tables(bank: Path, kind: str, label: str | None = None) -> dict[str, pa.Table]:
    wanted = "images" if kind == "fewshot" else None
    models = (FIRST, SECOND, THIRD)
    return {m: read_predictions(bank, record_of(bank, kind, m, label)[0], wanted) for m in models}


def groups_of(bank: Path, table: pa.Table) -> np.ndarray:
    return Bank.open(bank).column("group")[0][table.column("row").to_numpy()]


METRICS = {
    "accuracy": lambda truth, scores: float((scores.argmax(axis=1) == truth).mean()),
    "mean_per_class_accuracy": lambda truth, s: balanced_accuracy_score(truth, s.argmax(axis=1)),
    "auroc": lambda truth, scores: np.mean([roc_auc_score(truth == c, scores[:, c]) for c in range(3)]),
    "average_precision": lambda truth, scores: np.mean(
        [average_precision_score(truth == c, scores[:, c]) for c in range(3)]
    ),
    "log_loss": lambda truth, scores: log_loss(truth, scores, labels=range(3)),
}


@pytest.mark.parametrize("metric", METRICS)
def test_values_and_intervals_are_those_of_a_loop_over_resampled_patients(bank: Path, metric: str) -> None:
    own, resamples = tables(bank, "probe", "label"), 15
    result = compare(bank, "probe", label="label", metric=metric, resamples=resamples, seed=3, threads=1)
    classes = ["apple", "pear", "zebra"]
    groups = np.unique(groups_of(bank, own[FIRST]), return_inverse=True)[1]
    truth = np.array([classes.index(word) for word in own[FIRST].column("truth").to_pylist()])
    scores = {
        m: np.stack([t.column(f"score.{name}").to_numpy() for name in classes], axis=1)
        for m, t in own.items()
    }
    weights = np.concatenate(list(resample_weights(groups.max() + 1, resamples, 3)), axis=1).astype(int)
    measured = METRICS[metric]
    rows = [np.repeat(np.arange(len(truth)), column[groups]) for column in weights.T]
    rows = [drawn for drawn in rows if len(set(truth[drawn])) == 3]
    values = {m: measured(truth, own) for m, own in scores.items()}
    redrawn = {m: np.array([measured(truth[r], own[r]) for r in rows]) for m, own in scores.items()}
    for pair in result.pairs:
        assert pair.difference == pytest.approx(values[pair.a] - values[pair.b], abs=1e-12)
        resampled = redrawn[pair.a] - redrawn[pair.b]
        assert (pair.low, pair.high) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])), abs=1e-6)
        if metric in ("average_precision", "log_loss", "mean_per_class_accuracy"):
            count = groups.max() + 1
            error = np.std(resampled, ddof=1) * np.sqrt(count / (count - 1))
            expected = 2 * stats.t.sf(abs(pair.difference) / error, count - 1)
            assert pair.p == pytest.approx(expected, rel=1e-4) and pair.test == "bootstrap-t"
    for standing in result.parts[0].standings:
        stored = record_of(bank, "probe", standing.model, "label")[1]["test"][metric]
        assert standing.value == pytest.approx(stored, abs=1e-12)
    assert (result.setting.unit, result.setting.units, result.setting.images) == ("patients", 20, len(truth))


def test_auroc_is_tested_by_the_components_of_its_classes(bank: Path) -> None:
    """The mean over classes: influences of images, summed over patients, from all pairs of images."""
    own = tables(bank, "probe", "label")
    result = compare(bank, "probe", label="label", metric="auroc", resamples=20)
    truth = np.array(own[FIRST].column("truth").to_pylist())
    groups = groups_of(bank, own[FIRST])

    def influence(table: pa.Table) -> np.ndarray:
        total = np.zeros(len(truth))
        for name in ("apple", "pear", "zebra"):
            score, positive = table.column(f"score.{name}").to_numpy(), truth == name
            wins = np.array(
                [
                    [1.0 if x > y else 0.5 if x == y else 0.0 for y in score[~positive]]
                    for x in score[positive]
                ]
            )
            total[positive] += (wins.mean(axis=1) - wins.mean()) / positive.sum() / 3
            total[~positive] += (wins.mean(axis=0) - wins.mean()) / (~positive).sum() / 3
        return total

    for pair in result.pairs:
        d = influence(own[pair.a]) - influence(own[pair.b])
        sums = np.array([d[groups == g].sum() for g in np.unique(groups)])
        error = math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums))
        expected = 2 * stats.t.sf(abs(pair.difference) / error, len(sums) - 1)
        assert pair.p == pytest.approx(expected, rel=1e-9)
        assert pair.test == "delong-obuchowski"


def test_accuracy_is_tested_by_mcnemar_and_p_adjusted_for_all_pairs(bank: Path) -> None:
    own = tables(bank, "knn")
    result = compare(bank, "knn", resamples=50)
    truth = np.array(own[FIRST].column("truth").to_pylist())
    right = {m: np.array(t.column("predicted").to_pylist()) == truth for m, t in own.items()}
    groups = np.unique(groups_of(bank, own[FIRST]), return_inverse=True)[1]
    for pair in result.pairs:
        expected = clustered_mcnemar(right[pair.a], right[pair.b], groups).p
        assert pair.p == pytest.approx(expected, rel=1e-9)
    raw = sorted(pair.p for pair in result.pairs)
    adjusted = np.minimum(np.maximum.accumulate(np.array(raw) * [3, 2, 1]), 1)
    assert sorted(pair.p_holm for pair in result.pairs) == pytest.approx(adjusted)
    assert result.setting.tests == 3


def test_findings_are_compared_by_their_mean_and_one_by_one(bank: Path) -> None:
    result = compare(bank, "probe", label="edema, oedema", resamples=40, by_finding=True)
    assert result.setting.metric == "auroc" and [part.name for part in result.parts] == [
        "",
        "edema",
        "oedema",
    ]
    for standing in result.parts[0].standings:
        stored = record_of(bank, "probe", standing.model, "edema, oedema")[1]
        assert standing.value == pytest.approx(stored["test"]["auroc"], abs=1e-12)
        for part in result.parts[1:]:
            (own,) = (f for f in stored["findings"] if f["label"] == part.name)
            value = next(s.value for s in part.standings if s.model == standing.model)
            assert value == pytest.approx(own["test"]["auroc"], abs=1e-12)
    assert result.setting.tests == 9
    ranked = sorted(result.parts[0].standings, key=lambda s: -s.value)
    assert [s.model for s in ranked] == [s.model for s in result.parts[0].standings]
    for metric in ("accuracy", "log_loss", "mean_per_class_accuracy", "average_precision"):
        other = compare(bank, "probe", label="edema, oedema", metric=metric, resamples=4)
        value = other.parts[0].standings[0]
        stored = record_of(bank, "probe", value.model, "edema, oedema")[1]["test"][metric]
        assert value.value == pytest.approx(stored, abs=1e-12), metric


@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_has_the_same_interval_with_its_findings_and_without(bank: Path, metric: str) -> None:
    for label in ("edema, oedema", "label"):
        if label == "label" and metric not in ("auroc", "average_precision"):
            continue
        words = {"label": label, "metric": metric, "resamples": 20, "bca": metric == "accuracy"}
        alone = compare(bank, "probe", **words)  # type: ignore[arg-type]
        beside = compare(bank, "probe", by_finding=True, **words)  # type: ignore[arg-type]
        assert len(beside.parts) == (3 if "," in label else 4)
        for first, second in zip(alone.pairs, beside.pairs, strict=True):
            assert (first.a, first.b, first.difference) == (second.a, second.b, second.difference)
            assert (first.low, first.high, first.p) == pytest.approx(
                (second.low, second.high, second.p), rel=1e-6, nan_ok=True
            )


def test_few_shot_is_compared_over_episodes_and_over_patients(bank: Path) -> None:
    result = compare(bank, "fewshot", resamples=300)
    own = tables(bank, "fewshot")
    for pair in result.pairs:
        stored = record_of(bank, "fewshot", pair.a)[1]
        paired = next(other for other in stored["paired"] if other["model"] == pair.b)
        assert pair.difference == pytest.approx(paired["difference"], abs=1e-12)
        episodes = [
            read_predictions(bank, record_of(bank, "fewshot", m)[0], "episodes").column("accuracy").to_numpy()
            for m in (pair.a, pair.b)
        ]
        expected = stats.ttest_rel(*episodes)
        assert pair.episodes is not None and pair.episodes.p == pytest.approx(expected.pvalue, rel=1e-9)
        interval = expected.confidence_interval()
        assert (pair.episodes.low, pair.episodes.high) == pytest.approx((interval.low, interval.high))
        patients = paired["patients"]
        assert pair.high - pair.low == pytest.approx(patients["high"] - patients["low"], rel=0.25)
    queries = own[FIRST].column("queries").to_numpy()
    assert result.parts[0].standings[0].value == pytest.approx(
        own[result.best[0]].column("correct").to_numpy().sum() / queries.sum()
    )


def test_several_banks_and_named_records_give_the_same(bank: Path, tmp_path: Path) -> None:
    copy = tmp_path / "records" / "copy.bank"  # a folder of the name that records lie in
    shutil.copytree(bank, copy)
    expected = compare(bank, "knn", models=[FIRST, SECOND], resamples=50)
    records = [f"{bank}/records/{record_of(bank, 'knn', FIRST)[0]}"]
    records.append(f"{copy}/records/{record_of(copy, 'knn', SECOND)[0][:5]}")
    named = compare(records, resamples=50)
    assert named.to_dict()["pairs"] == expected.to_dict()["pairs"]
    twice = compare([bank, copy], "knn", models=[FIRST], resamples=50)
    assert {s.model for s in twice.parts[0].standings} == {f"{FIRST} (bank)", f"{FIRST} (copy.bank)"}
    (pair,) = twice.pairs
    assert math.isnan(pair.p) and "same images" in pair.reason and not pair.different
    assert twice.best == ("torchvision/resnet18 (bank)", "torchvision/resnet18 (copy.bank)")
    assert "no p value" in twice.verdict[0]


def test_different_images_are_refused_or_reduced_to_the_common_ones(tmp_path: Path) -> None:
    made = make_probe_bank(tmp_path)
    probes_from_bank(made.path, [FIRST], None, FAST)
    train_on_val = BankProbe(splits=SplitOptions(train="train", val="val", test="test", seed=0))
    probes_from_bank(made.path, [SECOND], train_on_val, FAST)
    full = compare(made.path, resamples=10)
    other = make_key(made.image_digest, model="random/short")
    features = np.random.default_rng(1).normal(size=(made.rows, 12)).astype(np.float32)
    fill_with(made, other, features, (5, 77, 81, 83, 200))
    probes_from_bank(made.path, ["random/short"], None, FAST)
    with pytest.raises(Refused, match="give --common"):
        compare(made.path, models=[FIRST, "random/short"], resamples=10)
    common = compare(made.path, models=[FIRST, "random/short"], resamples=10, common=True)
    assert common.setting.images < full.setting.images
    assert any("images that all models have" in note for note in common.notes)


def test_what_cannot_be_compared_is_refused(bank: Path, tmp_path: Path) -> None:
    for words, says in (
        ({"evaluation": "saliency"}, "Those with paired numbers"),
        ({"evaluation": "knn", "metric": "log_loss"}, "log loss of knn"),
        ({"evaluation": "knn", "metric": "f1"}, "metric 'f1'"),
        ({"evaluation": "knn", "models": [FIRST]}, "1 model with a record of knn"),
        ({"evaluation": "knn", "models": ["nobody"]}, "No record of model 'nobody'"),
        ({"evaluation": "probe", "label": "sex"}, "label 'sex'"),
        ({"evaluation": "knn", "by_finding": True}, "classes are compared by AUROC"),
        ({"evaluation": "fewshot", "by_finding": True}, "few-shot has one number"),
        ({"evaluation": "knn", "resamples": 1}, "resamples = 1"),
        ({"evaluation": "knn", "alpha": 2.0}, "alpha 2.0"),
    ):
        with pytest.raises(Refused, match="(?i)" + says.replace("(", r"\(")):
            compare(bank, **words)  # type: ignore[arg-type]
    newest = compare(bank, resamples=4)
    assert newest.setting.evaluation == "fewshot"
    assert any("--evaluation chooses probe or knn" in note for note in newest.notes)
    mixed = [f"{bank}/records/{record_of(bank, kind, FIRST)[0]}" for kind in ("knn", "fewshot")]
    with pytest.raises(Refused, match="Records of one evaluation"):
        compare(mixed)
    empty = make_probe_bank(tmp_path)
    with pytest.raises(Refused, match="No evaluation has records of two models"):
        compare(empty.path)


def test_other_labels_and_other_settings_are_left_out_and_said(bank: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.bank"
    shutil.copytree(bank, own)
    assert any("--label chooses 'edema, oedema'" in note for note in compare(own, "probe", resamples=4).notes)
    knn_from_bank(own, FIRST, KnnOptions(k=(3,), device="cpu", threads=1))
    knn_from_bank(own, SECOND, KnnOptions(k=(3,), device="cpu", threads=1))
    result = compare(own, "knn", resamples=4)
    assert {s.model for s in result.parts[0].standings} == {FIRST, SECOND}
    assert any(THIRD in note and "has k [5] where the newest has [3]" in note for note in result.notes)


def test_labels_that_changed_between_the_records_are_refused(tmp_path: Path) -> None:
    made = make_probe_bank(tmp_path)
    ids = []
    for labels in (("edema",), ("oedema",)):
        probes_from_bank(made.path, [FIRST], BankProbe(labels, True, Policies("zeros", "zeros")), FAST)
        ids.append(read_index(made.path)[-1].id)
    with pytest.raises(Refused, match="No finding has a result of all models"):
        compare([f"{made.path}/records/{name}" for name in ids])
    for policy in ("zeros", "ones"):
        wanted = BankProbe(("edema", "oedema"), True, Policies(policy, "zeros"))  # type: ignore[arg-type]
        probes_from_bank(made.path, [FIRST], wanted, FAST)
        ids.append(read_index(made.path)[-1].id)
    with pytest.raises(Refused, match=r"another truth\.edema"):
        compare([f"{made.path}/records/{name}" for name in ids[2:]])
