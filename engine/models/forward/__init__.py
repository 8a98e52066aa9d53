"""Forward passes: the encoder, its faster equivalents, and the plain model that they are compared with."""
