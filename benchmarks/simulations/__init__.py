"""Simulations of what the statistics promise: coverage, false positives."""
