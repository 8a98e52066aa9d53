"""Nearest neighbours: k-NN classification, search by example, and the audit for near-duplicates and leaks."""
