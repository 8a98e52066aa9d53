"""Evaluations of features, one package each, with one contract.

Every package has frozen `Options`, `evaluate(features, options, compute)` and a frozen `Result`. What they
share is in `common`; `catalogue` lists them.
"""
