"""The order of the page: validity before any result, what comes from elsewhere before the last section."""

from dataclasses import replace

from engine.report.page.assemble import page_of, report_html
from engine.report.page.blocks import Paragraph, Section
from engine.report.page.collect import latest
from engine.report.page.inputs import Gap, PageOptions
from stores.bank.record_index import RecordEntry
from tests.page_records import fewshot, page, probe

OPTIONS = PageOptions()


def test_validity_stands_before_results_and_others_before_the_last_section() -> None:
    further = Section("paper", "Beside the paper", (Paragraph("x"),))
    made = page_of(page(probe("vgg", 0.8)), OPTIONS, [further])
    ids = [section.id for section in made.sections]
    assert ids[0] == "validity" and ids.index("validity") < ids.index("results")
    assert ids[-2:] == ["paper", "about"]


def test_neighbours_of_one_title_are_one_section() -> None:
    twice = [Section("a", "Same", (Paragraph("1"),)), Section("b", "Same", (Paragraph("2"),))]
    made = page_of(page(probe("vgg", 0.8)), OPTIONS, twice)
    (joined,) = [section for section in made.sections if section.title == "Same"]
    assert (joined.id, [block.text for block in joined.blocks]) == ("a", ["1", "2"])  # type: ignore[union-attr]


def test_a_page_without_records_says_what_it_lacks() -> None:
    text = report_html(page(), OPTIONS).decode()
    assert "there is nothing to compare" in text and 'id="results"' not in text


def asked(entry: RecordEntry, name: str, **settings: object) -> RecordEntry:
    assert entry.record is not None
    record = replace(entry.record, asked={**entry.record.asked, **settings})
    return replace(entry, id=name, path=f"records/{name}.json", record=record)


def test_the_latest_answer_to_each_question_is_shown() -> None:
    old, new = asked(fewshot("vgg", 0.7, 0.1), "old", device="cpu"), asked(fewshot("vgg", 0.8, 0.1), "new")
    other = asked(fewshot("vgg", 0.6, 0.1), "other", seed=1)
    published = asked(fewshot("vgg", 0.5, 0.1), "published", mode="as-published")
    model = asked(fewshot("densenet", 0.5, 0.1), "model")
    every = [old, other, published, model, new]
    assert [entry.id for entry in latest(every)] == ["other", "published", "model", "new"]


def test_a_page_of_many_records_keeps_to_its_bytes_and_says_what_it_leaves_out() -> None:
    given = page(*(probe(f"group/model-{number:03}", 0.5 + number / 1000) for number in range(120)))
    complete = report_html(given, OPTIONS)
    most = len(complete) * 2 // 3
    cut = report_html(given, PageOptions(max_bytes=most))
    assert len(cut) <= most < len(complete) <= OPTIONS.max_bytes
    assert b"To keep the page small" in cut
    assert b"To keep the page small" not in complete
    assert cut == report_html(given, PageOptions(max_bytes=most))


def test_an_empty_bank_claims_nothing() -> None:
    made = page_of(page(), OPTIONS)
    assert [section.id for section in made.sections] == ["about"]


def test_of_damaged_records_alone_nothing_counts_as_checked() -> None:
    gap = Gap("xrays", "", "record 12ab34cd", "", 0, "failed", "It is damaged")
    made = page_of(replace(page(), gaps=(gap,)), OPTIONS)
    validity = made.sections[0]
    assert validity.blocks[0] == Paragraph("There are no results to check.")
    assert isinstance(validity.blocks[1], Paragraph)
    assert validity.blocks[1].tone == "error"
