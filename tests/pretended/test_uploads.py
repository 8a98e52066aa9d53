"""What uploads make the pretended device do: page-locked memory, and no wait but for a buffer's reuse."""

import numpy as np

from engine.runtime.uploads import uploaded_blocks
from tests.pretended.streams import Device


def test_an_upload_uses_pinned_memory_and_waits_for_its_buffers_alone(device: Device) -> None:
    array = np.random.default_rng(0).standard_normal((23, 5)).astype(np.float16)
    for _ in uploaded_blocks(array, "cuda:0", 4):
        pass
    copies = [entry for entry in device.ledger.entries if entry.kind == "upload"]
    assert len(copies) == 6 and all(copy.pinned for copy in copies)
    assert [entry.cause for entry in device.ledger.entries if entry.kind == "wait"] == ["event"] * 4
