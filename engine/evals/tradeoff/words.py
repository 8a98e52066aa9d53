"""A choice among models in sentences."""

from collections.abc import Mapping, Sequence

from engine.evals.comparison.options import WORDS
from engine.evals.comparison.words import listed, objects, pair_sentence
from engine.evals.comparison.words import verdict_of as verdict_of_pairs
from stores.json_types import Json, JsonObject


def verdict_of(document: Mapping[str, Json]) -> tuple[str, ...]:
    """Return sentences that say which models to choose among, and what one gains and pays.

    Args:
        document: of `engine.evals.tradeoff.result.ModelChoice.to_dict`.
    """
    models = objects(document["models"])
    members = [model for model in models if model["in_set"]]
    if all(_undefined(model) for model in models):
        reason = document.get("reason")
        return (f"{WORDS[str(document['metric'])]} is undefined for every model: {reason}.",)
    of_pairs = verdict_of_pairs(document)[:1] if len(models) > 1 else ()
    judged = [model for model in models if not model.get("reason")]
    if not judged:
        return ("There is no choice yet: the numbers of no model are evidence.", *of_pairs)
    sentences = (
        *_of_set(members, judged, models),
        *of_pairs,
        *_of_best(judged[0], document),
        *_of_trade(members, document),
        *_of_licences(members),
    )
    return tuple(dict.fromkeys(sentences))


def _of_set(
    members: Sequence[JsonObject], judged: Sequence[JsonObject], models: Sequence[JsonObject]
) -> tuple[str, ...]:
    """Say what the set is, and which models are not judged."""
    names, count = [str(model["model"]) for model in members], len(judged)
    barred = [str(model["model"]) for model in models if model.get("reason")]
    return (_of_judged(names, count, bool(barred)), *_of_barred(barred))


def _of_judged(names: Sequence[str], count: int, barred: bool) -> str:
    if count == 1:
        if barred:
            return f"There is nothing to choose from: {names[0]} is the only model that can be judged."
        return f"There is one model, {names[0]}, and nothing to choose from: embed others into the bank."
    if len(names) == 1:
        others = "the other model" if count == 2 else f"each of the {count - 1} other models"
        return f"Take {names[0]}: it costs no more than {others}, and is better or cheaper."
    if len(names) == count:
        return f"All {count} models are worth a choice: none is replaced by {_another(count)}."
    return (
        f"The choice is among {len(names)} of {count} models: {listed(names)}. Each other one is replaced by "
        "one of these."
    )


def _of_barred(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"Not judged: {listed(names)}, whose numbers are no evidence.",)


def _another(count: int) -> str:
    return "the other" if count == 2 else "another"


def _of_best(best: JsonObject, document: Mapping[str, Json]) -> tuple[str, ...]:
    """Say why the model with the best value is left out: it cannot be told from a cheaper one."""
    if best["in_set"]:
        return ()
    by = [str(name) for name in best["replaced_by"]] if isinstance(best["replaced_by"], list) else []
    return (
        f"{best['model']} is left out all the same: {listed(by)} cannot be told from it on "
        f"{document['units']:,} {document['unit']} and costs less. More images may tell them apart.",
    )


def _of_trade(members: Sequence[JsonObject], document: Mapping[str, Json]) -> tuple[str, ...]:
    """Say what the fastest model of the set costs in the metric, against the best one."""
    rated = [model for model in members if _number(model["img_per_s"])]
    if len(members) < 2 or not rated:
        return ()
    best = members[0]
    fastest = max(rated, key=lambda model: _float(model["img_per_s"]))
    if fastest is best or not _number(best["img_per_s"]):
        return ()
    ratio = _float(fastest["img_per_s"]) / _float(best["img_per_s"])
    pair = next(
        pair
        for pair in objects(document["pairs"])
        if {pair["a"], pair["b"]} == {best["model"], fastest["model"]}
    )
    faster = f"{fastest['model']} encodes {ratio:.1f} times as many images a second as {best['model']}."
    return faster, pair_sentence(pair, document)


def _of_licences(members: Sequence[JsonObject]) -> tuple[str, ...]:
    barred = [str(model["model"]) for model in members if model["commercial_use"] is False]
    unclear = [str(model["model"]) for model in members if model["commercial_use"] is None]
    sentences = []
    if barred:
        sentences.append(f"The licence of {listed(barred)} forbids commercial use.")
    if unclear:
        sentences.append(f"Whether {listed(unclear)} may be used commercially is unclear: read the licence.")
    return tuple(sentences)


def _undefined(model: JsonObject) -> bool:
    return not _number(model["value"])


def _number(value: Json) -> bool:
    return isinstance(value, float | int) and value == value


def _float(value: Json) -> float:
    assert isinstance(value, float | int)
    return float(value)
