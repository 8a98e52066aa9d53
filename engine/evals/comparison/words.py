"""A comparison in sentences."""

from collections.abc import Mapping, Sequence

from engine.evals.comparison.options import SMALLER_IS_BETTER, WORDS
from stores.json_types import Json, JsonObject

#: Models that a sentence names; more are counted.
_NAMED = 4


def verdict_of(document: Mapping[str, Json]) -> tuple[str, ...]:
    """Return sentences that say which model is better, by how much, and whether that is real.

    Args:
        document: of `engine.evals.comparison.result.Comparison.to_dict`.
    """
    models, pairs = objects(document["models"]), objects(document["pairs"])
    best = [str(name) for name in _list(document["best"])]
    if not best:
        return (f"{_word(document)} is undefined for every model: {document.get('reason')}.",)
    if len(models) == 2:
        return (pair_sentence(pairs[0], document),)
    word = _word(document)
    if len(best) == 1:
        first = f"{best[0]} has the best {word} of {len(models)} models, and can be told from all others."
    elif len(best) == len(models):
        first = f"None of the {len(models)} models can be told from the one with the best {word}, {best[0]}."
    else:
        first = (
            f"{best[0]} has the best {word} of {len(models)} models; {listed(best[1:])} cannot be told "
            "from it."
        )
    second = next((pair for pair in pairs if pair["a"] == best[0] and pair["b"] not in best), None)
    closest = second or pairs[0]
    return first, pair_sentence(closest, document)


def pair_sentence(pair: JsonObject, document: Mapping[str, Json]) -> str:
    """Return a sentence on two models: which is better, by how much, and whether that is real.

    Args:
        pair: of the document's `pairs`.
        document: of a comparison; its metric, images, units and number of tests are read.
    """
    word, over = _word(document), f"{document['units']:,} {document['unit']}"
    difference, p = pair["difference"], pair["p_holm"]
    if not isinstance(difference, float) or difference != difference:
        reason = pair.get("reason") or document.get("reason")
        return f"{pair['a']} and {pair['b']} cannot be compared: {reason}."
    low, high = pair["low"], pair["high"]
    flipped = document["metric"] in SMALLER_IS_BETTER
    if flipped:
        difference = -difference
        low, high = _negative(high), _negative(low)
    within = f"95 % interval {_bounds(low, high)} over {over}" if _number(low) else f"no interval over {over}"
    adjusted = "Holm p" if isinstance(document["tests"], int) and document["tests"] > 1 else "p"
    tested = f"{adjusted} {_p(p)}" if _number(p) else f"no p value: {pair.get('reason')}"
    if pair["different"]:
        return f"{pair['a']} is better than {pair['b']} by {difference:.3f} {word} ({within}, {tested})."
    return (
        f"{pair['a']} and {pair['b']} cannot be told apart: their {word} differs by {difference:.3f} "
        f"({within}, {tested})."
    )


def _word(document: Mapping[str, Json]) -> str:
    return WORDS[str(document["metric"])]


def _number(value: Json) -> bool:
    return isinstance(value, float | int) and value == value


def _negative(value: Json) -> Json:
    return -value if isinstance(value, float) else value


def _bounds(low: Json, high: Json) -> str:
    return f"{low:.3f} to {high:.3f}"


def _p(value: Json) -> str:
    assert isinstance(value, float | int)
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence; of many the first few, and how many others."""
    if len(names) > _NAMED:
        return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} others"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def objects(value: Json) -> list[JsonObject]:
    """Return the objects of a list."""
    return [item for item in _list(value) if isinstance(item, dict)]
