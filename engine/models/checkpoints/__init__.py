"""Weights as files: downloaded, checked, read without running code, and fitted to an architecture exactly."""
