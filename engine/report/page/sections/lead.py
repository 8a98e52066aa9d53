"""The first sentence of the verdict: which model is better, over all comparisons that are evidence."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from engine.report.page.comparisons import Comparison
from engine.report.page.results import Result

#: Models that a sentence names; more are counted.
_NAMED = 4
#: Models that are named behind the leading ones.
_BEHIND = 2


def below_control(one: Comparison) -> str:
    """Return the name of a control that is above the leader; "" where none is."""
    name = one.standings[0].get("below_control") if one.standings else None
    return str(name or "").replace("_", " ")


#: Code of a validity issue that flatters all models of a comparison, each in its own way -> what it says.
LEAKS: Mapping[str, str] = {
    "patients_across_parts": "some patients are in both the training and the test images",
    "duplicates_across_parts": "some images are in both the training and the test set",
}


def codes_of(one: Result, severity: str) -> set[str]:
    """Return the codes of a result's validity issues, without those of other banks and single findings."""
    issues = [issue for issue in one.record.validity or [] if isinstance(issue, dict)]
    return {str(i.get("code")) for i in issues if i.get("severity") == severity and not i.get("subject")}


def no_evidence(one: Comparison, results: Iterable[Result]) -> str:
    """Return why a comparison is no evidence for its leader; "" if it is.

    It is none where something leaks into the test of any of its models, and where the number of the leader
    is none itself, e.g. below a control.
    """
    if control := below_control(one):
        return f"the leader is below a control, {control}"
    own = [result for result in results if result.dataset == one.dataset and one.has(result.entry)]
    for code, words in LEAKS.items():
        if any(code in codes_of(result, "error") for result in own):
            return words
    leading = [result for result in own if result.model == one.best[0]]
    codes = sorted({code for result in leading for code in codes_of(result, "error")} - {"below_control"})
    return f"the leader's number is not to be trusted: {codes[0].replace('_', ' ')}" if codes else ""


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    if len(names) > _NAMED:
        return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} others"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def lead(comparisons: Sequence[Comparison], results: Sequence[Result]) -> str:
    """Return the sentence; comparisons that are no evidence do not count.

    Args:
        results: that were compared, and others.
    """
    reasons = [no_evidence(one, results) for one in comparisons]
    sound = [one for one, reason in zip(comparisons, reasons, strict=True) if not reason]
    datasets = list(dict.fromkeys(one.dataset for one in sound or comparisons))
    where = f"On {datasets[0]}" if len(datasets) == 1 else f"Over {len(datasets)} data sets"
    against = list(dict.fromkeys(reason for reason in reasons if reason))
    if not sound:
        return f"{where}, nothing is evidence for a model: {_joined(against)}."
    sentence = _of_one(sound[0]) if len(sound) == 1 else _of_several(sound)
    return f"{where}, {sentence}.{_left_out(len(comparisons) - len(sound), against)}"


def _left_out(count: int, against: Sequence[str]) -> str:
    if not count:
        return ""
    what = "One more comparison is" if count == 1 else f"{count} more comparisons are"
    return f" {what} no evidence: {_joined(against)}."


def _joined(reasons: Sequence[str]) -> str:
    return reasons[0] if len(reasons) == 1 else f"{', '.join(reasons[:-1])}; or {reasons[-1]}"


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
