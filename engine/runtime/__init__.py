"""Where and how numbers are computed: device, precision, threads and seed.

The only package that names `torch.cuda`. torch is imported when it is needed.
"""

from engine.faults import device_faults
from engine.runtime.copies import count_copies
from engine.runtime.devices import (
    Precision,
    cuda_available,
    describe_devices,
    device_count,
    device_like,
    device_memory,
    device_number,
    fast_bfloat16,
    free_device_bytes,
    peak_device_bytes,
    release_cached,
    toolkit_versions,
    usable_cores,
)
from engine.runtime.flags import (
    autocast,
    exact_flags,
    fix_flags,
    float32_products,
    mixed_precision,
    plain_flags,
    private_generators,
)
from engine.runtime.settings import Runtime
from engine.runtime.streams import (
    DeviceEvent,
    HostCopy,
    Span,
    all_arrived,
    current_stream_handle,
    fetched,
    host_buffer,
    side_stream,
    synchronize,
    to_device,
)
from engine.runtime.uploads import placed, upload, uploaded_blocks

__all__ = [
    "DeviceEvent",
    "HostCopy",
    "Precision",
    "Runtime",
    "Span",
    "all_arrived",
    "autocast",
    "count_copies",
    "cuda_available",
    "current_stream_handle",
    "describe_devices",
    "device_count",
    "device_faults",
    "device_like",
    "device_memory",
    "device_number",
    "exact_flags",
    "fast_bfloat16",
    "fetched",
    "fix_flags",
    "float32_products",
    "free_device_bytes",
    "host_buffer",
    "mixed_precision",
    "peak_device_bytes",
    "placed",
    "plain_flags",
    "private_generators",
    "release_cached",
    "side_stream",
    "synchronize",
    "to_device",
    "toolkit_versions",
    "upload",
    "uploaded_blocks",
    "usable_cores",
]
