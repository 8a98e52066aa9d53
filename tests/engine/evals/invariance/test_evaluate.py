"""Invariance to transforms, from a bank and its images, against a plain computation."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from PIL import Image

from engine.decode import torchvision as turbo
from engine.embed.restore import restore
from engine.errors import ChangedImage, Refused
from engine.evals.invariance import view_features
from engine.evals.invariance.bank import invariances_from_bank
from engine.evals.invariance.batch_norm import BatchNormEncoder
from engine.evals.invariance.options import InvarianceOptions, draw
from engine.evals.invariance.statistics import statistics
from engine.evals.invariance.summary import summarise
from engine.evals.invariance.view_features import make_views
from engine.evals.invariance.view_store import REFERENCE, Views, ViewStore
from engine.kernels.whitening import Regularisation
from engine.models import load
from engine.models.backbones import architectures
from engine.normalise import normalise
from engine.recipes import Recipe
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.engine.evals.invariance_banks import MODEL, RUNTIME, build
from tests.oracles.invariance_loop import loop


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return build(tmp_path_factory.mktemp("invariance"))


def options(*transforms: str, **changes: object) -> InvarianceOptions:
    return InvarianceOptions(transforms or ("rotation",), **{"images": 10, "views": 4, **changes})  # type: ignore[arg-type]


def rendered(bank: Bank, row: int) -> torch.Tensor:
    """uint8 [S, S, 3], decoded afresh."""
    from engine.decode.formats.sniff import sniff
    from engine.decode.source import Limits

    recipe = Recipe(size=32, crop=32)
    data = (bank.path.parent / "images" / f"{row:03}.png").read_bytes()
    return torch.from_numpy(np.array(turbo.render(data, sniff(data, recipe, Limits()), recipe)[0]))


@pytest.mark.slow
def test_rotation_equals_the_plain_loop(bank: Bank) -> None:
    """torchvision's rotate, one view at a time, the encoder, scikit-learn-like shrinkage, the plain loop."""
    from sklearn.covariance import LedoitWolf

    features = bank.features(MODEL)
    found = invariances_from_bank(bank.path, MODEL, options())[0]
    encoder = load(restore(features.bank, features.name).spec, RUNTIME)
    images, views = [], []
    for row in found.rows.tolist():
        image = rendered(bank, row)
        turned = [tv.rotate(image.permute(2, 0, 1), angle).permute(1, 2, 0) for angle in (90, 180, 270)]
        encoded = encoder(torch.stack([image, *turned])).numpy().astype(np.float16)
        images.append(encoded[0])
        views.append(encoded[1:])
    groups = bank.column("group")[0]
    rest = features.ok & ~np.isin(groups, groups[found.rows])
    oracle = LedoitWolf().fit(features.array[rest].astype(np.float64))
    cosine, distance = loop(oracle.location_, oracle.covariance_, np.stack(images), np.stack(views))
    # At right angles nearest pixels leave no choice, so even the pixels are the same.
    np.testing.assert_allclose(found.cosine, cosine, atol=1e-6)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-6)
    report = found.report
    assert report["cosine"] == pytest.approx(cosine.mean(), abs=1e-6)
    assert (report["n"], report["views"], report["images"]) == (10, 3, 10)
    assert report["covariance"]["shrinkage"] == pytest.approx(oracle.shrinkage_, abs=1e-9)
    assert report["covariance"]["condition"] == pytest.approx(np.linalg.cond(oracle.covariance_), rel=1e-3)
    assert report["reference_parity"] == pytest.approx(1, abs=1e-6)
    assert 0 < report["ci95"] < 1 and -1 < report["baseline"] < 1


