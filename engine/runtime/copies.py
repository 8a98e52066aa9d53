"""Bytes copied between host and device, as the profiler counts them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def count_copies(device: str) -> Iterator[dict[str, int]]:
    """Count the bytes copied between host and device by any library of this process while the body runs.

    Yields:
        A dictionary, filled at the end: bytes `to_device` and `to_host`, and number of `copies`. Empty on the
        CPU, or if the profiler sees no copies (no permission, no CUPTI).
    """
    counted: dict[str, int] = {}
    if not device.startswith("cuda"):
        yield counted
        return
    import tempfile  # here, because it would slow down every start

    import torch

    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        yield counted
        torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    # The trace is the only output of the profiler that contains bytes.
    copies = [e for e in events if e.get("cat") == "gpu_memcpy"]
    for name, key in (("HtoD", "to_device"), ("DtoH", "to_host")):
        sizes = [int(e.get("args", {}).get("bytes", 0)) for e in copies if name in e.get("name", "")]
        if copies:
            counted[key] = sum(sizes)
    if copies:
        counted["copies"] = len(copies)
