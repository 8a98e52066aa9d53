"""The first run, on the smaller embedded set: real pictures, real weights, judged by what they must show."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from engine import models, quickstart
from engine.errors import Refused
from engine.evals.probe.selection import grid
from engine.quickstart import MODELS, PROBED, PROTOCOLS, run
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, read_all, together
from stores.bank.writer import open_or_create
from stores.manifest.manifest import Manifest
from tests.probe_banks import fill_with
from tests.stores.banks import make_key

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    result = run(folder, sets=("tiles",))
    scores = {row[1]: (row[6], row[7], row[5]) for row in result.fewshot.rows}
    assert set(scores) == set(MODELS)
    # ImageNet features must tell fundus, histology and phase contrast apart, and better than an untrained net
    (pretrained, ci, chance), (untrained, _, _) = scores[MODELS[0]], scores[MODELS[1]]
    assert pretrained - ci > 0.9 > untrained > chance
    assert all(Path(path).exists() for path in result.paths.values())
    return folder


def test_the_picture_is_one(made: Path) -> None:
    with Image.open(made / "quickstart.png") as picture:
        picture.load()
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 1000


def test_running_it_again_embeds_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(models, "load", refuse)
    again = run(made, sets=("tiles",))
    assert len(again.fewshot.rows) == len(MODELS)
    assert again.probes.rows == ()  # the tiles have no test part


def test_every_protocol_has_its_data_set() -> None:
    from engine import datasets

    assert set(PROBED) <= set(PROTOCOLS) <= set(datasets.available())


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank of the first 500 digits whose features are their 64 pixels, under the names of both models."""
    root, digits = tmp_path_factory.mktemp("pixels"), load_digits()
    columns = {
        "image_id": [f"digit-{i:04d}" for i in range(500)],
        "uri": [f"{i}.png" for i in range(500)],
        "label": [str(label) for label in digits.target[:500]],
    }
    bank = open_or_create(root / "bank", Manifest.from_columns(columns, root), chunk_rows=512)
    for model in MODELS:
        fill_with(bank, make_key(bank.image_digest, model=model), digits.data[:500].astype(np.float32))
    return bank


@pytest.fixture(scope="module")
def probed(pixels: Bank) -> tuple[list[Any], list[RunRecord]]:
    """What the probes return, and their records."""
    with together() as batch:
        results = quickstart.probe(pixels.path)
    return results, batch.made


def test_the_probe_of_the_quickstart_is_scikit_learns(
    pixels: Bank, probed: tuple[list[Any], list[RunRecord]]
) -> None:
    found, _ = probed
    table = quickstart.probe_table([{"set": "digits", **each} for each in found])
    rows = table.to_dicts()
    assert [row["model"] for row in rows] == list(MODELS)
    assert rows[0]["train"] + rows[0]["val"] + rows[0]["test"] == 500 and rows[0]["converged"]
    assert found[0]["sweep"]["C"] == list(grid())
    # The same parts by scikit-learn, from the record's own cut.
    from engine.evals.common.features import Features
    from engine.evals.probe.parts import Columns, SplitOptions, parts

    codes = pixels.column("label")[0]
    columns = Columns.of(Features.from_bank(pixels, MODELS[0]))
    cut = parts(columns, codes, np.ones(500, bool), SplitOptions(holdout=True))
    digits = load_digits()
    scaler = StandardScaler().fit(digits.data[cut.refit])
    model = LogisticRegression(C=rows[0]["best C"], tol=1e-9, max_iter=20_000)
    model.fit(scaler.transform(digits.data[cut.refit]), digits.target[cut.refit])
    expected = model.score(scaler.transform(digits.data[cut.test]), digits.target[cut.test])
    assert rows[0]["accuracy"] == pytest.approx(expected, abs=0.011)  # one image of a hundred
    assert expected > 0.9
    assert [record.kind for record in read_all(pixels.path)] == ["probe", "probe"]


def test_the_picture_is_drawn_again_from_the_records(
    probed: tuple[list[Any], list[RunRecord]], made: Path, tmp_path: Path
) -> None:
    from engine.report.quickstart_figure import overview

    banks, drawn = {"tiles": made / "tiles.bank"}, (made / "quickstart.png").read_bytes()
    out = tmp_path / "picture.png"
    fewshot = [one for one in read_all(banks["tiles"]) if one.kind == "fewshot"][: len(MODELS)]
    assert overview({"tiles": fewshot}, banks, made, MODELS[0], out).read_bytes() == drawn
    records = {"tiles": fewshot, "digits": probed[1]}
    assert overview(records, banks, made, MODELS[0], out).read_bytes() != drawn
    lacking = replace(fewshot[0], metrics={})
    with pytest.raises(Refused, match=r"no metrics\.accuracy"):
        overview({"tiles": [lacking]}, banks, made, MODELS[0], out)
