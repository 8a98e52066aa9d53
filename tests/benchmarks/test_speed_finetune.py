"""The finetuning benchmark, tiny: it runs, and both contenders train the same network on the same images."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.images import XRAY, manifest_of, write_images
from benchmarks.speed import finetune
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime

pytestmark = pytest.mark.slow

MODEL, SIDE = "random/squeezenet1_1", 32


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--model", MODEL, "--side", str(SIDE), "--images", "6", "--batch-size", "4", "--steps", "2"]
    words = [*tiny, "--rounds", "1", "--workers", "0", "--device", "cpu", "--threads", "1", "--no-memory"]
    finetune.main([*words, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["contenders"]) == {"embank", "loop"}
    assert result["contenders"]["loop"]["over_loop"]["median"] == 1
    assert len(result["parts"]) == 4
    assert (result["side"], result["steps"], result["batch_size"]) == (SIDE, 2, 4)


def test_both_take_the_same_step(tmp_path: Path) -> None:
    """On the same pixels; the crops of the two are drawn by different generators."""
    manifest = manifest_of(write_images(tmp_path, XRAY, 6), tmp_path)
    spec = resolve(MODEL, recipe=Recipe(size=SIDE, crop=SIDE))
    case = finetune.Case(manifest, spec, Runtime("cpu", "fp32", 1), 4, 2, 0)
    assert [len(batch.rows) for batch in case.batches] == [4, 4]
    assert {row for batch in case.batches for row in batch.rows} == set(range(6))
    x, y = next(iter(case.loader))
    assert (x.shape, x.dtype, y.tolist()) == (
        (4, 3, SIDE, SIDE),
        torch.float32,
        [row % finetune.CLASSES for row in case.batches[0].rows],
    )
    pixels = next(iter(case._decoded())).pixels
    case.close()
    recipe = spec.recipe
    mean, sd = (torch.tensor(v).view(1, 3, 1, 1) for v in (recipe.mean, recipe.sd))
    plain = case._plain_step((pixels.permute(0, 3, 1, 2).float() / 255 - mean) / sd, y)
    ours = case.trainer.update(0, pixels, case.batches[0].rows)
    assert float(ours) == pytest.approx(float(plain), rel=1e-4)


@pytest.mark.thorough
def test_memory_is_that_of_the_process_and_its_workers(tmp_path: Path) -> None:
    manifest = manifest_of(write_images(tmp_path, XRAY, 6), tmp_path)
    spec = resolve(MODEL, recipe=Recipe(size=SIDE, crop=SIDE))
    case = finetune.Case(manifest, spec, Runtime("cpu", "fp32", 1), 4, 2, 0)
    assert finetune.peak_bytes(case, "embank") > 50 * 2**20
