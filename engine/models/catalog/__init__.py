"""What a slug means: weights, architecture, recipe and layer; a model is added by a row."""
