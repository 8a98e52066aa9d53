"""Linear probes: logistic regression on frozen features, its strength chosen on validation."""
