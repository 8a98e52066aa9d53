"""The GPU suite: every path on the device is verified against the CPU, then measured.

`suite` has the checks, `packing` chooses those that fit into the time, `floors` puts rates beside what the
machine allows, `targets` has the targets, `packages` what checks can do without. `docs/how-to/docker-gpu.md`
describes a visit of fifteen minutes to a GPU.
"""
