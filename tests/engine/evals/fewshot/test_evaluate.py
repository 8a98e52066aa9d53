"""Few-shot from arrays: what is masked, refused, published, paired; and the same as the plain loop."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from engine.errors import Refused
from engine.evals.common.labels import label_codes
from engine.evals.fewshot.evaluate import PUBLISHED_POOL, Protocol, compare, fewshot
from engine.kernels import prototypes
from engine.kernels.episodes import Sampler
from tests.oracles.fewshot_loop import loop
from tests.said import codes, said

SMALL = Protocol(n_way=3, n_shot=5, n_query=5, episodes=40)


def _clusters(
    n: int = 400, d: int = 16, classes: int = 6, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    centres = generator.normal(size=(classes, d))
    return (centres[labels] + spread * generator.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("distance", ["sqeuclidean", "cosine", "centred"])
def test_each_episode_equals_the_loop(distance: str) -> None:
    features, labels = _clusters(spread=2.0)
    protocol = Protocol(n_way=4, n_shot=5, n_query=7, episodes=600, distance=distance)
    found = fewshot(features, labels, protocol, data_set="a")
    pools = [np.flatnonzero(labels == c) for c in range(6)]
    drawn = Sampler(pools, protocol.identity("a")).draw(600)
    predicted = loop(features, drawn.support, drawn.query, distance)
    right = predicted == np.arange(4)[:, None]
    assert np.abs(found.per_episode - right.mean(axis=(1, 2))).sum() * 28 <= 1 + 1e-6
    assert found.accuracy == pytest.approx(right.mean(), abs=1e-4)
    truth = np.broadcast_to(drawn.classes[:, :, None], predicted.shape)
    chosen = np.take_along_axis(drawn.classes[:, :, None], predicted, axis=1)
    confusion = np.zeros((6, 6), int)
    np.add.at(confusion, (truth, chosen), 1)
    assert np.abs(found.confusion - confusion).sum() <= 2
    assert found.classes == (0, 1, 2, 3, 4, 5)


def _independent(features: np.ndarray, labels: np.ndarray, ways: int, shots: int) -> tuple[float, float]:
    """Mean accuracy and half of its 95 % interval: scikit-learn, on 400 episodes drawn by numpy."""
    from sklearn.metrics import pairwise_distances_argmin

    generator, scores = np.random.default_rng(0), []
    for _ in range(400):
        classes = generator.choice(labels.max() + 1, ways, replace=False)
        pools = [np.flatnonzero(labels == c) for c in classes]
        drawn = np.stack([generator.choice(pool, shots + 15, replace=False) for pool in pools])
        centroids = features[drawn[:, :shots]].mean(axis=1)
        nearest = pairwise_distances_argmin(features[drawn[:, shots:].ravel()], centroids)
        scores.append((nearest == np.repeat(np.arange(ways), 15)).mean())
    return float(np.mean(scores)), float(1.96 * np.std(scores) / np.sqrt(400))


def test_the_mean_is_that_of_an_independent_implementation() -> None:
    """Real features: scikit-learn's digits."""
    from sklearn.datasets import load_digits

    features, labels = load_digits(return_X_y=True)
    found = fewshot(features, labels, Protocol(n_shot=5, episodes=2000))
    mean, width = _independent(features, labels, ways=5, shots=5)
    assert abs(found.accuracy - mean) < 1.5 * np.hypot(width, found.ci95)
    assert 0.6 < found.accuracy < 0.98


@pytest.mark.slow
def test_the_mean_on_real_xrays_is_that_of_an_independent_implementation(xrays: Path, tmp_path: Path) -> None:
    """Embedded with ImageNet weights; patients and images as a user has them."""
    from engine.embed.run import embed
    from engine.models import resolve
    from stores.bank.reader import Bank
    from stores.manifest.manifest import Manifest

    slug = "efficientnet-lite0"
    spec = resolve(slug, recipe=resolve(slug).recipe.at(96))
    embed(Manifest.from_folder(xrays), [spec], tmp_path / "bank")
    bank = Bank.open(tmp_path / "bank")
    features, labels = bank.features(slug).array, bank.column("label")[0]
    found = fewshot(features, labels, Protocol(n_way=2, n_shot=20, episodes=2000))
    mean, width = _independent(features.astype(np.float64), labels, ways=2, shots=20)
    assert abs(found.accuracy - mean) < 1.5 * np.hypot(width, found.ci95)
    assert 0.6 < found.accuracy < 0.98


