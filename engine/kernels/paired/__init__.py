"""Paired comparison of several models on the same images: tests, bootstrap, ranks; numpy and scipy only."""
