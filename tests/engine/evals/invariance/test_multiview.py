"""Two views of a study, from stored features alone, against a plain computation."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import LedoitWolf

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.invariance.bank import multiview_from_bank
from engine.evals.invariance.multiview import evaluate
from engine.evals.invariance.options import MultiViewOptions
from engine.evals.invariance.pairs import Pairs, find_pairs
from engine.kernels.whitening import Regularisation
from stores.bank.keys import ChunkResult, Failure
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.bank.writer import FeatureWriter, open_or_create
from stores.manifest.manifest import Manifest
from tests.oracles.invariance_loop import loop
from tests.stores.banks import make_key

MODEL = "torchvision/resnet18"
DIM = 12


def frame(patients: int = 40) -> pd.DataFrame:
    """A frontal and a lateral each; patient 3 has two laterals, patient 5 none, patient 6 no frontal."""
    rows = []
    for patient in range(patients):
        views = {3: ("frontal", "lateral", "lateral"), 5: ("frontal",), 6: ("lateral",)}
        rows += [(patient, view, 1) for view in views.get(patient, ("frontal", "lateral"))]
        rows.append((patient, "frontal", 2))  # another study, without a lateral
    return pd.DataFrame(
        {
            "uri": [f"{i}.png" for i in range(len(rows))],
            "label": ["ab"[(p + (v == "lateral") * (p % 4 == 0)) % 2] for p, v, _ in rows],
            "group": [f"patient {p}" for p, _, _ in rows],
            "study": [f"patient {p} study {s}" for p, _, s in rows],
            "view": [v for _, v, _ in rows],
        }
    )


def build(root: Path, table: pd.DataFrame, *, failed: tuple[int, ...] = (), shared: float = 1.0) -> Bank:
    """Features: what a patient has in common, times `shared`, and noise."""
    manifest = Manifest.from_frame(table, root)
    bank = open_or_create(root / "bank", manifest)
    rng, n = np.random.default_rng(0), len(table)
    people = {name: rng.normal(size=DIM) for name in table["group"].unique()}
    features = rng.normal(size=(n, DIM)) + shared * np.stack([people[g] for g in table["group"]])
    ok = ~np.isin(np.arange(n), failed)
    with FeatureWriter(bank, make_key(bank.image_digest, model=MODEL, dtype="float32"), DIM) as writer:
        for index in writer.todo:
            start, stop = writer.bounds(index)
            failures = tuple(Failure(r, "empty", "0 bytes") for r in failed if start <= r < stop)
            rows = features[start:stop].astype(np.float32)
            writer.commit(ChunkResult(index, rows, ok[start:stop], failures))
        writer.seal()
    return bank


def test_equals_the_plain_loop(tmp_path: Path) -> None:
    bank = build(tmp_path, frame())
    found = multiview_from_bank(bank.path, MODEL, MultiViewOptions())
    assert found["transform"] == "multi-view" and found["views"] == ["lateral", "frontal"]
    assert (found["pairs_found"], found["n"], found["groups"]) == (39, 39, 38)
    assert found["left_out"] == {"without_partner": 1, "failed": 0, "other_label": 0}
    used = [r for r in read_all(bank.path) if r.kind == "invariance"][-1].used["rows"]
    first, second = np.array(used["first"]), np.array(used["second"])
    table = bank.manifest().frame
    assert (table["view"].to_numpy()[first] == "lateral").all()
    assert (table["study"].to_numpy()[first] == table["study"].to_numpy()[second]).all()
    x, groups = bank.features(MODEL).array.astype(np.float64), bank.column("group")[0]
    sizes = [each["images"] for each in found["covariance"]]
    halves = _halves(groups, first, sizes)
    cosines, lengths, unrelated = np.empty(39), np.empty(39), []
    for half in halves:
        oracle = LedoitWolf().fit(x[~np.isin(groups, groups[first[half]])])
        cosine, distance = loop(
            oracle.location_, oracle.covariance_, x[first[half]], x[second[half]][:, None]
        )
        cosines[half], lengths[half] = cosine[:, 0], distance[:, 0]
        for i in half:
            others = [j for j in half if groups[first[j]] != groups[first[i]]]
            views = x[second[others]][None]
            unrelated += loop(oracle.location_, oracle.covariance_, x[first[[i]]], views)[0][0].tolist()
    assert found["cosine"] == pytest.approx(cosines.mean(), abs=1e-8)
    assert found["mahalanobis"] == pytest.approx(lengths.mean(), rel=1e-8)
    assert found["baseline"] == pytest.approx(np.mean(unrelated), abs=1e-6)
    assert found["baseline_pairs"] == len(unrelated)
    assert found["cosine"] > 0.3 > abs(found["baseline"]) + found["baseline_ci95"]


def _halves(groups: np.ndarray, first: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The documented halving: patients permuted by (seed, 1), the first half of them second."""
    names = np.unique(groups[first])
    chosen = names[np.random.default_rng((0, 1)).permutation(len(names))[: len(names) // 2]]
    second = np.isin(groups[first], chosen)
    found = [np.flatnonzero(~second), np.flatnonzero(second)]
    for half, size in zip(found, sizes, strict=True):
        assert (~np.isin(groups, groups[first[half]])).sum() == size  # no scored patient in the covariance
    return found


def test_unrelated_views_have_the_cosine_of_different_patients(tmp_path: Path) -> None:
    bank = build(tmp_path, frame(300), shared=0.0)
    found = multiview_from_bank(bank.path, MODEL, MultiViewOptions())
    assert abs(found["cosine"] - found["baseline"]) < 3 * found["ci95"]
    assert abs(found["cosine"]) < 4 / math.sqrt(DIM * found["n"])


def test_failed_rows_labels_and_a_drawn_sample(tmp_path: Path) -> None:
    table = frame()
    row = int(np.flatnonzero((table["group"] == "patient 9") & (table["view"] == "lateral"))[0])
    bank = build(tmp_path, table, failed=(row,))
    found = multiview_from_bank(bank.path, MODEL, MultiViewOptions(images=10, seed=4, same_label=True))
    assert found["n"] == 10 and found["left_out"] == {"without_partner": 1, "failed": 1, "other_label": 10}
    again = multiview_from_bank(bank.path, MODEL, MultiViewOptions(images=10, seed=4, same_label=True))
    assert again["cosine"] == found["cosine"]
    assert [each["cached"] for each in again["covariance"]] == ["factor", "factor"]
    with pytest.raises(Refused, match="39 pairs of 38"):
        multiview_from_bank(bank.path, MODEL, MultiViewOptions(images=39))


def test_eyes_are_paired_by_patient_where_there_is_no_study(tmp_path: Path) -> None:
    table = frame(20)
    table["view"] = table["view"].map({"frontal": "left", "lateral": "right"})
    bank = build(tmp_path, table.drop(columns="study"))
    found = multiview_from_bank(bank.path, MODEL, MultiViewOptions(pair=("left", "right")))
    assert found["paired_by"] == "group" and found["views"] == ["left", "right"]
    assert found["pairs_found"] == 37  # 40 lefts, less one of patient 6 and both of 5, who has no right


def pairs(table: pd.DataFrame, **options: object) -> Pairs:
    columns = {f"{name}s": table.get(name) for name in ("group", "view")}
    columns["studies"] = table.get("study")
    features = Features.from_arrays(np.zeros((len(table), 2)), table["label"], **columns)
    return find_pairs(features, MultiViewOptions(**options))  # type: ignore[arg-type]


def test_what_cannot_be_paired_is_refused() -> None:
    table = frame(8)
    with pytest.raises(Refused, match="1 views"):
        pairs(table[table["view"] == "frontal"])
    with pytest.raises(Refused, match="0 views"):
        pairs(table.drop(columns="view"))
    with pytest.raises(Refused, match="'oblique'"):
        pairs(table, pair=("oblique", "frontal"))
    with pytest.raises(Refused, match="neither"):
        pairs(table.drop(columns=["group", "study"]))
    with pytest.raises(Refused, match="No pair"):
        apart = table.assign(study=[str(i) for i in range(len(table))])
        pairs(apart)
    three = table.assign(view=["a", "b", "c"] * (len(table) // 3) + ["a"] * (len(table) % 3))
    with pytest.raises(Refused, match="--pair"):
        pairs(three)


def test_tensors_and_numbers_for_columns_give_the_same_as_arrays() -> None:
    import torch

    rows = np.arange(60)
    array = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    columns = {"groups": rows // 4, "studies": rows // 2, "views": rows % 2}
    results = [
        evaluate(Features.from_arrays(made, None, **columns), MultiViewOptions(), Compute())
        for made in (array, torch.from_numpy(array))
    ]
    a, b = (result.to_dict() for result in results)
    assert a == b and (a["views"], a["n"], a["groups"]) == (["0", "1"], 30, 15)
    assert results[0].first.tolist() == rows[::2].tolist()


def test_one_patient_and_no_ridge(tmp_path: Path) -> None:
    table = frame(4)
    one = build(tmp_path / "one", table.assign(group="same", study="same"))
    with pytest.raises(Refused, match="one patient"):
        multiview_from_bank(one.path, MODEL, MultiViewOptions())
    few = build(tmp_path / "few", table)
    with pytest.raises(Refused, match="Rank-deficient"):
        multiview_from_bank(few.path, MODEL, MultiViewOptions(regularisation=Regularisation("none")))


@pytest.mark.slow
def test_opens_no_image_and_imports_no_torch(tmp_path: Path) -> None:
    """There are no image files at all; and torch would cost seconds."""
    import subprocess
    import sys

    bank = build(tmp_path, frame())
    code = (
        "import sys; from engine.evals.invariance.bank import multiview_from_bank; "
        "from engine.evals.invariance.options import MultiViewOptions; "
        f"multiview_from_bank({str(bank.path)!r}, {MODEL!r}, MultiViewOptions()); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])
