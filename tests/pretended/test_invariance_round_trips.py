"""How often invariance waits for the device: four events an image, whatever the transforms and views.

Each of two passes over the images waits for two events of an image: whether it is grey, and its features for
the bank. To these come a few waits of an evaluation (covariance, its factor) and of a transform: its cosines
and distances, and its baseline. Blocking copies are of the weights alone, once for an encoder. Features made
in a run are scored on the device where they were encoded; those of an earlier run are uploaded together.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.evals.common.features import Features
from engine.evals.invariance import resident_views, view_features
from engine.evals.invariance.evaluate import Access, measure
from engine.evals.invariance.options import InvarianceOptions
from engine.evals.invariance.result import InvarianceResult
from engine.evals.invariance.statistics import statistics
from engine.kernels.transforms import TRANSFORMS, Frame
from engine.kernels.whitening import Regularisation
from engine.runtime import upload
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from tests.engine.evals.invariance_banks import MODEL, build, picture
from tests.pretended.ledger import Entry
from tests.pretended.streams import Device

#: Events of an image; waits of an evaluation and of a transform, at most.
OF_IMAGE, OF_RUN, OF_TRANSFORM = 4, 6, 4
NAMES = ("rotation", "hue", "equalize", "deform")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(str(build(tmp_path_factory.mktemp("views"), 16, grey=2).path))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(view_features._BATCH, "cuda", 16)


def _run(path: Path, device: Device, views: int, images: int, *, again: bool = False) -> list[Entry]:
    """What is done in an evaluation but for the weights; `again` leaves the features of the last one."""
    return _measured(path, device, views, images, again=again)[0]


def _measured(
    path: Path, device: Device, views: int, images: int, *, again: bool = False
) -> tuple[list[Entry], InvarianceResult]:
    if not again:
        for name in ("views", "statistics"):
            shutil.rmtree(path / SIDE / name, ignore_errors=True)
    before = len(device.ledger.entries)
    features = Features.from_bank(Bank.open(path), MODEL)
    found = measure(features, InvarianceOptions(NAMES, images=images, views=views), Access(device="cuda:0"))
    entries = device.ledger.entries[before:]
    return [e for e in entries if not e.place.startswith("engine/models/forward/encoder")], found.result


def _waits(entries: list[Entry]) -> list[str]:
    return [entry.cause for entry in entries if entry.kind == "wait"]


def test_waits_do_not_grow_with_the_views_and_are_few_an_image(path: Path, device: Device) -> None:
    """As many for 16 views as for 4; four events more for each more image; none is a blocking copy."""
    _run(path, device, 4, 3)  # the bank's features and the channels' means are uploaded
    few, many, more = (_run(path, device, *size) for size in ((4, 3), (16, 3), (4, 6)))
    for entries in (few, many, more):
        assert "copy" not in _waits(entries) and "_local_scalar_dense" not in _waits(entries)
        assert all(entry.pinned for entry in entries if entry.kind != "wait")
    assert _waits(many).count("event") == _waits(few).count("event")
    assert _waits(more).count("event") == _waits(few).count("event") + 3 * OF_IMAGE
    others = len(_waits(few)) - 3 * OF_IMAGE
    assert others <= OF_RUN + OF_TRANSFORM * len(NAMES)


def test_features_of_an_earlier_run_are_uploaded_once_for_a_transform(
    path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers, whether features are still on the device, or were read, or had no room there."""
    sent: list[int] = []

    def counted(array: NDArray[np.float16], place: str) -> torch.Tensor:
        sent.append(len(array))
        return upload(array, place)

    monkeypatch.setattr(resident_views, "upload", counted)
    fresh = _measured(path, device, 4, 5)[1]
    assert not sent
    stored, again = _measured(path, device, 4, 5, again=True)
    # The views by each transform, and the images once for all.
    rows = [len(one.rows) * one.cosine.shape[1] for one in again.transforms]
    assert sum(sent) == sum(rows) + 5 and len(sent) <= len(NAMES) + 2
    assert "copy" not in _waits(stored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resident_views, "SHARE", 0.0)
        crowded = _measured(path, device, 4, 5)[1]
    for other in (again, crowded):
        for ours, theirs in zip(other.transforms, fresh.transforms, strict=True):
            np.testing.assert_array_equal(ours.rows, theirs.rows)
            np.testing.assert_allclose(ours.cosine, theirs.cosine, rtol=0, atol=1e-12)
            np.testing.assert_allclose(ours.distance, theirs.distance, rtol=1e-12)


def test_a_kept_covariance_is_factored_on_the_device(path: Path, device: Device) -> None:
    """Another regularisation of the same images: mean and covariance come from the bank."""
    shutil.rmtree(path / SIDE / "statistics", ignore_errors=True)
    features = Bank.open(path).features(MODEL)
    rows, asked = np.arange(16), [Regularisation("ridge", value) for value in (0.25, 0.5)]
    here = [statistics(features, rows, how) for how in asked]
    shutil.rmtree(path / SIDE / "statistics")
    there = [statistics(features, rows, how, device="cuda:0") for how in asked]
    assert [one.cached for one in there] == ["", "moments"]
    for ours, truth in zip(there, here, strict=True):
        assert str(ours.whitener.factor.device) == "cuda:0"
        np.testing.assert_allclose(ours.whitener.to_host().factor, truth.whitener.factor, atol=1e-10)
        assert ours.whitener.condition == pytest.approx(truth.whitener.condition, rel=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_never_waits(name: str, device: Device) -> None:
    """Parameters of 16 views take as many uploads as those of one, from page-locked memory; no wait."""
    transform = TRANSFORMS[name]
    image = torch.from_numpy(picture(7))
    there = image.to("cuda:0")
    uploads = []
    plan = transform.plan(16, identity=True)
    for some in (plan[-1:], plan):
        before = len(device.ledger.entries)
        views = transform.render(there, some, Frame(40 / 256, 32))
        entries = device.ledger.entries[before:]
        assert _waits(entries) == []
        assert all(entry.pinned for entry in entries)
        uploads.append(len(entries))
        assert torch.equal(views.cpu(), transform.render(image, some, Frame(40 / 256, 32)))
    assert uploads[0] == uploads[1]
