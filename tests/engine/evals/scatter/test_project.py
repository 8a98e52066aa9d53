"""Scatter plots of a bank: which images, where they lie, and what the picture says."""

import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.decomposition import PCA

from engine.errors import Refused
from engine.evals.scatter.project import drawn, project
from engine.kernels.umap_library import umap_coordinates
from engine.report.scatter_figure import draw_scatter
from stores.bank.reader import Bank
from tests.command import embank
from tests.probe_banks import DIM, FAILED, FIRST, LABELS, ROWS, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_probe_bank(tmp_path_factory.mktemp("scatter"), views=True)


def test_coordinates_are_scikit_learns_on_the_usable_rows(bank: Bank) -> None:
    projection = project(bank.path, FIRST)
    usable = np.setdiff1d(np.arange(ROWS), FAILED)
    assert projection.rows.tolist() == usable.tolist()
    rows = np.asarray(bank.features(FIRST).array)[usable].astype(np.float64)
    oracle = PCA(2).fit(rows)
    expected = oracle.transform(rows)
    signs = np.sign((projection.coordinates * expected).sum(axis=0))
    np.testing.assert_allclose(projection.coordinates * signs, expected, atol=1e-8)
    assert projection.report["explained"] == pytest.approx(oracle.explained_variance_ratio_.tolist())
    assert projection.cells == tuple(LABELS[row % 5] for row in usable)
    counts = {name: projection.report[name] for name in ("images", "of", "failed", "column")}
    assert counts == {"images": ROWS - 3, "of": ROWS - 3, "failed": 3, "column": "label"}


def test_at_most_so_many_images_the_same_for_all_models() -> None:
    """The smallest numbers of numpy's Philox under the stated key, ranked here step by step."""
    import hashlib

    key = hashlib.sha256(b'embank scatter 1 [3, "set"]').digest()[:16]
    raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(50)
    usable = np.arange(50)
    assert drawn(usable, 50, 3, "set", most=20).tolist() == sorted(np.argsort(raw)[:20].tolist())
    assert drawn(usable, 50, 3, "set", most=50).tolist() == usable.tolist()
    without = np.delete(usable, np.argmin(raw))
    changed = set(drawn(usable, 50, 3, "set", most=20)) ^ set(drawn(without, 50, 3, "set", most=20))
    assert len(changed) == 2 and int(np.argmin(raw)) in changed


def test_a_split_and_a_column(bank: Bank) -> None:
    projection = project(bank.path, FIRST, column="view", split="test")
    assert set(projection.rows // 3 % 4) == {3} and set(projection.cells) == {"frontal", "lateral"}
    assert projection.report["failed"] == sum(row // 3 % 4 == 3 for row in FAILED)


@pytest.mark.parametrize(("column", "kinds"), [("label", 4), ("view", 2), ("group", 7)])
def test_the_picture_has_every_image_once(bank: Bank, column: str, kinds: int) -> None:
    projection = project(bank.path, FIRST, column=column)
    figure = draw_scatter(projection.coordinates, projection.cells, projection.report)
    (axes,) = figure.axes
    points = np.concatenate([own.get_offsets() for own in axes.collections])
    assert sorted(map(tuple, points)) == sorted(map(tuple, projection.coordinates))
    assert len(axes.collections) == kinds
    looks = {
        (own.get_facecolor()[0].tobytes(), own.get_paths()[0].vertices.tobytes()) for own in axes.collections
    }
    assert len(looks) == kinds
    share = projection.report["explained"][0]
    assert axes.get_xlabel() == f"PC 1 ({share:.1%} of the variance)" and "237 images" in axes.get_title(
        "left"
    )
    plt.close(figure)


def test_many_numbers_get_a_colour_bar() -> None:
    coordinates = np.random.default_rng(0).normal(size=(30, 2))
    cells = [str(age) for age in range(29)] + [""]
    report = {"model": "m", "column": "age", "images": 30, "of": 90, "explained": [0.5, 0.2]}
    figure = draw_scatter(coordinates, cells, report)
    axes, bar = figure.axes
    missing, ages = axes.collections
    np.testing.assert_array_equal(missing.get_offsets(), coordinates[-1:])
    np.testing.assert_array_equal(ages.get_array(), np.arange(29))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["missing (1)"]
    assert bar.get_ylabel() == "age" and "30 of 90 images" in axes.get_title("left")
    plt.close(figure)


def test_values_that_matplotlib_would_read_otherwise() -> None:
    coordinates = np.random.default_rng(0).normal(size=(5, 2))
    report = {"model": "m", "column": "c", "images": 5, "of": 5, "explained": [0.5, 0.2]}
    figure = draw_scatter(coordinates, ["_a", "_a", "$x$", "", ""], report)
    texts = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert texts == ["_a (2)", r"\$x\$ (1)", "missing (2)"]
    plt.close(figure)
    figure = draw_scatter(coordinates, [], report)
    assert not figure.legends and len(figure.axes[0].collections[0].get_offsets()) == 5
    plt.close(figure)


def test_the_command(bank: Bank, tmp_path: Path) -> None:
    out = tmp_path / "new" / "scatter.svg"
    words = ("bank", "scatter", bank.path, "--model", SECOND, "-o", out)
    ran = embank(*words, "--color", "view")
    assert ran.code == 0 and "of the variance" in ran.out and "237 images" in ran.out, ran.err
    assert "embank bank scatter" in out.read_text()
    document = embank(*words, "--json").json
    assert document["explained"] == project(bank.path, SECOND).report["explained"]
    assert document["file"] == str(out) and not list((Path(bank.path) / "records").glob("*"))


def test_refusals(bank: Bank, tmp_path: Path) -> None:
    fill_with(bank, make_key(bank.image_digest, model="line"), np.ones((ROWS, 1), np.float32))
    out = tmp_path / "x.png"
    for words, says in (
        (("--model", FIRST, "--color", "colour"), "colour"),
        (("--model", FIRST, "--split", "nowhere"), "The bank has test, train, val"),
        (("--model", "line"), "two dimensions"),
        (("--model", FIRST, "--seed", -1), "seed"),
        (("--model", FIRST, "--method", "tsne"), "pca or umap"),
    ):
        ran = embank("bank", "scatter", bank.path, *words, "-o", out)
        assert ran.code == 2 and says in ran.err, ran.err
    with pytest.raises(Refused, match="It is pca or umap"):
        project(bank.path, FIRST, "tsne")
    assert not out.exists()


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_umap_without_its_library_is_refused(bank: Bank, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    ran = embank("bank", "scatter", bank.path, "--model", FIRST, "--method", "umap", "-o", out)
    assert ran.code == 2 and "pip install 'embank[umap]'" in ran.err and not out.exists()


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="needs umap-learn (embank[umap])")
@pytest.mark.slow
def test_umap_keeps_clusters_and_repeats_itself(bank: Bank) -> None:
    rng, codes = np.random.default_rng(0), np.arange(90) % 3
    rows = rng.normal(size=(90, DIM)) + 20.0 * np.eye(DIM)[codes]
    layout = umap_coordinates(rows, seed=2**62)
    np.testing.assert_array_equal(layout, umap_coordinates(rows, seed=2**62))
    assert not np.array_equal(layout, umap_coordinates(rows, seed=1))
    distances = np.linalg.norm(layout[:, None] - layout, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (codes[distances.argmin(axis=1)] == codes).all()
    projection = project(bank.path, FIRST, "umap")
    assert projection.coordinates.shape == (ROWS - 3, 2) and "explained" not in projection.report
