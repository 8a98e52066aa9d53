"""Paired comparison of models from the records of one evaluation on the same images."""
