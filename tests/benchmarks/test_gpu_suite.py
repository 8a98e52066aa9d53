"""The GPU suite: its CPU half at a tiny size, and what happens when checks fail, crash, hang or run late."""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import packages, suite
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.floors import UP, Bound
from benchmarks.gpu.packing import START_S
from benchmarks.gpu.results import Results
from benchmarks.gpu.suite import Check, Context, Skip, Verdict, attempt
from benchmarks.gpu.supervisor import supervise, work
from benchmarks.gpu.targets import SWEEP_GAIN, TARGETS, VIT
from benchmarks.gpu.timing import distance, same_bits

pytestmark = pytest.mark.slow

FACTS: dict[str, Any] = {
    "minutes": 1,
    "command": "python -m benchmarks.gpu",
    "packages": {},
    "memory_bytes": 2**33,
    "devices": [],
    "toolkit": {},
    "driver": "",
    "processor": "none",
    "cores": 2,
    "versions": {},
    "absent": ["cuML"],
    "date": "today",
    "commit": "abc",
}


def _check(name: str, run: Any, kind: Any = "proof", seconds: float = 0.0) -> Check:
    return Check(name, kind, run, seconds, rank=0)


def _results(folder: Path) -> Results:
    results = Results(folder, "cpu", True, [dict(FACTS)])
    results.write()
    return results


#: Proofs that tests/pretended/test_gpu_suite.py runs, more sharply than the CPU against itself.
PRETENDED = {
    "decode: turbo uploaded to the device, against Pillow",
    "decode: turbo on the device is turbo on the CPU, bit for bit",
    "decode: bad files fail as in Pillow, and leave their neighbours' bits alone",
    "decode: pixels do not depend on the batch they are in",
    "bank: a run on the device, against a run on the CPU",
    "few-shot: on the device, against numpy on the CPU",
    "k-NN: on the device, against numpy on the CPU",
    "k-NN: recall of approximate indices",
    "bank: features from disk to the device, bit for bit",
    "invariance: views made on the device, against the CPU",
    "invariance: covariance and whitening on the device, against the CPU",
    "invariance: the whole evaluation on the device, against the CPU",
}
#: Another process, which the tests of executors start, too.
WORKER_PROOF = "dask: a worker on the device, against this process"
#: Of updates, which tests/engine/evals compares with plain torch loops.
UPDATE_PROOFS = {
    "reconstruction: a batch on the device, against each network alone and the CPU",
    "finetune: an update on the device, against the CPU and float64",
    "finetune: a resumed run has the same bits",
}


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_every_check_passes_or_measures_on_the_cpu(everything: bool, tmp_path: Path) -> None:
    results = Results.begin(tmp_path, "cpu", True, 60, ["--quick"], resume=False)
    results.write()
    left = set() if everything else PRETENDED | {WORKER_PROOF} | UPDATE_PROOFS
    checks = [check for check in suite.registered() if check.name not in left]
    assert work(tmp_path, tmp_path, time.time() + 3600, checks) == 0
    outcomes = {o.name: o for o in Results.read(tmp_path).outcomes}
    assert [(o.name, o.reason, o.trace) for o in outcomes.values() if o.status == "failed"] == []
    assert len(outcomes) == len(checks)
    counts = Results.read(tmp_path).counts
    assert counts["passed"] >= (9 if everything else 3) and counts["measured"] >= 6
    for outcome in outcomes.values():
        assert outcome.status != "skipped" or outcome.reason
    body = json.loads((tmp_path / "results.json").read_text())
    assert {"date", "commit", "versions", "driver", "devices", "toolkit", "packages"} <= body[
        "machine"
    ].keys()
    assert body["machine"]["packages"]["numpy"] == np.__version__
    readings = {r["name"]: r for o in outcomes.values() for r in o.readings}
    assert all(readings[target.name]["met"] == "unmeasured" for target in TARGETS if target.name in readings)
    assert readings.keys() >= {t.name for t in TARGETS} - {VIT.name, SWEEP_GAIN.name}, (
        "timm is big, cuML absent"
    )
    text = (tmp_path / "results.md").read_text()
    assert all(name in text for name in outcomes)


def test_a_raising_check_fails_alone_and_every_result_is_on_disk_at_once(tmp_path: Path) -> None:
    seen: list[int] = []

    def bad(_: Context) -> Verdict:
        raise RuntimeError("out of | luck")

    def count(_: Context) -> Verdict:
        seen.append(len(Results.read(tmp_path).outcomes))
        return Verdict({"x": 1.5}, ok=True)

    def skipping(_: Context) -> Verdict:
        raise Skip("nothing to do")

    checks = [_check("bad", bad), _check("good", count), _check("none", skipping), _check("more", count)]
    _results(tmp_path)
    assert work(tmp_path, tmp_path, time.time() + 60, checks) == 0
    results = Results.read(tmp_path)
    assert [o.status for o in results.outcomes] == ["failed", "passed", "skipped", "passed"]
    assert seen == [1, 3]
    assert results.outcomes[0].reason == "RuntimeError: out of | luck"
    assert "bad" in results.outcomes[0].trace
    assert "out of \\| luck" in results.markdown()


