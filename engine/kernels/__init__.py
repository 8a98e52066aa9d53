"""Arithmetic: arrays in, arrays out. Kernels know no bank, no model and no file."""