def test_support_and_query_never_share_an_image() -> None:
    # every image is its own direction: a query equal to a support image would be found, others are at chance
    labels = np.repeat(np.arange(5), 8)
    features = np.eye(40, dtype=np.float32)
    found = fewshot(features, labels, Protocol(n_way=5, n_shot=4, n_query=4, episodes=200))
    assert found.accuracy == pytest.approx(0.2, abs=1e-9)  # ties go to the first prototype: one class of five


def test_random_features_give_chance_within_the_interval() -> None:
    features = np.random.default_rng(1).normal(size=(500, 32)).astype(np.float32)
    found = fewshot(features, np.arange(500) % 5, Protocol(episodes=600))
    assert abs(found.accuracy - 0.2) < 4 * found.ci95 / 1.96


def test_the_interval_is_the_classical_one() -> None:
    features, labels = _clusters(spread=3.0)
    found = fewshot(features, labels, Protocol(n_way=3, n_shot=2, n_query=3, episodes=100))
    assert found.ci95 == pytest.approx(1.96 * np.std(found.per_episode, ddof=1) / 10, rel=1e-12)


def test_failed_and_unlabelled_rows_are_masked_and_counted() -> None:
    features, labels = _clusters()
    features[:7, 3] = np.nan
    features[7, 0] = np.inf
    labels[10:13] = -1
    found = fewshot(features, labels, SMALL)
    assert (found.used, found.masked) == (389, 11)
    assert np.isfinite(found.per_episode).all()


def test_models_see_the_same_episodes() -> None:
    features, labels = _clusters(spread=2.0)
    protocol = Protocol(n_way=3, n_shot=2, n_query=5, episodes=50)
    one = fewshot(features, labels, protocol, data_set="a")
    rotated = fewshot(features[:, ::-1] * 2, labels, protocol, data_set="a")
    other = fewshot(features, labels, protocol, data_set="b")
    # distances scale alike, so equality means equal episodes
    np.testing.assert_array_equal(one.per_episode, rotated.per_episode)
    assert one.episodes_digest == rotated.episodes_digest != other.episodes_digest
    assert (one.per_episode != other.per_episode).any()


def test_differences_are_paired() -> None:
    features, labels = _clusters(spread=2.0)
    noisy = features + np.random.default_rng(3).normal(size=features.shape).astype(np.float32)
    found = compare({"a": features, "b": noisy}, labels, SMALL)
    difference = found["a"].per_episode - found["b"].per_episode
    got = found["a"].minus(found["b"])
    assert got.mean == pytest.approx(difference.mean()) and got.mean > 0
    assert got.ci95 == pytest.approx(1.96 * difference.std(ddof=1) / np.sqrt(40))
    assert found["b"].minus(found["a"]).mean == pytest.approx(-got.mean)
    alone = fewshot(features, labels, SMALL)
    np.testing.assert_array_equal(alone.per_episode, found["a"].per_episode)


def test_a_row_that_one_model_lacks_is_masked_for_all() -> None:
    features, labels = _clusters()
    holes = features.copy()
    holes[20:30] = np.nan
    found = compare({"a": features, "b": holes}, labels, SMALL)
    assert found["a"].masked == found["b"].masked == 10
    assert found["a"].minus(found["b"]).mean == 0
    with pytest.raises(Refused, match="different episodes"):
        found["a"].minus(fewshot(features, labels, SMALL))


@pytest.mark.parametrize("kind", ["text", "float", "object"])
def test_labels_of_any_kind(kind: str) -> None:
    features, labels = _clusters()
    expected = fewshot(features, np.where(np.arange(400) < 20, -1, labels), SMALL)
    given = {
        "text": ["" if i < 20 else f"class {c}" for i, c in enumerate(labels)],
        "float": np.where(np.arange(400) < 20, np.nan, labels),
        "object": [None if i < 10 else float("nan") if i < 20 else f"c{c}" for i, c in enumerate(labels)],
    }[kind]
    found = fewshot(features, given, SMALL)
    assert found.masked == 20
    np.testing.assert_array_equal(found.per_episode, expected.per_episode)


def test_pandas_labels() -> None:
    import pandas as pd

    found = label_codes(pd.Series(["b", pd.NA, "a", None], dtype="object"))
    assert (found.codes.tolist(), found.names) == ([1, -1, 0, -1], ("a", "b"))


