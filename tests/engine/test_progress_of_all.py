"""A resumed run counts the images of all runs, here and with workers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.embed.run import EmbedOptions, PassProgress, embed
from engine.executors import SERIAL, Executor
from engine.models import resolve
from engine.recipes import Recipe
from engine.report.console import progress_line
from engine.runtime import Runtime
from stores.manifest.manifest import Manifest
from tests.one_by_one import OneByOne

N, CHUNK = 20, 4
CPU = Runtime(device="cpu", precision="fp32", threads=1)
OPTIONS = EmbedOptions(batch_size=CHUNK, chunk_rows=CHUNK, decoder="reference")


class StopsAfter(OneByOne):
    """An executor whose user presses Ctrl-C after three chunks."""

    def run(self, function: Any, tasks: Any) -> Iterator[tuple[int, Any]]:
        for position, result in super().run(function, tasks):
            if position == 3:
                raise KeyboardInterrupt
            yield position, result


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("all") / "a"
    folder.mkdir()
    for i in range(N):
        Image.fromarray(np.full((40, 40, 3), 10 * i, np.uint8)).save(folder / f"{i:02}.png")
    return Manifest.from_folder(folder.parent)


@pytest.mark.parametrize("executor", [SERIAL, OneByOne()])
def test_a_resumed_run_counts_all_images(
    manifest: Manifest, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.embed.progress.PROGRESS_EVERY_S", 0.0)
    spec = resolve("random/squeezenet1_1", recipe=replace(Recipe(), size=40, crop=32))
    words: dict[str, Any] = {"runtime": CPU, "options": OPTIONS}
    with pytest.raises(KeyboardInterrupt):
        embed(manifest, [spec], tmp_path / "bank", executor=StopsAfter(), **words)
    seen: list[PassProgress] = []
    again = embed(manifest, [spec], tmp_path / "bank", executor=executor, on_progress=seen.append, **words)
    before = 4 * CHUNK  # the fourth was committed, though its end was not heard of
    passes = [each for each in seen if each.models != ("comparing files",)]
    assert again[0].embedded == N - before
    assert all(each.total == N for each in passes)
    assert before < passes[0].done and passes[-1].done == N
    assert passes[-1].img_per_s == pytest.approx((N - before) / passes[-1].seconds)
    assert progress_line(passes[-1]).startswith("20/20 images")


def test_the_time_left_is_reckoned_from_this_run_alone() -> None:
    from engine.pipeline import new_clocks

    progress = PassProgress(("m",), 70, 100, 0, 5.0, *new_clocks(), 60)
    assert (progress.img_per_s, progress.seconds_left) == (2.0, 15.0)
    assert np.isnan(PassProgress(("m",), 60, 100, 0, 5.0, *new_clocks(), 60).seconds_left)
