"""Advice for banks whose manifest lacks a column, in messages of several evaluations."""


def name_column(role: str) -> str:
    """Return how a bank gets a column that its manifest lacks: `group`, `split` or `label`."""
    return (
        f"name the column with `embank manifest table --{role} COLUMN` and give that manifest to the bank "
        "with `embank bank relabel`"
    )
