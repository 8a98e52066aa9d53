"""Floors beside rates, the targets and their table in the documentation: only what was seen is said."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from benchmarks.gpu import floors, suite, targets
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.floors import Bound, reading
from benchmarks.gpu.results import Results
from benchmarks.gpu.suite import Outcome
from benchmarks.gpu.timing import ConvolutionFlop
from tests.docs_check import ROOT

CEILINGS = {"link": 50e9, "product": 40e12}
#: 2 GB through the link take 40 ms, 8 TFLOP of products 200 ms.
COPY, GEMM = Bound("copy", "link", 2e9, "2 GB"), Bound("gemm", "product", 8e12, "8 Tflop")
FACTS: dict[str, Any] = {
    "devices": [{"name": "Card", "memory": 2**37, "capability": "9.0"}],
    "driver": "600.1",
    "toolkit": {"cuda": "13.0"},
    "versions": {"torch": "2.11"},
    "processor": "CPU",
    "cores": 16,
    "commit": "abcdef0123456789",
    "date": "2030-01-02T03:04:05+00:00",
}


def test_a_floor_is_the_longest_of_the_times_that_the_ceilings_allow() -> None:
    both = reading("x", 0.5, "s", (COPY, GEMM), CEILINGS)
    assert (both.floor, both.share, both.bound_by) == (pytest.approx(0.2), pytest.approx(0.4), "gemm")
    copy = reading("x", 80.0, "ms", (COPY,), CEILINGS)
    assert (copy.floor, copy.share, copy.bound_by) == (pytest.approx(40), pytest.approx(0.5), "copy")
    assert copy.to_dict()["formulas"] == ["copy: 2 GB"]


def test_of_a_rate_the_floor_is_the_most_that_the_ceilings_allow() -> None:
    rate = reading("x", 4.0, "img/s", (COPY, GEMM), CEILINGS)
    assert (rate.floor, rate.share, rate.bound_by) == (pytest.approx(5), pytest.approx(0.8), "gemm")
    with pytest.raises(ValueError, match="times"):
        reading("x", 4.0, "times", (COPY,), CEILINGS)


def test_without_its_ceiling_a_floor_is_not_measured() -> None:
    missing = reading("x", 0.5, "s", (COPY, GEMM), {"product": 40e12}).to_dict()
    assert (missing["floor"], missing["share_of_floor"]) == ("not measured",) * 2
    assert missing["bound_by"] == "not measured: link"
    uncounted = reading("x", 0.5, "s", (Bound("gemm", "product", 0, "counted"),), CEILINGS)
    assert uncounted.floor is None and "not counted" in uncounted.bound_by


def test_the_stated_work_of_networks_is_that_of_their_convolutions_and_products() -> None:
    with torch.device("meta"):
        network = torchvision.models.resnet50().eval()
        with ConvolutionFlop() as counted:
            network(torch.empty(1, 3, 224, 224))
    assert counted.flop == pytest.approx(floors.RESNET50_FLOP, rel=1e-3)
    # ViT-L/16 of torchvision: 61.55 billion multiply-adds with its head.
    assert floors.vit_flop(197, 1024, 24, 16) == pytest.approx(2 * 61.55e9, rel=0.02)


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.name)
def test_each_target_has_a_check_and_is_met_on_one_side_of_its_limit(target: targets.Target) -> None:
    assert target.check in {check.name for check in suite.registered()}
    factors = {0.5: target.at_most, 1.0: True, 2.0: not target.at_most, math.nan: False}
    for factor, met in factors.items():
        raw = {"name": target.name, "measured": factor * target.limit}
        assert targets.judged(raw, counts=True)["met"] == ("yes" if met else "no")
        assert targets.judged(raw, counts=False)["met"] == "unmeasured"
    assert "met" not in targets.judged({"name": "other", "measured": 1.0}, counts=True)


def test_the_targets_are_those_of_the_issue() -> None:
    assert [(target.limit, target.unit, target.at_most) for target in targets.TARGETS] == [
        (12_000, "img/s", False),
        (0.9, "of its slower stage", False),
        (2000, "img/s", False),
        (5, "ms", True),
        (2, "s", True),
        (5, "times", False),
        (20, "ms", True),
        (0.3, "s", True),
        (5, "s", True),
    ]


def _written(folder: Path, device: str, *, counts: bool) -> Path:
    whitening = reading(targets.WHITENING.name, 25.0, "ms", (COPY,), {"link": 400e9}).to_dict()
    share = floors.share_of_stage(targets.END_TO_END.name, 0.93, "decode").to_dict()
    judged = [targets.judged(r, counts=counts) for r in (whitening, share)]
    outcome = Outcome("w", "measurement", "measured", 1.0, readings=judged)
    facts = {**FACTS, "minutes": 1, "command": "", "absent": [], "packages": {}, "memory_bytes": 1}
    results = Results(folder, device, not counts, [facts], [outcome])
    results.write()
    return folder / "results.json"


def test_the_table_shows_what_was_measured_and_on_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--table", str(_written(tmp_path, "cuda:0", counts=True))]) == 0
    printed = capsys.readouterr().out
    assert "| whitening 100 x 256 x 2,048: at most 20 ms | 25 ms | 5 ms (copy) | 20 % | no |" in printed
    assert "93 % of its slower stage | 100 % of its slower stage (decode, measured" in printed
    assert printed.count("unmeasured") == len(targets.TARGETS) - 2
    assert "Card, 128 GiB" in printed and "driver 600.1" in printed and "commit abcdef012345" in printed


def test_tiny_sizes_and_no_results_are_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--table", str(_written(tmp_path, "cpu", counts=False))]) == 0
    tiny = capsys.readouterr().out
    assert main(["--table"]) == 0
    assert capsys.readouterr().out == tiny
    assert tiny.count("| unmeasured |") == len(targets.TARGETS)


def test_the_documentation_has_the_table_of_targets() -> None:
    page = (ROOT / "docs/measurements.md").read_text(encoding="utf-8")
    section = page.partition("\n## On a GPU\n")[2].partition("\n## ")[0]
    header, _, *rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(targets.COLUMNS)
    wanted = [f"{target.name}: {target.text}" for target in targets.TARGETS]
    assert [row.split("|")[1].strip() for row in rows] == wanted
