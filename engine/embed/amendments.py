"""Rules for deep images that features are given once they are made (`Recipe.deep`).

A feature's rules are recorded in its provenance. They only give embeddings to rows that had none, so its key
does not change; rules may be added but never changed, so that one and the same rule made every such row.
"""

from collections.abc import Sequence
from dataclasses import replace

from engine.errors import BankError, Refused
from engine.models import ModelSpec
from stores.bank.reader import Bank
from stores.bank.seal import definition
from stores.bank.writer import FeatureWriter
from stores.json_types import JsonObject

#: Member of the provenance with rules that have not been tried on all rows yet.
_UNDER_WAY = "amending"


def amended(spec: ModelSpec, bank: Bank | None, feature: str) -> ModelSpec:
    """Return the model with the rules of its feature, including any that the model was not given.

    Args:
        bank: None if there is none yet.
        feature: full name, in the bank or to be.

    Raises:
        Refused: the model's rules would change the feature's.
    """
    if bank is None or definition(bank.path, feature) is None:
        return spec
    return _with(spec, _rules(_recorded(bank, feature)), bank.title(feature))


def begin(writer: FeatureWriter, spec: ModelSpec) -> bool:
    """Record the rules of a model with its feature, before any row is made by them.

    Returns:
        Whether rows may be left that failed before there were these rules.

    Raises:
        Refused: another process has given the feature other rules.
    """
    body = _recorded(writer.bank, writer.key.name)
    if not body:  # lost, or not written yet: it is unknown which rules the rows have been tried with
        return bool(spec.recipe.deep)
    _with(spec, _rules(body), writer.key.name)
    if len(spec.recipe.deep) > len(_rules(body)):
        body = {**body, "recipe": {**_recipe(body), "deep": list(spec.recipe.deep)}, _UNDER_WAY: True}
        writer.write_provenance(body)
    return bool(body.get(_UNDER_WAY))


def end(writer: FeatureWriter) -> None:
    """Note that all rows have been tried with the feature's rules."""
    body = _recorded(writer.bank, writer.key.name)
    if body.pop(_UNDER_WAY, False):
        writer.write_provenance(body)


def _recorded(bank: Bank, feature: str) -> JsonObject:
    """Read a feature's provenance; empty if it has none that is undamaged."""
    try:
        body = bank.provenance(feature)
    except BankError:
        return {}
    return body if isinstance(body.get("recipe"), dict) else {}


def _recipe(body: JsonObject) -> JsonObject:
    recipe = body.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def _rules(body: JsonObject) -> tuple[str, ...]:
    rules = _recipe(body).get("deep")
    return tuple(map(str, rules)) if isinstance(rules, list) else ()


def _with(spec: ModelSpec, recorded: Sequence[str], title: str) -> ModelSpec:
    wanted, recorded = spec.recipe.deep, tuple(recorded)
    if wanted[: len(recorded)] == recorded:
        return spec
    if recorded[: len(wanted)] == wanted:
        return replace(spec, recipe=replace(spec.recipe, deep=recorded))
    both = [*recorded, *(word for word in wanted if word not in recorded)]
    raise Refused(
        f"{in_words(wanted)} for {title}, whose deep images are shown by {in_words(recorded)}",
        "Rules may be added to a feature's, and none is changed, since rows were made by them",
        f"give {in_words(both)}, which tries the last on what the first do not show; or give --depth instead "
        "of --deep, for features of another key",
    )


def in_words(rules: Sequence[str]) -> str:
    """Write rules as options of `embank embed`."""
    return " ".join(f"--deep {word}" for word in rules)
