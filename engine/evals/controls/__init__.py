"""Controls: what an evaluation scores without the model; a model must beat it to mean anything."""
