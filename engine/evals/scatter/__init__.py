"""Embeddings in the plane: what a scatter plot of a bank shows."""
