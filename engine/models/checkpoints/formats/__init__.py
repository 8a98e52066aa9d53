"""Checkpoint formats of other frameworks, read without these."""
