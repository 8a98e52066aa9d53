"""How often an occlusion map waits for the device: three events an image, whatever the number of places.

The host waits for whether the image's feature is defined, for the last scores, and for those of the sample
that tells the error. It never waits for the device or a stream, copies nothing in a blocking manner, and
uploads the picture once. Weights, and the channels' means, are uploaded once for a model.
"""

import numpy as np
import pytest

from engine.errors import BadImage
from engine.evals.saliency.occluder import Block, Occluder, Scores
from engine.kernels.occlusion import Squares
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from tests.pretended.ledger import Entry
from tests.pretended.streams import Device, Event

#: Events waited for in an image's map.
EVENTS = 3
SIDE = 40
SPEC = resolve("random/resnet18", recipe=Recipe(size=SIDE, crop=SIDE))
PIXELS = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def _occluder(stride: int, device: str = "cuda:0") -> Occluder:
    return Occluder(SPEC, Runtime(device, "fp32", 1), Squares(SIDE, 10, stride), fill="40,90,200")


def _second_map(device: Device, occluder: Occluder) -> tuple[list[Entry], Scores, int]:
    """What is done for a map once the model is ready, the scores, and how often some were delivered."""
    occluder.score(PIXELS)
    before, deliveries = len(device.ledger.entries), 0

    def on_block(places: int, so_far: Scores) -> None:
        nonlocal deliveries
        deliveries += 1

    scores, _ = occluder.score(PIXELS, on_block=on_block)
    return device.ledger.entries[before:], scores, deliveries


@pytest.mark.parametrize("ready", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_waits_do_not_grow_with_the_places(
    device: Device, ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 and of 121 places, in 4 and 9 blocks: at most three events, and no other wait."""
    monkeypatch.setattr(Event, "ready", ready)  # a device that is fast, or as slow as can be
    for stride, blocks in ((8, 4), (3, 9)):
        entries, scores, deliveries = _second_map(device, _occluder(stride))
        assert deliveries == blocks and scores.done.all() and np.isfinite(scores.values).all()
        # Nothing is left to wait for at the end where all scores have arrived before.
        assert [e.cause for e in entries if e.kind == "wait"] == ["event"] * (EVENTS - ready)
        uploads = [e for e in entries if e.kind == "upload"]
        assert all(e.pinned for e in uploads)
        assert [e.size for e in uploads] == [PIXELS.nbytes, 3]  # and the colour of the square


def test_scores_are_those_of_the_cpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Event, "ready", False)
    there = _second_map(device, _occluder(6))[1]
    here = _occluder(6, "cpu")
    np.testing.assert_allclose(there.values, here.score(PIXELS, check=False)[0].values, rtol=1e-4)
    here.close()


def test_rectangles_at_stride_one_are_fetched_together(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wait for four rectangles as for one; two of them overlap, and one is there twice."""
    monkeypatch.setattr(Event, "ready", False)
    parts = [Block(range(r, r + 3), range(c, c + 3)) for r, c in ((0, 0), (1, 1), (20, 9), (20, 9))]
    occluder = _occluder(8)
    occluder.every_place(PIXELS, parts[:1])
    waits = []
    for some in (parts[:1], parts):
        before = device.ledger.count("wait")
        found = occluder.every_place(PIXELS, some)
        waits.append(device.ledger.count("wait") - before)
    assert waits == [1, 1]
    for part, values in zip(parts, found, strict=True):
        (alone,) = occluder.every_place(PIXELS, [part])
        np.testing.assert_array_equal(values, alone)


@pytest.mark.parametrize(("value", "code"), [(0.0, "zero_feature"), (np.nan, "not_finite")])
def test_an_undefined_feature_is_refused_after_one_wait(device: Device, value: float, code: str) -> None:
    from engine.evals.saliency.occluder import _refuse_undefined
    from engine.runtime import placed

    feature = placed(np.full(4, value, np.float32), "cuda:0")
    with pytest.raises(BadImage) as error:
        _refuse_undefined(feature)
    assert error.value.code == code and device.ledger.count("wait") == 1
