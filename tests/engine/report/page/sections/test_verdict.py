"""The verdict: which model is better, what cannot be told apart, and what stands against believing it."""

from dataclasses import replace

import pytest

from engine.report.page.inputs import Gap, PageInput, PageOptions
from engine.report.page.sections.verdict import verdict
from tests.page_records import comparison, fewshot, issue, page, probe

OPTIONS = PageOptions()


def sentences(given: PageInput) -> list[str]:
    return [one.text.replace("\u00a0", " ") for one in verdict(given, OPTIONS)]


def two(different: bool, **parts: object) -> PageInput:
    entries = [probe("densenet", 0.9), probe("vgg", 0.7)]
    best = ["densenet"] if different else ["densenet", "vgg"]
    pair = ("densenet", "vgg", 0.2, 0.1 if different else -0.1, 0.3, 0.0004 if different else 0.4, different)
    return page(*entries, comparison(entries, [0.9, 0.7], best, [pair], **parts))  # type: ignore[arg-type]


def test_a_better_model_is_named_with_its_lead() -> None:
    first, second, *more = sentences(two(True))
    assert first == "On xrays, densenet is better than vgg."
    assert second == (
        "Linear probe (balanced accuracy): densenet, 0.900 (0.800–1.000), is better than vgg by 0.200 "
        "(95 % interval 0.100–0.300 over 500 patients, p < 0.001)."
    )
    assert not more


def test_models_that_cannot_be_told_apart_are_said_to_be_so() -> None:
    first, second, *more = sentences(two(False))
    assert first == "On xrays, no model is shown to be better than another."
    assert second == (
        "Linear probe (balanced accuracy): densenet and vgg cannot be told apart: they differ by 0.200 "
        "(95 % interval −0.100 to 0.300 over 500 patients, p = 0.400)."
    )
    assert not more


def test_of_three_those_ahead_and_the_next_are_named() -> None:
    entries = [probe("a", 0.9), probe("b", 0.88), probe("c", 0.6)]
    pairs = [
        ("a", "b", 0.02, -0.1, 0.1, 0.5, False),
        ("a", "c", 0.3, 0.2, 0.4, 0.001, True),
        ("b", "c", 0.28, 0.1, 0.4, 0.01, True),
    ]
    first, second = sentences(page(*entries, comparison(entries, [0.9, 0.88, 0.6], ["a", "b"], pairs)))
    assert first == "On xrays, a and b cannot be told apart, and are ahead of c."
    assert "a, 0.900 (0.800–1.000), and b cannot be told apart; the next, c, is behind by 0.300" in second
    assert "(95 % interval 0.200–0.400 over 500 patients, Holm-adjusted p = 0.001)" in second
    first, second = sentences(page(*entries, comparison(entries, [0.9, 0.88, 0.6], ["a"], pairs)))
    assert first == "On xrays, a is better than the 2 others."
    assert "a is the best of 3, 0.900" in second and "the next, b, is behind by 0.020" in second


def test_a_smaller_log_loss_is_better() -> None:
    entries = [probe("good", 0.9), probe("bad", 0.9)]
    pair = ("good", "bad", -0.2, -0.3, -0.1, 0.001, True)
    own = comparison(entries, [0.4, 0.6], ["good"], [pair], metric="log_loss")
    assert (
        "good, 0.400 (0.300–0.500), is better than bad by 0.200 (95 % interval 0.100–0.300"
        in (sentences(page(*entries, own))[1])
    )