def test_disjoint_patients() -> None:
    """Features that tell the patient apart: with shared patients they look better than they are."""
    generator = np.random.default_rng(0)
    groups = np.arange(600) // 6
    labels = groups % 5
    features = generator.normal(size=(100, 32))[groups] + 0.1 * generator.normal(size=(600, 32))
    names = [f"p{g}" for g in groups]
    shared = fewshot(features, labels, Protocol(episodes=200))
    apart = fewshot(features, labels, Protocol(episodes=200), groups=names)
    assert shared.accuracy > 0.35
    assert abs(apart.accuracy - 0.2) < 0.1
    assert (shared.protocol.group_disjoint, apart.protocol.group_disjoint) == (False, True)
    for group_disjoint, same in ((True, apart), (False, shared)):
        asked = fewshot(features, labels, Protocol(episodes=200, group_disjoint=group_disjoint), groups=names)
        assert asked.episodes_digest == same.episodes_digest
        assert asked.to_dict()["group_disjoint"] is group_disjoint


def test_unknown_patients_are_said_and_change_no_episode() -> None:
    features, labels = _clusters()
    plain = fewshot(features, labels, SMALL)
    outside = np.where(np.arange(400) < 9, 3, -1)  # the only rows with a group have no label
    unlabelled = np.where(np.arange(400) < 9, -1, labels)
    for groups in (np.full(400, -1), [None] * 400, [""] * 400):
        assert fewshot(features, labels, SMALL, groups=groups).episodes_digest == plain.episodes_digest
    assert [text.partition(":")[0] for text in said(plain)] == ["No image names its patient (group)"]
    assert said(fewshot(features, unlabelled, SMALL, groups=outside)) == said(plain)
    with pytest.raises(Refused, match="No image that takes part has a group"):
        fewshot(features, labels, Protocol(**SMALL.__dict__ | {"group_disjoint": True}), groups=outside - 4)


