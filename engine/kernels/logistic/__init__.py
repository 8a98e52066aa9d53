"""Logistic regression for many regularisation values, classes and targets at once; start with `solver`."""
