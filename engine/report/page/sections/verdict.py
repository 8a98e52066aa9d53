"""The verdict: which model is better, whether that is real, and what stands against believing it."""

from collections import Counter
from collections.abc import Collection, Sequence

from engine.report.page.blocks import Paragraph
from engine.report.page.comparisons import Comparison, Pair, comparisons_of
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.numbers import bounds, decimal, finite, p_value
from engine.report.page.results import CLASSIFYING, Result, models_of, results_of
from engine.report.page.sections.lead import LEAKS, below_control, codes_of, lead, listed, no_evidence

#: Fewer patients or images than this are said to be few.
_FEW = 200
#: Comparisons that are put into sentences, and how many if there are more: all have a section of their own.
_SENTENCES, _OF_MANY = 5, 3
#: Models that a sentence names; more are counted.
_NAMED = 4


def verdict(page: PageInput, options: PageOptions) -> tuple[Paragraph, ...]:
    """Return the sentences, the most important first."""
    results = results_of(page)
    comparisons = [one for one in comparisons_of(page) if one.best]
    if not comparisons:
        return (Paragraph(_nothing(page, results)), *_gaps(page))
    leading = [one for one in comparisons if one.mode == "default"] or comparisons
    shown = len(leading) if len(leading) <= _SENTENCES else _OF_MANY
    more = [_paragraph(one, page, results) for one in leading[:shown]]
    if shown < len(leading):
        more.append(Paragraph(f"{len(leading) - shown} further comparisons follow below."))
    return (Paragraph(lead(leading, results)), *more, *_doubts(leading, shown, results), *_gaps(page))


def _nothing(page: PageInput, results: Sequence[Result]) -> str:
    own = [one for one in results if one.kind in CLASSIFYING]
    models = models_of(page, own)
    if not models:
        readable = " that can be read" if any(gap.state == "failed" for gap in page.gaps) else ""
        return (
            f"No record{readable} says how well a model tells classes apart: there is nothing to compare. "
            "`embank fewshot`, `knn`, `probe` and `finetune` make such records."
        )
    if len(models) == 1:
        return (
            f"There are results of one model, {models[0]}: whether another is better is not known. To "
            "compare it, evaluate a second model in the same way."
        )
    return (
        f"There are results of {len(models)} models, but no comparison of two on the same images: none is "
        "shown to be better."
    )


def _sentence(one: Comparison, page: PageInput) -> str:
    """Say what came out of one comparison."""
    head = (
        f"{one.dataset}, {one.task}"
        if len({source.name for source in page.sources}) > 1
        else _capital(one.task)
    )
    head += f" ({one.word}{', as published' if one.mode != 'default' else ''})"
    best, count = one.best, len(one.standings)
    if count == 2:
        return f"{head}: {_of_pair(one.pairs[0], one)}" if one.pairs else f"{head}: nothing to compare."
    if len(best) == count:
        behind = _behind(one, -1, "even the last")
        return f"{head}: no model can be told from the leader, {best[0]}, {_value(one)}{behind}."
    if len(best) == 1:
        return f"{head}: {best[0]} is the best of {count}, {_value(one)}{_behind(one, 1, 'the next')}."
    return (
        f"{head}: {best[0]}, {_value(one)}, and {listed(best[1:])} cannot be told apart"
        f"{_behind(one, len(best), 'the next')}."
    )


def _paragraph(one: Comparison, page: PageInput, results: Sequence[Result]) -> Paragraph:
    reason = no_evidence(one, results)
    if reason:
        return Paragraph(f"{_sentence(one, page)} This is no evidence: {reason}.", "error")
    return Paragraph(_sentence(one, page))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _value(one: Comparison) -> str:
    first = one.standings[0]
    low, high = finite(first.get("low")), finite(first.get("high"))
    within = f" ({bounds(low, high)})" if low is not None else ""
    return f"{decimal(finite(first.get('value')))}{within}"


def _behind(one: Comparison, place: int, which: str) -> str:
    """Say by how much a model is behind the leader."""
    if place >= 0:  # of those that can be told from the leader, the best
        names = [str(standing.get("model")) for standing in one.standings]
        name = next((name for name in names if name not in one.best), "")
    else:
        name = str(one.standings[place].get("model"))
    pair = one.pair(one.best[0], name)
    if pair is None or pair.difference is None:
        return ""
    return f"; {which}, {name}, is behind by {_by(pair, one)}"


def _of_pair(pair: Pair, one: Comparison) -> str:
    if pair.difference is None:
        return f"{pair.better} and {pair.worse} cannot be compared: {pair.reason or 'undefined'}."
    if pair.different:
        return f"{pair.better}, {_value(one)}, is better than {pair.worse} by {_by(pair, one)}."
    return f"{pair.better} and {pair.worse} cannot be told apart: they differ by {_by(pair, one)}."


