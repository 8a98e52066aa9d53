"""The GPU suite: each path on the device proved against the CPU, then measured. See `suite`."""
