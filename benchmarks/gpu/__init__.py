"""The GPU suite: every path on the device is verified against the CPU, then measured. See `suite`."""