def _by(pair: Pair, one: Comparison) -> str:
    within = f"95\u00a0% interval {bounds(pair.low, pair.high)}" if pair.low is not None else "no interval"
    adjusted = "Holm-adjusted " if len(one.pairs) > 1 and pair.p_holm is not None else ""
    over = f"{one.units:,} {one.unit}"
    return f"{decimal(pair.difference)} ({within} over {over}, {adjusted}{p_value(pair.p_holm)})"


def _doubts(comparisons: Sequence[Comparison], shown: int, results: Sequence[Result]) -> list[Paragraph]:
    """Say what stands against believing it: controls, problems, few images, untrained networks.

    Args:
        shown: comparisons with a sentence of their own, which says whether they are evidence.
    """
    return [
        *(_controls(comparisons) if shown < len(comparisons) else ()),
        *_problems(comparisons, results, () if shown < len(comparisons) else LEAKS),
        *_few(comparisons),
        *_untrained(comparisons),
    ]


def _controls(comparisons: Sequence[Comparison]) -> list[Paragraph]:
    below = [one for one in comparisons if below_control(one)]
    if not below:
        return []
    names = [
        f"{one.best[0]} ({one.dataset}, {one.task}) is below {below_control(one)}" for one in below[:_NAMED]
    ]
    more = f", and so on in {len(below) - _NAMED} more" if len(below) > _NAMED else ""
    text = (
        f"In {len(below)} of {len(comparisons)} comparisons even the leading model is below a control: "
        f"{'; '.join(names)}{more}. There the ranking is no evidence for any model."
    )
    return [Paragraph(text, "error")]


def _problems(
    comparisons: Sequence[Comparison], results: Sequence[Result], said: Collection[str]
) -> list[Paragraph]:
    """Say that compared results have problems other than controls, and that leaders are not told from one.

    Args:
        said: codes that the sentences of the comparisons say.
    """
    compared = [
        one for one in results if any(c.dataset == one.dataset and c.has(one.entry) for c in comparisons)
    ]
    codes = Counter(
        code for one in compared for code in codes_of(one, "error") if code not in ("below_control", *said)
    )
    paragraphs = []
    if codes:
        words = ", ".join(f"{code.replace('_', ' ')} ({count})" for code, count in codes.most_common())
        text = f"Some of the numbers compared are no evidence: {words}. See below what that means."
        paragraphs.append(Paragraph(text, "error"))
    leaders = [
        one
        for one in compared
        if any(c.has(one.entry) and c.best[0] == one.model for c in comparisons)
        and "not_told_from_control" in codes_of(one, "warning")
    ]
    if leaders:
        names = listed([f"{one.model} ({one.dataset}, {one.protocol})" for one in leaders])
        text = f"Not shown to be better than a control, e.g. image statistics, though it leads: {names}."
        paragraphs.append(Paragraph(text, "warning"))
    return paragraphs


def _few(comparisons: Sequence[Comparison]) -> list[Paragraph]:
    """Say that there are few images, and what difference would go unseen."""
    few = [one for one in comparisons if 0 < one.units < _FEW]
    if not few:
        return []
    fewest = min(few, key=lambda one: one.units)
    halves = sorted((p.high - p.low) / 2 for p in fewest.pairs if p.low is not None and p.high is not None)
    hidden = (
        f" A difference of less than about {halves[len(halves) // 2]:.2f} {fewest.word} would go unseen."
        if halves
        else ""
    )
    where = f" ({fewest.dataset}, {fewest.task})" if len(few) > 1 else ""
    return [Paragraph(f"Few {fewest.unit}: {fewest.units:,} decide{where}.{hidden}", "warning")]


def _untrained(comparisons: Sequence[Comparison]) -> list[Paragraph]:
    """Say that a leading model is an untrained network, which is a control."""
    leaders = dict.fromkeys(
        one.best[0] for one in comparisons if one.best[0].startswith(("random/", "random-"))
    )
    if not leaders:
        return []
    verb = "is an untrained network" if len(leaders) == 1 else "are untrained networks"
    text = f"{listed(list(leaders))} {verb}. Where one leads, pretraining has not been shown to help."
    return [Paragraph(text, "warning")]


def _gaps(page: PageInput) -> list[Paragraph]:
    open_cells = sum(gap.state in ("failed", "missing") for gap in page.gaps)
    if not open_cells:
        return []
    return [
        Paragraph(
            f"{open_cells:,} result{'s are' if open_cells > 1 else ' is'} missing or failed: the verdict "
            "covers the others.",
            "warning",
        )
    ]
