"""The speed scripts run, at a tiny size, and what they report is of the right make; no time is asserted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import loop
from benchmarks.speed import embed
from engine.recipes import Recipe

pytestmark = pytest.mark.slow

SMALL = replace(Recipe(), size=40, crop=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for i in range(12):
        noise = Image.fromarray(generator.integers(0, 255, (6, 6, 3), np.uint8))
        (root / f"class{i % 2}").mkdir(exist_ok=True)
        noise.resize((60, 50), Image.Resampling.BICUBIC).save(root / f"class{i % 2}" / f"{i}.jpg")
    return root


def test_embed_reports_rates_and_does_the_loops_work(folder: Path) -> None:
    result = embed.run(
        models=["resnet18"], data=folder, rounds=1, device="cpu", batch_size=5, workers=0, recipe=SMALL
    )
    found = result["models"]["resnet18"]
    assert set(found["rates"]) == {"embank", "decode", "encode", "loop"}
    assert result["images"] == 12 and result["bound"].startswith("1 /")
    # The loop shares no code with the engine: the same network on Pillow's pixels.
    assert found["agreement"]["n"] == 12
    assert found["agreement"]["min_cosine"] > 0.9999
    assert "resnet18" in embed.table(result)


@pytest.mark.parametrize(("overlap", "expected"), [(False, 0.75), (True, 0.5)])
def test_efficiency_is_the_share_of_perfect_overlap(overlap: bool, expected: float) -> None:
    seconds = {"decode": [1.0], "encode": [2.0], "embank": [4.0]}
    assert embed.efficiency(seconds, overlap=overlap).median == expected


def test_agreement_sees_exchanged_rows(folder: Path, tmp_path: Path) -> None:
    from engine.embed.run import EmbedOptions
    from engine.embed.run import embed as run
    from engine.models import resolve
    from engine.runtime import Runtime
    from stores.manifest.manifest import Manifest

    manifest = Manifest.from_folder(folder)
    spec = resolve("random/resnet18", recipe=SMALL)
    run(manifest, [spec], tmp_path / "bank", runtime=Runtime(threads=2), options=EmbedOptions(batch_size=4))
    out = tmp_path / "loop.npy"
    paths = [manifest.root / uri for uri in manifest.uris]
    loop.embed_with_loop(paths, SMALL, loop.untrained("resnet18"), out, workers=0, batch_size=4)
    right = embed.agreement(tmp_path / "bank", out)
    np.save(out, np.load(out)[::-1])
    wrong = embed.agreement(tmp_path / "bank", out)
    assert right["min_cosine"] > 0.9999 > wrong["min_cosine"]
