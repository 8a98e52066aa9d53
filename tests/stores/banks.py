"""Small banks for the store tests: those of the fault scripts."""

from benchmarks.faults.banks import *  # noqa: F403
