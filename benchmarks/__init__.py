"""Measurements: throughput (`speed`), injected faults (`faults`) and the paths on a GPU (`gpu`)."""
