"""The first run, on the smaller embedded set: real pictures, real weights, judged by what they must show."""

from pathlib import Path

import pytest
from PIL import Image

from engine import extract
from engine.quickstart import MODELS, PROTOCOLS, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    result = run(folder, sets=("tiles",))
    scores = {row[1]: (row[6], row[7], row[5]) for row in result.table}
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

    monkeypatch.setattr(extract, "load", refuse)
    assert len(run(made, sets=("tiles",)).table) == len(MODELS)


def test_every_protocol_has_its_data_set() -> None:
    from engine import datasets

    assert set(PROTOCOLS) <= set(datasets.available())
