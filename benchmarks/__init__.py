"""Measurements: `speed`, injected `faults`, `simulations`, paths on a `gpu`, and the pages of the `paper`."""
