"""What searches and the audit make the pretended device do does not grow with images, queries or pairs.

The base is uploaded once, in its stored precision, from page-locked memory; the host waits a few times.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.neighbours import audit, knn, search
from engine.evals.neighbours.options import AuditOptions, ClassifyOptions, SearchOptions
from engine.kernels import device_neighbours, vectors
from tests.pretended.streams import Device

DIM = 12
COMPUTE = Compute("cuda:0")


def features(n: int, seed: int = 0) -> Features:
    """Two classes of patients with two images each, half of them for training; every tenth is a copy."""
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(1, 0.6, (n, DIM))).astype(np.float16)
    x[5::10] = x[4::10]
    split = np.where(np.arange(n) // 2 % 2, "test", "train")
    return Features.from_arrays(x, np.arange(n) // 2 % 3, groups=np.arange(n) // 2, splits=split.tolist())


def classify(**options: Any) -> Callable[[Features], Any]:
    return lambda given: knn.evaluate(given, ClassifyOptions(k=(3,), **options), COMPUTE)


EVALUATIONS: dict[str, Callable[[Features], Any]] = {
    "cosine": classify(),
    "euclidean": classify(distance="euclidean"),
    "leave-one-out with patients": classify(leave_one_out=True),
    "search": lambda given: search.evaluate(given, SearchOptions(image_id="4", k=5), COMPUTE),
    "audit": lambda given: audit.evaluate(given, AuditOptions(threshold=0.97), COMPUTE),
}
#: Waits: for the end of the upload and the result and, of undecided queries, two more; or for counts of
#: pairs, pairs and digests.
WAITS = {"audit": 4}


def done(evaluate: Callable[[Features], Any], n: int, device: Device) -> dict[str, int]:
    given = features(n)
    device.ledger.entries.clear()
    evaluate(given)
    ledger = device.ledger
    copies = [entry for entry in ledger.entries if entry.kind != "wait"]
    assert copies and all(entry.pinned for entry in copies), "through page-locked memory"
    base = ledger.size("upload", "engine/runtime/uploads.py:")
    assert given.array.nbytes <= base + DIM * 2 and base <= given.array.nbytes + DIM * 2, "once"
    return {kind: ledger.count(kind) for kind in ("wait", "upload", "download")}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_round_trips_do_not_grow(name: str, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 1)  # 64 rows a block
    monkeypatch.setattr(device_neighbours, "QUERY_ROWS", 32)
    small, large = (done(EVALUATIONS[name], n, device) for n in (120, 480))
    assert small == large
    assert large["wait"] <= WAITS.get(name, 4) and large["download"] <= 15


def test_a_resident_tensor_is_not_uploaded(device: Device) -> None:
    import torch

    given = features(120)
    resident = Features.from_arrays(
        torch.from_numpy(given.array).to("cuda:0"), given.labels.codes, ok=np.ones(120, bool)
    )
    device.ledger.entries.clear()
    found = knn.evaluate(resident, ClassifyOptions(k=(3,), leave_one_out=True), COMPUTE)
    assert device.ledger.size("upload") <= 4 * 120 * 8, "keys and rows alone"
    on_cpu = knn.evaluate(resident, ClassifyOptions(k=(3,), leave_one_out=True), Compute())
    np.testing.assert_array_equal(found.neighbours.rows, on_cpu.neighbours.rows)
    pairs = audit.evaluate(resident, AuditOptions(threshold=0.97), COMPUTE).pairs
    assert len(pairs) >= 12 == len(set(pairs.first[pairs.similarity > 1 - 1e-12]))