def test_several_data_sets_are_summed_up() -> None:
    clear, open_ = two(True).sources[0], two(False).sources[0]
    sources = (replace(clear, name="one"), replace(clear, name="two"), replace(open_, name="three"))
    first, *rest = sentences(PageInput("all", sources))
    assert first == (
        "Over 3 data sets, densenet is best supported: better than every other model in 2 of 3 comparisons, "
        "and not told from the leader in the other."
    )
    assert [one.partition(",")[0] for one in rest] == ["one", "two", "three"]
    first, *_ = sentences(PageInput("all", sources[:2]))
    assert first == "Over 2 data sets, densenet is better than every other model in all 2 comparisons."
    first, *_ = sentences(PageInput("all", (sources[2], replace(sources[2], name="four"))))
    assert first == (
        "Over 2 data sets, no model is shown to be better: in none of 2 comparisons can any be told from the "
        "leader."
    )


def test_models_that_win_here_and_there_are_no_best_throughout() -> None:
    entries = [probe("vgg", 0.9), probe("densenet", 0.7)]
    own = comparison(entries, [0.9, 0.7], ["vgg"], [("vgg", "densenet", 0.2, 0.1, 0.3, 0.001, True)])
    other = page(*entries, own, name="two").sources[0]
    first, *_ = sentences(PageInput("all", (two(True).sources[0], other)))
    assert first == (
        "Over 2 data sets, no model is best throughout: densenet and vgg are each among the best in 1 of 2 "
        "comparisons."
    )


def test_a_leader_below_a_control_is_no_evidence() -> None:
    first, second = verdict(two(True, below="image_statistics"), OPTIONS)
    reason = "the leader is below a control, image statistics."
    assert first.text == f"On xrays, nothing is evidence for a model: {reason}"
    assert second.text.endswith(f"This is no evidence: {reason}")
    assert second.tone == "error"


def test_leaders_below_controls_are_counted_where_not_all_have_a_sentence() -> None:
    own = two(True, below="image_statistics").sources[0]
    many = PageInput("all", tuple(replace(own, name=f"set {number}") for number in range(6)))
    assert any("In 6 of 6 comparisons even the leading model is below" in one for one in sentences(many))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("patients_across_parts", "some patients are in both the training and the test images"),
        ("duplicates_across_parts", "some images are in both the training and the test set"),
    ],
)
def test_a_winner_of_a_test_that_leaks_is_not_called_better(code: str, reason: str) -> None:
    """Also where the leak is in the record of another model than the winner."""
    entries = [probe("densenet", 0.9), probe("vgg", 0.7, validity=[issue(code, "error")])]
    own = comparison(entries, [0.9, 0.7], ["densenet"], [("densenet", "vgg", 0.2, 0.1, 0.3, 0.001, True)])
    first, second, *_ = sentences(page(*entries, own))
    assert first == f"On xrays, nothing is evidence for a model: {reason}."
    assert second.endswith(f"This is no evidence: {reason}.")


def test_only_the_leaders_other_problems_count() -> None:
    pair = ("densenet", "vgg", 0.2, 0.1, 0.3, 0.001, True)
    grave = [issue("constant_classifier", "error")]
    entries = [probe("densenet", 0.9), probe("vgg", 0.7, validity=grave)]
    first, *_ = sentences(page(*entries, comparison(entries, [0.9, 0.7], ["densenet"], [pair])))
    assert first == "On xrays, densenet is better than vgg."
    entries = [probe("densenet", 0.9, validity=grave), probe("vgg", 0.7)]
    first, *_ = sentences(page(*entries, comparison(entries, [0.9, 0.7], ["densenet"], [pair])))
    assert first.endswith("the leader's number is not to be trusted: constant classifier.")
    other = [{**issue("patients_across_parts", "error"), "subject": "other.bank"}]
    entries = [probe("densenet", 0.9, validity=other), probe("vgg", 0.7)]
    first, *_ = sentences(page(*entries, comparison(entries, [0.9, 0.7], ["densenet"], [pair])))
    assert first == "On xrays, densenet is better than vgg."


def test_a_comparison_without_evidence_stands_beside_a_sound_one() -> None:
    sound, leaking = two(True), two(False, below="chance")
    sources = (replace(sound.sources[0], name="one"), replace(leaking.sources[0], name="two"))
    first, *_ = sentences(PageInput("all", sources))
    assert first == (
        "On one, densenet is better than vgg. One more comparison is no evidence: the leader is "
        "below a control, chance."
    )


