"""The GPU suite's proofs on the pretended device, at tiny sizes: decoding, bank and evaluations.

Each proof compares with float32 on the CPU, within the limits that hold on a real device.
"""

import time
from pathlib import Path

import pytest

from benchmarks.gpu import suite
from benchmarks.gpu.suite import Context, attempt
from tests.pretended.streams import Device

pytestmark = pytest.mark.slow

#: Parts of names of proofs that need more than torch: DALI, a compiler, another process, cuML, FAISS, kvikio;
#: of those with backward passes, which torch queues for devices of a driver; and of those about the bits of
#: cuDNN's arithmetic, of which a pretended device says nothing.
_BEYOND = (
    *("DALI", "compiled", "killed", "dask", "cuML", "FAISS", "kvikio", "finetune:"),
    *("row's bits", "the same bits", "bit-identical", "batch size"),
)
#: What the `gpu` tests of encoders, probes, saliency and LPIPS do on the pretended device in less time.
_TWINS = ("encode:", "probe:", "saliency:", "perceptual:")
#: What needs gradients, which the pretended device has not.
_GRADIENTS = ("reconstruction:",)
PROOFS = [
    check
    for check in suite.registered()
    if check.kind == "proof" and not any(word in check.name for word in (*_BEYOND, *_TWINS, *_GRADIENTS))
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def test_the_proofs_cover_decoding_the_bank_and_evaluations() -> None:
    names = {check.name.partition(":")[0] for check in PROOFS}
    assert {"decode", "bank", "few-shot", "k-NN", "invariance"} <= names


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.name)
def test_proof(check: suite.Check, work: Path, device: Device) -> None:
    outcome = attempt(check, Context("cuda:0", True, work, time.time() + 3600))
    if outcome.status == "skipped":
        pytest.skip(outcome.reason)
    assert (outcome.status, outcome.reason) == ("passed", ""), outcome.trace or outcome.numbers
    assert device.ledger.size("upload") > 0 or device.ledger.count("wait") > 0, "something ran on the device"


@pytest.mark.parametrize("subject", ["few-shot", "k-NN"])
def test_a_faiss_of_the_cpu_is_no_failure(subject: str, work: Path, device: Device) -> None:
    if hasattr(pytest.importorskip("faiss"), "StandardGpuResources"):
        pytest.skip("FAISS with GPU support")
    check = next(c for c in suite.registered() if c.name.startswith(f"{subject}: FAISS"))
    outcome = attempt(check, Context("cuda:0", True, work, time.time() + 3600))
    assert (outcome.status, outcome.reason) == ("skipped", "FAISS is built for the CPU alone here")
