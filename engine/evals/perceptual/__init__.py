"""LPIPS of pairs of image files: pairing, rendering, evaluation, result."""
