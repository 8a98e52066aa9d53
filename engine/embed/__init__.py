"""Embedding: plan the work, decode, encode and commit it, and restore or repair what an earlier run made."""