def test_a_leader_that_is_not_told_from_a_control_is_doubted() -> None:
    entries = [
        probe("densenet", 0.9, validity=[issue("not_told_from_control", "warning")]),
        probe("vgg", 0.7),
    ]
    own = comparison(entries, [0.9, 0.7], ["densenet"], [("densenet", "vgg", 0.2, 0.1, 0.3, 0.001, True)])
    doubts = [one.text for one in verdict(page(*entries, own), OPTIONS) if one.tone == "warning"]
    assert doubts == [
        "Not shown to be better than a control, e.g. image statistics, though it leads: densenet (xrays, "
        "linear probe)."
    ]


def test_problems_of_what_was_compared_are_said_once() -> None:
    grave = [issue("constant_classifier", "error"), issue("patients_across_parts", "error")]
    entries = [probe("densenet", 0.9), probe("vgg", 0.7, validity=grave)]
    own = comparison(entries, [0.9, 0.7], ["densenet"], [("densenet", "vgg", 0.2, 0.1, 0.3, 0.001, True)])
    sentence, doubt = [one.text for one in verdict(page(*entries, own), OPTIONS) if one.tone == "error"]
    assert "some patients are in both" in sentence
    assert doubt.startswith("Some of the numbers compared are no evidence: constant classifier (1).")
    own_page = page(*entries, own).sources[0]
    many = PageInput("all", tuple(replace(own_page, name=f"set {number}") for number in range(6)))
    assert (
        "patients across parts (6)" in [one.text for one in verdict(many, OPTIONS) if one.tone == "error"][-1]
    )


def test_few_images_hide_differences() -> None:
    (doubt,) = [one.text for one in verdict(two(False, units=24), OPTIONS) if one.tone == "warning"]
    assert (
        doubt
        == "Few patients: 24 decide. A difference of less than about 0.20 balanced accuracy would go unseen."
    )
    assert not [one for one in verdict(two(False, units=200), OPTIONS) if one.tone]


def test_modes_are_not_mixed() -> None:
    """A comparison of the published protocol speaks only where there is no other."""
    default = two(False).sources[0]
    entries = [probe("densenet", 0.9, mode="as-published"), probe("vgg", 0.7, mode="as-published")]
    pair = ("densenet", "vgg", 0.2, 0.1, 0.3, 0.001, True)
    own = comparison(entries, [0.9, 0.7], ["densenet"], [pair], mode="as-published")
    both = PageInput("p", (replace(default, entries=(*default.entries, *entries, own)),))
    assert sentences(both) == sentences(two(False))
    assert "as published" in sentences(page(*entries, own))[1]


def test_without_a_comparison_nothing_is_claimed_and_what_to_do_is_said() -> None:
    assert sentences(page()) == [
        "No record says how well a model tells classes apart: there is nothing to compare. `embank fewshot`, "
        "`knn`, `probe` and `finetune` make such records."
    ]
    damaged = Gap("xrays", "", "record 12ab34cd", "", 0, "failed", "It is damaged")
    first, *_ = sentences(replace(page(), gaps=(damaged,)))
    assert first.startswith("No record that can be read says how well")
    assert sentences(page(probe("vgg", 0.7))) == [
        "There are results of one model, vgg: whether another is better is not known. To compare it, "
        "evaluate a second model in the same way."
    ]
    (only,) = sentences(page(probe("vgg", 0.7), fewshot("densenet", 0.8, 0.01)))
    assert "no comparison of two on the same images" in only


def test_missing_cells_limit_the_verdict() -> None:
    gap = Gap("xrays", "vgg", "probe", "default", 0, "failed", "no disk")
    last = sentences(replace(two(True), gaps=(gap,)))[-1]
    assert last == "1 result is missing or failed: the verdict covers the others."
