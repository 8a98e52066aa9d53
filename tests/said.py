"""Sentences of the validity issues of a result or a report."""

from typing import Any


def said(of: Any) -> list[str]:
    """Return the sentence of each issue of a result, or of a report or document that has `validity`."""
    if isinstance(of, dict):
        return [one["sentence"] for one in of["validity"]]
    return [one.sentence for one in of.validity]


def codes(of: Any) -> list[str]:
    """Return the code of each issue, as `said`."""
    if isinstance(of, dict):
        return [one["code"] for one in of["validity"]]
    return [one.code for one in of.validity]