@pytest.mark.slow
def test_baseline_is_the_mean_over_pairs_of_different_patients(bank: Bank) -> None:
    found = invariances_from_bank(bank.path, MODEL, options())[0]
    features = bank.features(MODEL)
    kept = ViewStore(features)
    reference = Views(REFERENCE)
    groups = bank.column("group")[0]
    rest = features.ok & ~np.isin(groups, groups[found.rows])
    made = statistics(features, np.flatnonzero(rest), Regularisation()).whitener
    f = np.stack([kept.read(reference, int(r)).features[0] for r in found.rows]).astype(np.float64)  # type: ignore[union-attr]
    z = np.linalg.solve(made.factor, (f - made.mean).T).T
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    each = [
        z[i] @ z[j] for i in range(10) for j in range(i) if groups[found.rows[i]] != groups[found.rows[j]]
    ]
    assert found.report["baseline"] == pytest.approx(np.mean(each))
    assert found.report["baseline_pairs"] == len(each)


def test_no_patient_is_scored_and_in_the_covariance(bank: Bank) -> None:
    groups = bank.column("group")[0].astype(np.int64)
    for seed in range(20):
        sample = draw(np.ones(48, bool), groups, options(seed=seed, images=10))
        assert len(set(sample.scored.tolist())) == 10
        assert not set(groups[sample.scored].tolist()) & set(groups[sample.covariance].tolist())
    ok = np.arange(48) % 3 > 0
    sample = draw(ok, groups, options(images=None))
    assert len(sample.scored) == ok.sum() // 2 and ok[sample.scored].all() and ok[sample.covariance].all()


def test_as_published_draws_with_replacement_from_all() -> None:
    groups = np.arange(5000)
    sample = draw(np.ones(5000, bool), groups, options(mode="as-published", images=None))
    assert len(sample.scored) == 100 and len(sample.covariance) == 1000
    assert len(set(sample.covariance.tolist())) < 1000
    few = draw(np.ones(60, bool), groups[:60], options(mode="as-published", images=200))
    assert len(few.scored) == 200 and few.covariance.tolist() == list(range(60))
    large = draw(np.ones(22_341, bool), np.arange(22_341), options(mode="as-published"))
    assert len(large.covariance) == 2234


@pytest.mark.slow
def test_as_published_counts_the_identity_and_collapses_in_few_images(bank: Bank) -> None:
    """48 images in 512 dimensions: the null space turns every changed view away, so a flip gives a half."""
    asked = options("h_flip", "v_flip", mode="as-published", images=16)
    found = invariances_from_bank(bank.path, MODEL, asked)
    for result in found:
        assert result.cosine.shape == (16, 2)
        assert result.report["covariance"]["regularisation"] == "ridge=1e-06"
        assert result.report["not_reproduced"]
    # Identity is exact only if both sides go through the very same pixels and encoder.
    np.testing.assert_allclose(found[0].cosine[:, 0], 1, atol=1e-9)
    assert np.abs(found[0].cosine[:, 1]).mean() < 0.3
    assert found[0].report["cosine"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_as_published_transforms_before_resizing(bank: Bank) -> None:
    features = bank.features(MODEL)
    backbone = restore(features.bank, features.name)
    store, views = ViewStore(features), Views("invert", ((0.0,), (1.0,)), published=True)
    make_views(store, backbone, [9], [views])
    recipe = Recipe(size=36, crop=32, interpolation="bilinear")  # 32 * 256 // 224
    picture = Image.open(bank.path.parent / "images" / "009.png").convert("RGB")
    pixels = []
    for one in (picture, Image.fromarray(255 - np.asarray(picture))):
        small = tv.center_crop(tv.resize(one, 36), 32)
        pixels.append(torch.from_numpy(np.array(small)))
    expected = load(dataclasses.replace(backbone.spec, recipe=recipe), RUNTIME)(torch.stack(pixels)).numpy()
    found = store.read(views, 9)
    assert found is not None
    # Pillow's resize and torch's differ by at most a level here and there.
    np.testing.assert_allclose(found.features, expected, rtol=0.03, atol=0.02)
    assert np.corrcoef(found.features[1], expected[1])[0, 1] > 0.9999


@pytest.mark.slow
def test_batch_norm_in_train_mode_uses_the_batch_and_keeps_its_statistics(bank: Bank, tmp_path: Path) -> None:
    larger = build(tmp_path, 12, recipe=Recipe(size=64, crop=64))
    spec = restore(larger, larger.features(MODEL).name).spec
    encoder = BatchNormEncoder(spec, RUNTIME)
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    module = architectures.build_seeded(spec.architecture, spec.seed or 0).train()
    with torch.no_grad():
        expected = module(normalise(pixels, spec.recipe))
    for _ in range(2):  # the second call would differ if running statistics had moved
        torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-5)
    assert (encoder(pixels)[:1] - encoder(pixels[:1])).abs().max() > 1e-2
    asked = options(mode="as-published", batch_norm="train", images=2)
    result = invariances_from_bank(larger.path, MODEL, asked)[0]
    assert result.report["batch_norm"] == "train"
    assert any("BatchNorm" in sentence for sentence in result.report["not_reproduced"])
    with pytest.raises(Refused, match="one value"):
        invariances_from_bank(bank.path, MODEL, asked)