def test_a_proof_that_says_no_has_failed(tmp_path: Path) -> None:
    context = Context("cpu", True, tmp_path, time.time() + 60)
    for verdict, status in ((Verdict({}, ok=False), "failed"), (Verdict({}, ok=True), "passed")):
        assert attempt(_check("p", lambda _, v=verdict: v), context).status == status
    assert attempt(_check("forgot", lambda _: Verdict({})), context).status == "failed"


def test_nothing_starts_that_would_overrun(tmp_path: Path) -> None:
    context = Context("cpu", False, tmp_path, time.time() + 5)
    outcome = attempt(_check("long", lambda _: pytest.fail("started"), "measurement", 30), context)
    assert outcome.status == "skipped" and "30 s needed" in outcome.reason


WORKER = """
import os, sys, time
from pathlib import Path
from benchmarks.gpu.suite import Check, Verdict
from benchmarks.gpu.supervisor import work

def crash(_): os.abort()
def hang(_): time.sleep(600)
def fine(_): return Verdict({"x": 1}, ok=True)

class Impatient(Check):
    limit_s = 0.5

checks = [Check("first", "proof", fine, 0, 0), Check("crash", "proof", crash, 0, 1),
          Check("between", "proof", fine, 0, 2), Impatient("hang", "proof", hang, 0, 3),
          Check("last", "proof", fine, 0, 4)]
if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), Path(sys.argv[1]), time.time() + 600, checks))
"""


def test_a_crash_and_a_hang_cost_their_own_check_alone(tmp_path: Path) -> None:
    script = tmp_path / "toy_worker.py"
    script.write_text(WORKER)
    names: dict[str, Any] = {"__name__": "toy"}
    exec(compile(WORKER, str(script), "exec"), names)
    _results(tmp_path)
    supervise(tmp_path, time.time() + 600, names["checks"], [sys.executable, str(script), str(tmp_path)])
    outcomes = Results.read(tmp_path).outcomes
    assert [(o.name, o.status) for o in outcomes] == [
        ("first", "passed"),
        ("crash", "failed"),
        ("between", "passed"),
        ("hang", "failed"),
        ("last", "passed"),
    ]
    assert "status -6" in outcomes[1].reason
    assert "hangs" in outcomes[3].reason


def test_a_worker_that_never_starts_ends_the_suite(tmp_path: Path) -> None:
    _results(tmp_path)
    checks = [_check("one", lambda _: Verdict({}, ok=True))]
    with pytest.raises(SystemExit, match="does not get going"):
        supervise(tmp_path, time.time() + 60, checks, [sys.executable, "-c", "raise SystemExit(9)"])


