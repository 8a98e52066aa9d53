"""Prototype few-shot classification: episodes of N classes with K support images each."""