@pytest.mark.slow
def test_histogram_models_are_normalised_as_the_study_did(tmp_path: Path) -> None:
    """By histogram for the image; by ImageNet's mean for its views, as published."""
    bank = build(tmp_path, 8, recipe=Recipe(size=32, crop=32, normalise="histogram"))
    features = bank.features(MODEL)
    backbone = restore(features.bank, features.name)
    store = ViewStore(features)
    for published in (True, False):
        same = Views("h_flip", ((0.0,),), published=published)
        own = Views(REFERENCE, published=published)
        make_views(store, backbone, [5], [own, same])
        a, b = (store.read(views, 5).features[0] for views in (own, same))  # type: ignore[union-attr]
        assert np.array_equal(a, b) != published


@pytest.mark.slow
def test_grey_images_have_no_hue(bank: Bank, tmp_path: Path) -> None:
    rows = invariances_from_bank(bank.path, MODEL, options("hue", "rotation", images=24))
    grey = rows[1].rows[rows[1].rows < 8]
    assert len(grey) > 0 and rows[0].report["grey"] == len(grey)
    assert rows[0].report["n"] == 24 - len(grey) and rows[1].report["n"] == 24
    plain = build(tmp_path, 24, grey=24)
    with pytest.raises(Refused, match="grey"):
        invariances_from_bank(plain.path, MODEL, options("hue", images=2))
    both = invariances_from_bank(plain.path, MODEL, options("hue", "invert"), skip_undefined=True)
    assert math.isnan(both[0].report["cosine"]) and "grey" in both[0].report["reason"]
    assert math.isfinite(both[1].report["cosine"])
    published = invariances_from_bank(plain.path, MODEL, options("hue", images=16, mode="as-published"))
    assert published[0].report["grey"] == 16 and math.isfinite(published[0].report["cosine"])


def test_statistics_are_kept_and_a_damaged_file_is_made_again(bank: Bank) -> None:
    features, rows = bank.features(MODEL), np.arange(3, 40)
    first = statistics(features, rows, Regularisation("ridge", 0.25))
    assert first.cached == ""
    again = statistics(features, rows, Regularisation("ridge", 0.25))
    assert again.cached == "factor" and again.whitener.condition == first.whitener.condition
    np.testing.assert_array_equal(again.whitener.factor, first.whitener.factor)
    assert statistics(features, rows, Regularisation("ridge", 0.5)).cached == "moments"
    assert statistics(features, rows[1:], Regularisation("ridge", 0.25)).cached == ""
    assert statistics(features, rows, Regularisation("ridge", 0.25), arithmetic="float32").cached == ""
    for path in (bank.path / SIDE / "statistics").iterdir():
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        path.write_bytes(data)
    mended = statistics(features, rows, Regularisation("ridge", 0.25))
    assert len(mended.damaged) == 2 and mended.cached == ""
    np.testing.assert_array_equal(mended.whitener.factor, first.whitener.factor)