def test_as_published_keeps_no_patients_apart_and_says_so() -> None:
    features, labels = _clusters()
    study = Protocol(**SMALL.__dict__ | {"mode": "as-published"})
    plain = fewshot(features, labels, study)
    found = fewshot(features, labels, study, groups=np.arange(400) // 4)
    assert (found.episodes_digest, found.ci95) == (plain.episodes_digest, plain.ci95)
    assert found.protocol.group_disjoint is False
    text = "As in the study, images of one patient may be in both support and query of an episode"
    assert text in said(found)


def test_a_missing_group_is_a_patient_of_its_own() -> None:
    features, labels = _clusters()
    groups = np.where(np.arange(400) % 3 == 0, -1, np.arange(400) // 4)
    alone = np.where(groups < 0, 1000 + np.arange(400), groups)
    some, every = (fewshot(features, labels, SMALL, groups=each) for each in (groups, alone))
    assert (some.episodes_digest, some.patients) == (every.episodes_digest, every.patients)
    assert some.protocol.group_disjoint and not said(some)


def test_patients_that_cannot_be_kept_apart_are_refused_and_the_remedy_works() -> None:
    features, labels = _clusters()
    with pytest.raises(Refused, match="left a class fewer than 5") as error:
        fewshot(features, labels, SMALL, groups=np.arange(400) % 3)
    assert "--no-group-disjoint" in error.value.remedy
    shared = Protocol(**SMALL.__dict__ | {"group_disjoint": False})
    found = fewshot(features, labels, shared, groups=np.arange(400) % 3)
    assert found.episodes_digest == fewshot(features, labels, SMALL).episodes_digest
    assert found.patients.groups == 3


@pytest.mark.parametrize(("classes", "tiny", "ways"), [(2, 0, 2), (4, 0, 4), (6, 0, 5), (4, 1, 3), (8, 1, 5)])
def test_n_way_is_five_or_the_classes_there_are(classes: int, tiny: int, ways: int) -> None:
    features, labels = _clusters(n=60 * classes, classes=classes)
    labels[np.flatnonzero(labels < tiny)[3:]] = -1
    found = fewshot(features, labels, Protocol(n_shot=4, n_query=3, episodes=20))
    asked = fewshot(features, labels, Protocol(n_way=ways, n_shot=4, n_query=3, episodes=20))
    assert found.to_dict()["n_way"] == found.protocol.ways == ways
    assert found.episodes_digest == asked.episodes_digest
    noted = [note for note in found.notes if note.startswith(f"n-way is {ways} and not 5")]
    assert len(noted) == (ways < 5) and not asked.notes
    assert [f"as {tiny} of {classes} are too small" in note for note in noted] == [tiny > 0] * len(noted)
    assert codes(asked) == ["patients_unknown", *["classes_left_out"] * (tiny > 0)]
    with pytest.raises(Refused, match=rf"{classes - tiny} of {classes} classes"):
        fewshot(features, labels, Protocol(n_way=classes + 1, n_shot=4, n_query=3, episodes=20))


def test_a_cap_limits_the_images_that_are_drawn() -> None:
    features, labels = _clusters()
    found = fewshot(features, labels, Protocol(n_way=3, n_shot=5, n_query=5, episodes=50, cap=12))
    assert found.used == 6 * 12
    bad = features.copy()
    bad[:] = np.nan
    assert found.episodes_digest != fewshot(features, labels, SMALL).episodes_digest


def test_as_published_has_the_pool_and_the_interval_of_the_study() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(12_000, 4)).astype(np.float32)
    labels = np.arange(12_000) % 3
    fields = {"n_way": 3, "n_shot": 5, "n_query": 5, "episodes": 100}
    found = fewshot(features, labels, Protocol(**fields, mode="as-published"))
    assert (found.used, found.masked, PUBLISHED_POOL) == (10_001, 0, 10_001)
    assert found.ci95 == pytest.approx(1.96 * np.std(found.per_episode) / 10, rel=1e-12)
    assert fewshot(features[:9000], labels[:9000], Protocol(**fields, mode="as-published")).used == 9000
    assert "not_reproduced" in found.to_dict()


def test_the_bootstrap_is_over_patients() -> None:
    features, labels = _clusters(n=600, spread=3.0)
    groups = np.arange(600) // 30
    by_image = fewshot(features, labels, SMALL, bootstrap=200).bootstrap
    grouped = fewshot(features, labels, SMALL, groups=groups, bootstrap=1000)
    by_group = grouped.bootstrap
    assert by_image is not None and by_group is not None
    assert by_group.groups == 20 and by_image.groups > 300
    assert by_image.low < fewshot(features, labels, SMALL).accuracy < by_image.high
    assert by_group.low < grouped.accuracy < by_group.high
    # The interval that is always there: of the same patients, a little wider, by Student's t of 19.
    wanted = (by_group.high - by_group.low) * 2.093 / 1.96
    assert grouped.patients.high - grouped.patients.low == pytest.approx(wanted, rel=0.15)


def test_a_difference_has_an_interval_over_patients_beside_the_one_over_episodes() -> None:
    """By hand: which queries each model gets right, patient by patient; images of a patient fail together."""
    generator = np.random.default_rng(5)
    groups = np.arange(600) // 12
    labels = groups % 3
    centres, people = generator.normal(size=(3, 16)), 2 * generator.normal(size=(2, 50, 16))
    a, b = (
        (centres[labels] + people[m, groups] + 0.1 * generator.normal(size=(600, 16))).astype(np.float32)
        for m in range(2)
    )
    protocol = Protocol(n_way=3, n_shot=5, n_query=5, episodes=300)
    found = compare({"a": a, "b": b}, labels, protocol, groups=groups, data_set="x")
    pools = [np.flatnonzero(labels == c) for c in range(3)]
    drawn = Sampler(pools, protocol.identity("x"), groups).draw(300)
    right = [loop(x, drawn.support, drawn.query, "sqeuclidean") == np.arange(3)[:, None] for x in (a, b)]
    patient = groups[drawn.query]
    totals = [(right[0].astype(int) - right[1])[patient == g].sum() for g in range(50)]
    counts = [(patient == g).sum() for g in range(50)]
    got = found["a"].minus(found["b"])
    assert got.mean == pytest.approx(sum(totals) / sum(counts))
    picks = np.random.default_rng(0).integers(0, 50, (4000, 50))
    means = np.array(totals)[picks].sum(axis=1) / np.array(counts)[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    assert got.patients.high - got.patients.low == pytest.approx((high - low) * 2.0096 / 1.96, rel=0.08)
    assert got.patients.groups == 50 and got.patients.low < got.mean < got.patients.high
    assert got.patients.high - got.patients.low > 2.5 * 2 * got.ci95, "episodes alone look too sure"
    written = got.to_dict()
    assert (written["low"], written["high"]) == (got.mean - got.ci95, got.mean + got.ci95)
    without = compare({"a": a, "b": b}, labels, protocol)
    reason = without["a"].minus(without["b"]).to_dict()["patients"]["reason"]
    assert reason == "no image names its patient (group)"


@pytest.mark.parametrize("backend", ["array", "faiss"])
def test_backends_and_threads_agree(backend: str) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    features, labels = _clusters(spread=2.0)
    expected = fewshot(features, labels, SMALL, threads=1)
    found = fewshot(features, labels, SMALL, backend=backend, threads=5)
    np.testing.assert_array_equal(found.per_episode, expected.per_episode)


def test_torch_features_stay_where_they_are() -> None:
    torch = pytest.importorskip("torch")
    features, labels = _clusters(spread=2.0)
    features[3] = np.nan
    expected = fewshot(features, labels, SMALL)
    found = fewshot(torch.from_numpy(features), labels, SMALL)
    assert found.masked == 1
    np.testing.assert_array_equal(found.per_episode, expected.per_episode)


@pytest.mark.gpu
def test_cuda_equals_the_cpu() -> None:
    import torch

    features, labels = _clusters(n=2000, spread=2.0)
    expected = fewshot(features, labels)
    for found in (
        fewshot(features, labels, device="cuda"),
        fewshot(torch.tensor(features, device="cuda"), labels),
    ):
        assert np.abs(found.per_episode - expected.per_episode).sum() * 75 <= 1 + 1e-6


def test_a_run_on_a_device_leaves_the_callers_threads_and_flags_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from engine.runtime import cuda_available
    from tests.pretended.session import pretend

    features, labels = _clusters(n=300)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    seen: list[bool] = []

    def flags() -> tuple[object, ...]:
        return (
            torch.get_num_threads(), torch.cuda.current_device(), matmul.allow_tf32, cudnn.allow_tf32,
            cudnn.benchmark, cudnn.deterministic,
        )  # fmt: skip

    from engine.evals.fewshot import device_run

    real = prototypes.classify_on_device
    monkeypatch.setattr(
        device_run, "classify_on_device", lambda *a: (seen.append(matmul.allow_tf32), real(*a))[1]
    )
    with contextlib.nullcontext() if cuda_available() else pretend():
        found = torch.get_num_threads(), matmul.allow_tf32, cudnn.benchmark
        torch.set_num_threads(3)
        matmul.allow_tf32 = cudnn.benchmark = True
        before = flags()
        fewshot(features, labels, SMALL, device="cuda")
        after = flags()
        torch.set_num_threads(found[0])
        matmul.allow_tf32, cudnn.benchmark = found[1:]
    assert after == before and before[0] == 3 and before[2] is True
    assert seen and not any(seen), "float32 products are float32"


def test_a_tensor_of_any_class_is_a_tensor() -> None:
    import torch
    from torchvision import tv_tensors

    features, labels = _clusters(n=300)
    found = fewshot(tv_tensors.Mask(torch.from_numpy(features)), labels, SMALL)
    np.testing.assert_array_equal(found.per_episode, fewshot(features, labels, SMALL).per_episode)


def test_too_small_classes_are_refused_with_numbers() -> None:
    features, labels = _clusters(n=60)
    with pytest.raises(Refused, match=r"0 of 6 classes have 35 usable images \(largest: \d \d+,") as error:
        fewshot(features, labels, Protocol())
    assert error.value.exit_code == 2 and "--n-shot" in error.value.remedy


def test_one_class_is_refused() -> None:
    features, _ = _clusters()
    with pytest.raises(Refused, match="1 of 1 classes have 10 usable"):
        fewshot(features, np.zeros(400, int), SMALL)


def test_no_labels_and_no_features_are_refused_with_numbers() -> None:
    features, labels = _clusters()
    with pytest.raises(Refused, match="400 no label"):
        fewshot(features, np.full(400, np.nan), SMALL)
    with pytest.raises(Refused, match="largest: none; of 400 rows, 400 have no embedding"):
        fewshot(np.full_like(features, np.nan), labels, SMALL)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_way": 1},
        {"n_shot": 0},
        {"n_query": 0},
        {"episodes": 1},
        {"seed": -1},
        {"distance": "manhattan"},
        {"mode": "paper"},
        {"cap": 34},
        {"mode": "as-published", "cap": 100},
        {"mode": "as-published", "group_disjoint": True},
        {"mode": "as-published", "distance": "cosine"},
    ],
)
def test_nonsense_protocols_are_refused(bad: dict) -> None:
    with pytest.raises(Refused):
        Protocol(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"labels": np.zeros(399, int)},
        {"labels": np.full(400, 0.5)},
        {"labels": np.zeros((400, 1), int)},
        {"features": np.zeros(400)},
        {"groups": np.zeros(399, int)},
        {"backend": "numpy"},
        {"backend": "faiss", "device": "cuda"},
        {"device": "tpu"},
        {"protocol": Protocol(n_way=3, n_shot=5, n_query=5, episodes=40, group_disjoint=True)},
    ],
)
def test_nonsense_arguments_are_refused(bad: dict) -> None:
    features, labels = _clusters()
    given = {"features": features, "labels": labels, "protocol": SMALL} | bad
    with pytest.raises(Refused):
        fewshot(given.pop("features"), given.pop("labels"), given.pop("protocol"), **given)