@pytest.mark.parametrize("named", [False, True])
def test_only_results_lie_in_the_folder_of_results(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, images, temporary = tmp_path / "results", tmp_path / "images", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    words = ["-o", str(results), "--quick", "--device", "cpu", "--only", "covariance and"]
    assert main(words + (["--work", str(images)] if named else [])) == 0
    assert Results.read(results).counts["passed"] >= 1
    assert {path.name for path in results.iterdir()} == {"results.json", "results.md"}
    assert images.is_dir() == named
    assert not list(temporary.glob("embank-gpu-*"))


def test_two_files_cannot_use_one_name() -> None:
    suite.registered()
    with pytest.raises(ValueError, match="two checks"):
        suite.proof("ceilings: copy bandwidth", seconds=1)(lambda _: Verdict({}))


#: What a file of checks imports -> how that ends, and a part of the reason.
IMPORTS = {
    "import cuml_absent.linear_model\n": ("skipped", "cuML is not installed"),
    "import half_installed\n": ("failed", "No module named 'cuml_absent'"),
    "import broken_package\n": ("failed", "numpy has no row_stack"),
    "from engine.kernels.neighbours import renamed\n": ("failed", "renamed"),
    "import engine.kernels.moved\n": ("failed", "engine.kernels.moved"),
    "import a_package_that_nobody_has\n": ("failed", "a_package_that_nobody_has"),
}


@pytest.mark.parametrize("line", IMPORTS)
def test_a_failed_import_is_a_failure_unless_the_package_is_optional_and_absent(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.gpu import checks

    site = tmp_path / "site"
    site.mkdir()
    (site / "half_installed.py").write_text("import cuml_absent\n")
    (site / "broken_package.py").write_text("raise AttributeError('numpy has no row_stack')\n")
    (tmp_path / "needy.py").write_text(line)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(packages.OPTIONAL, "cuml_absent", "cuML")
    monkeypatch.setattr(checks, "__path__", [str(tmp_path)])
    monkeypatch.setattr(suite, "_CHECKS", {})
    (made,) = suite.registered()
    outcome = attempt(made, Context("cpu", True, tmp_path, time.time() + 60))
    status, reason = IMPORTS[line]
    assert outcome.status == status and reason in outcome.reason
    assert ("needy.py" in outcome.trace) == (status == "failed")


@pytest.mark.parametrize(
    ("content", "status"),
    [(None, "skipped"), ("raise RuntimeError('no libcudart')\n", "failed"), ("", "passed")],
)
def test_a_check_skips_without_its_package_and_fails_with_a_broken_one(
    content: str | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / f"optional_{status}.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(packages.OPTIONAL, f"optional_{status}", "Something")
    check = Check("c", "proof", lambda _: Verdict({}, ok=True), 5, 0, (f"optional_{status}",))
    outcome = attempt(check, Context("cpu", True, tmp_path, time.time() + 60))
    assert outcome.status == status
    assert (
        outcome.reason
        == {
            "skipped": "Something is not installed",
            "failed": "RuntimeError: no libcudart",
            "passed": "",
        }[status]
    )
    assert suite.expected_s(check, False, {}) == (0 if status == "skipped" else 5)


def test_proofs_are_short_and_come_first_ceilings_before_rates() -> None:
    checks = suite.registered()
    proofs = [check for check in checks if check.kind == "proof"]
    rates = [check.name for check in checks if check.kind == "measurement"]
    assert checks[: len(proofs)] == proofs
    assert all(0 < check.seconds <= suite.PROOF_S for check in proofs)
    assert [name.startswith("ceilings:") for name in rates] == [True] * 3 + [False] * (len(rates) - 3)
    assert len({(check.kind, check.rank) for check in checks}) == len(checks), "the order is said, not chance"
    with pytest.raises(ValueError, match="at most 30"):
        suite.proof("too long", seconds=31)(lambda _: Verdict({}))


def test_a_resumed_run_repeats_what_was_skipped_or_failed_and_forgets_no_failure(tmp_path: Path) -> None:
    _results(tmp_path)
    good, late, bad = (_check(name, lambda _: Verdict({}, ok=True)) for name in ("good", "late", "bad"))
    bad = replace(bad, run=lambda _: Verdict({}, ok=False), seconds=0.0)
    slow = replace(late, seconds=500)
    assert work(tmp_path, tmp_path, time.time() + 60, [good, slow, bad], {"late": 400}) == 0
    assert [(o.name, o.status) for o in Results.read(tmp_path).outcomes] == [
        ("good", "passed"),
        ("late", "skipped"),
        ("bad", "failed"),
    ]
    results = Results.begin(tmp_path, "cpu", True, 5, ["--resume"], resume=True)
    assert [check.name for check in results.to_do([good, late, bad])] == ["late", "bad"]
    results.write()
    assert work(tmp_path, tmp_path, time.time() + 60, [good, late, replace(bad, run=_skip)]) == 0
    results = Results.read(tmp_path)
    assert {o.name: (o.status, o.run) for o in results.outcomes} == {
        "good": ("passed", 0),
        "late": ("passed", 1),
        "bad": ("failed", 1),
    }
    assert results.to_do([good, late, bad]) == []
    assert "run | 2 of 2, 5 minutes" in results.markdown()
    with pytest.raises(SystemExit, match="name another folder"):
        Results.begin(tmp_path, "cuda:0", True, 5, [], resume=True)


def _skip(_: Context) -> Verdict:
    raise Skip("no time")


def test_rates_get_the_ceilings_that_were_measured_before_them(tmp_path: Path) -> None:
    def ceiling(_: Context) -> Verdict:
        return Verdict({}, ceilings={UP: 5e9})

    def rate(context: Context) -> Verdict:
        bound = Bound("copy", UP, 1e9, "1 GB")
        return Verdict({}, readings=(context.reading("upload", 0.4, "s", bound),))

    _results(tmp_path)
    checks = [_check("before", rate, "measurement"), _check("c", ceiling, "measurement")]
    assert work(tmp_path, tmp_path, time.time() + 60, [*checks, _check("after", rate, "measurement")]) == 0
    before, _, after = Results.read(tmp_path).outcomes
    assert before.readings[0]["floor"] == "not measured" and UP in before.readings[0]["bound_by"]
    assert (after.readings[0]["floor"], after.readings[0]["share_of_floor"]) == (0.2, 0.5)


def test_the_plan_is_printed_without_a_device_or_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--minutes", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 minutes: ")
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| runs")]
    assert sum(float(line[-1].strip(" |")) for line in lines) <= 120 - START_S
    assert "| left out | measurement | forward rate: resnet50, compiled | 90 |" in printed


def test_distance_sees_exchanged_rows_that_the_plain_cosine_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 10 + torch.randn(8, 64, generator=generator)
    assert distance(truth.clone(), truth)["min_centred_cosine"] == pytest.approx(1, abs=1e-6)
    exchanged = distance(truth.roll(1, 0), truth)
    assert exchanged["min_cosine"] > 0.9 > 0.5 > exchanged["min_centred_cosine"]


def test_same_bits_tells_zeros_apart_and_equates_nan() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(torch.zeros(2), torch.zeros(3))