@pytest.mark.slow
def test_views_are_kept_resumed_and_mended(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(bank.path, root)
    shutil.rmtree(root / SIDE / "views", ignore_errors=True)
    wanted = options("rotation", "invert")
    whole = invariances_from_bank(root, MODEL, wanted)
    assert whole[0].report["views_made"] == 10 * (1 + 3 + 1)
    kept = invariances_from_bank(root, MODEL, wanted)
    assert (kept[0].report["views_made"], kept[0].report["views_kept"]) == (0, 50)
    shutil.rmtree(root / SIDE / "views")
    made: list[Views] = []
    render = view_features.render

    def stopping(image: torch.Tensor, views: Views, recipe: Recipe) -> torch.Tensor:
        if len(made) == 14:  # the ten images themselves are held back until all are there
            raise KeyboardInterrupt
        made.append(views)
        return render(image, views, recipe)

    monkeypatch.setattr(view_features, "render", stopping)
    with pytest.raises(KeyboardInterrupt):
        invariances_from_bank(root, MODEL, wanted)
    monkeypatch.undo()
    file = sorted((root / SIDE / "views").rglob("*.arrays"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    resumed = invariances_from_bank(root, MODEL, wanted)
    assert resumed[0].report["views_damaged"] == 1
    assert 0 < resumed[0].report["views_kept"] < 50
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a.cosine, b.cosine)


@pytest.mark.slow
def test_each_image_is_decoded_once_beforehand_and_once_for_all_transforms(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.decode.source import ImageSource

    path = Path(shutil.copytree(bank.path, tmp_path / "bank"))
    shutil.rmtree(path / SIDE / "views", ignore_errors=True)  # which other tests have left
    read: list[int] = []
    original = ImageSource.read
    monkeypatch.setattr(ImageSource, "read", lambda self, row: (read.append(row), original(self, row))[1])
    found = invariances_from_bank(path, MODEL, options("v_flip", "posterize", "equalize", seed=77))
    assert sorted(read) == sorted([*found[0].rows.tolist()] * 2)


@pytest.mark.slow
def test_progress_counts_views(bank: Bank) -> None:
    seen: list[view_features.PassProgress] = []
    invariances_from_bank(bank.path, MODEL, options("sharpness", seed=5), on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == 10 * 3 + 10 - _known(seen, 40)
    assert math.isfinite(seen[-1].seconds_left)


def _known(seen: list[view_features.PassProgress], most: int) -> int:
    """References that earlier tests have left."""
    return most - seen[-1].total


@pytest.mark.slow
def test_missing_and_changed_images(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "copy"
    shutil.copytree(bank.path.parent, root)
    shutil.rmtree(root / "bank" / SIDE / "views", ignore_errors=True)
    rows = draw(np.ones(48, bool), bank.column("group")[0].astype(np.int64), options()).scored.tolist()
    images = root / "images"
    (images / f"{rows[0]:03}.png").unlink()
    found = invariances_from_bank(root / "bank", MODEL, options(), root=images)[0]
    assert (found.report["n"], found.report["failed"]) == (9, 1)
    record = [r for r in read_all(root / "bank") if r.kind == "invariance"][-1]
    assert record.failures == {"missing": 1}
    shutil.rmtree(root / "bank" / SIDE / "views")
    with pytest.raises(Refused, match="holds none of the 48 images"):
        invariances_from_bank(root / "bank", MODEL, options(seed=3), root=tmp_path)
    Image.new("RGB", (46, 40), (255, 0, 0)).save(images / f"{rows[1]:03}.png")
    with pytest.raises(ChangedImage, match=rf"{rows[1]:03}\.png"):
        invariances_from_bank(root / "bank", MODEL, options(), root=images)
    # A bank of an early version does not know what it was made from; its features show the change.
    monkeypatch.setattr(
        "engine.embed.restore.contents_of_bank", lambda *_, **__: np.zeros((48, 32), np.uint8)
    )
    with pytest.raises(Refused, match="cosine"):
        invariances_from_bank(root / "bank", MODEL, options(), root=images)


@pytest.mark.slow
def test_records_say_what_was_asked_used_and_found(bank: Bank) -> None:
    found = invariances_from_bank(bank.path, MODEL, options("contrast", seed=2))[0]
    record = [r for r in read_all(bank.path) if r.kind == "invariance"][-1]
    assert record.asked["transform"] == "contrast" and record.asked["seed"] == 2
    assert record.used["rows"] == found.rows.tolist()
    assert record.used["covariance"]["regularisation"] == "ledoit-wolf"
    assert record.metrics["cosine"] == pytest.approx(found.report["cosine"])
    assert len(record.metrics["by_view"]["cosine"]) == 4
    assert {"total", "views", "covariance"} <= set(record.seconds)


def test_summaries() -> None:
    cosine = np.array([[1.0, 0.0], [np.nan, 0.5], [0.2, 0.4]])
    distance, groups = np.ones((3, 2)), np.array([0, 1, 1])
    found = summarise(cosine, distance, groups)
    assert found.cosine == pytest.approx((0.5 + 0.5 + 0.3) / 3)
    assert (found.undefined, found.n, found.groups) == (1, 3, 2)
    published = summarise(cosine, distance, groups, published=True)
    assert published.cosine == pytest.approx((0.6 + 0.3) / 2)
    nowhere = np.array([[1.0, np.nan], [0.5, np.nan]])
    assert math.isnan(summarise(nowhere, np.ones((2, 2)), np.arange(2), published=True).cosine)
    assert summarise(nowhere, np.ones((2, 2)), np.arange(2)).cosine == pytest.approx(0.75)
    assert summarise(cosine[:1], distance[:1], groups[:1]).to_dict()["ci95_reason"]


@pytest.mark.slow
@pytest.mark.parametrize(("images", "published"), [(9, False), (10, False), (12, True)])
def test_fewer_than_ten_images_give_no_number(bank: Bank, images: int, published: bool) -> None:
    """Images drawn twice, as published, count once; what each image gave is there all the same."""
    asked = options(images=images, seed=13, mode="as-published" if published else "default")
    found = invariances_from_bank(bank.path, MODEL, asked)[0]
    different = len(set(found.rows.tolist()))
    assert different < 10 if published else different == images
    assert np.isfinite(found.cosine).all()
    names = ("cosine", "ci95", "mahalanobis", "mahalanobis_ci95", "baseline", "baseline_ci95")
    assert {math.isnan(found.report[name]) for name in names} == {different < 10}
    record = [r for r in read_all(bank.path) if r.kind == "invariance"][-1]
    if different < 10:
        assert (
            f"rests on {different} images" in found.report["reason"] and "--images" in found.report["reason"]
        )
        assert record.metrics["cosine"] is None and set(record.metrics["by_view"]["cosine"]) == {None}
    else:
        assert "reason" not in found.report


def test_a_picture_too_small_is_named_with_its_transform(bank: Bank) -> None:
    from engine.errors import BadImage
    from engine.evals.invariance.view_pixels import render

    tiny = torch.zeros(3, 3, 3, dtype=torch.uint8)
    for name, at in (("deform", (10.0, 0.0)), ("blur", (5.0,))):
        with pytest.raises(BadImage, match=rf"{name}: 3 x 3 pixels"):
            render(tiny, Views(name, (at,)), Recipe(size=32, crop=32))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transforms": ("rotation", "rotation")}, "each once"),
        ({"transforms": ()}, "at least one"),
        ({"transforms": ("turn",)}, "turn"),
        ({"images": 49}, "49 images"),
        ({"images": 47}, "are of no patient"),
        ({"views": 5, "transforms": ("shear",)}, "5 views of shear"),
        ({"views": 1}, "identity"),
        ({"batch_norm": "train"}, "frozen"),
        ({"mode": "paper"}, "paper"),
        ({"regularisation": Regularisation("none")}, "Rank-deficient"),
        ({"regularisation": Regularisation("components", 100)}, "100 components"),
        ({"arithmetic": "float16"}, "float16"),
    ],
)
def test_refused(bank: Bank, changes: dict, says: str) -> None:
    with pytest.raises(Refused, match=says):
        invariances_from_bank(bank.path, MODEL, dataclasses.replace(options(), **changes))


@pytest.mark.slow
def test_float32_products_differ_little(bank: Bank) -> None:
    a, b = (
        invariances_from_bank(bank.path, MODEL, options(arithmetic=each))[0].cosine
        for each in ("float64", "float32")
    )
    assert 0 < np.abs(a - b).max() < 1e-3
