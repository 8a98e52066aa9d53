"""The first sentence of the verdict: which model is better, over all comparisons."""

from collections import Counter
from collections.abc import Sequence

from engine.report.page.comparisons import Comparison

#: Models that a sentence names; more are counted.
_NAMED = 4
#: Models that are named behind the leading ones.
_BEHIND = 2


def below_control(one: Comparison) -> str:
    """Return the name of a control that is above the leader; "" where none is."""
    name = one.standings[0].get("below_control") if one.standings else None
    return str(name or "").replace("_", " ")


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    if len(names) > _NAMED:
        return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} others"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def lead(comparisons: Sequence[Comparison]) -> str:
    """Return the sentence.

    Comparisons whose leader is below a control are no evidence, and do not count.
    """
    datasets = list(dict.fromkeys(one.dataset for one in comparisons))
    where = f"On {datasets[0]}" if len(datasets) == 1 else f"Over {len(datasets)} data sets"
    sound = [one for one in comparisons if not below_control(one)]
    if not sound:
        return f"{where}, nothing is evidence for a model: even the leaders are below a control."
    left_out = len(comparisons) - len(sound)
    more = " One more comparison is no evidence: its leader is below a control."
    if left_out > 1:
        more = f" {left_out} more comparisons are no evidence: their leaders are below a control."
    sentence = _of_one(sound[0]) if len(sound) == 1 else _of_several(sound)
    return f"{where}, {sentence}.{more * (left_out > 0)}"


def _of_one(one: Comparison) -> str:
    names = [str(standing.get("model")) for standing in one.standings]
    others = [name for name in names if name not in one.best]
    if not others:
        return "no model is shown to be better than another"
    if len(one.best) == 1:
        rest = others[0] if len(others) == 1 else f"the {len(others)} others"
        return f"{one.best[0]} is better than {rest}"
    return f"{listed(one.best)} cannot be told apart, and are ahead of {listed(others)}"


def _of_several(sound: Sequence[Comparison]) -> str:
    total = len(sound)
    if all(len(one.best) == len(one.standings) for one in sound):
        return (
            f"no model is shown to be better: in none of {total} comparisons can any be told from the leader"
        )
    among = Counter(name for one in sound for name in one.best)
    alone = Counter(one.best[0] for one in sound if len(one.best) == 1)
    order = sorted(among, key=lambda name: (-among[name], -alone[name], name))
    top = among[order[0]], alone[order[0]]
    first = [name for name in order if (among[name], alone[name]) == top]
    behind = "".join(f"; {name} in {among[name]}" for name in order[len(first) :][:_BEHIND])
    if top == (total, total):
        return f"{first[0]} is better than every other model in all {total} comparisons"
    if len(first) == 1 and top[0] == total and top[1]:
        rest = total - top[1]
        others = f"the other {rest}" if rest > 1 else "the other"
        return (
            f"{first[0]} is best supported: better than every other model in {top[1]} of {total} "
            f"comparisons, and not told from the leader in {others}"
        )
    verb = "is" if len(first) == 1 else "are each"
    if top[0] == total:
        return f"{listed(first)} {verb} among the best in all {total} comparisons{behind}"
    return (
        f"no model is best throughout: {listed(first)} {verb} among the best in {top[0]} of {total} "
        f"comparisons{behind}"
    )
