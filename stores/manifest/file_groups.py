"""Groups (patients) that stand in the names of files, found by a regular expression."""

import re
from collections.abc import Sequence

from stores.errors import Refused
from stores.manifest.uri_policy import shown

_EXAMPLE = r"for instance '(?P<group>p[0-9]+)_' for p017 in p017_left.png"


def groups_of(uris: Sequence[str], pattern: str) -> tuple[list[str], str]:
    """Take the group of each image from its uri.

    Args:
        uris: relative to the root; the pattern is searched for anywhere in them.
        pattern: regular expression with one group in parentheses, or one called `group`.

    Returns:
        (the text in the parentheses, empty where the pattern is not found or they take nothing; a sentence on
        how many groups there are, and how many images have none).

    Raises:
        Refused: no such expression, or one that gives no image a group.
    """
    expression = _compiled(pattern)
    name: str | int = "group" if "group" in expression.groupindex else 1
    matches = map(expression.search, uris)
    groups = [(match[name] or "") if match else "" for match in matches]
    without = groups.count("")
    if without == len(groups):
        raise Refused(
            f"group pattern {shown(pattern)}: no group in any of {len(uris)} paths, such as {shown(uris[0])}",
            "It is found in the path of an image below the root, and its parentheses take the group",
            f"correct it, {_EXAMPLE}",
        )
    note = f"{len(set(groups) - {''})} groups among {len(groups) - without} images, by their names"
    if without:
        first = uris[groups.index("")]
        note += f"; {without} images have none (such as {shown(first)}): each counts as a patient of its own"
    return groups, note


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise Refused(
            f"group pattern {shown(pattern)}: {error}",
            "It is a regular expression in Python's syntax",
            f"correct it, {_EXAMPLE}",
        ) from error
    if expression.groups != 1 and "group" not in expression.groupindex:
        raise Refused(
            f"group pattern {shown(pattern)} with {expression.groups or 'no'} parentheses that take text",
            "One pair takes the group, or one is called so: (?P<group>...)",
            f"put the patient's part in parentheses and write others as (?:...), {_EXAMPLE}",
        )
    return expression
