"""Invariance of features to transforms of an image, and to other views of the same patient or study."""
