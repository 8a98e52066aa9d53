"""Banks: layout, the writing and reading of features, seals, and the records of runs and evaluations."""
