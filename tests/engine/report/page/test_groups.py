"""Groups of records: one data set, mode and setting each; what differs is named."""

from engine.report.page.blocks import Column, DataTable, Value
from engine.report.page.groups import first_seeds, groups_of, having, looks_for
from engine.report.page.inputs import PageInput, PageOptions, Source
from engine.report.page.room import fitting, panels_each
from stores.backends.location import place
from tests.page_records import entry_of, page


def test_modes_settings_and_data_sets_are_apart() -> None:
    entries = (
        entry_of("probe", "a", {"mode": "as-published"}, {}),
        entry_of("probe", "a", {"mode": "default", "select": "auroc"}, {}),
        entry_of("probe", "a", {"mode": "default", "select": "accuracy"}, {}),
        entry_of("probe", "b", {"mode": "default", "select": "accuracy", "threads": 7, "device": "cuda"}, {}),
        entry_of("knn", "a", {"k": [5]}, {"k": 5}),
    )
    sources = tuple(Source(name, place("nowhere.bank"), entries) for name in ("one", "two"))
    groups = groups_of(PageInput("p", sources), "probe")
    assert [(g.dataset, g.mode, [m.model for m in g.members]) for g in groups] == [
        (name, mode, models)
        for name in ("one", "two")
        for mode, models in (("default", ["a", "b"]), ("default", ["a"]), ("as-published", ["a"]))
    ]
    assert groups[0].title == "one: linear probe, default mode, select accuracy"
    assert groups[2].title == "one: linear probe, as published"


def test_the_last_record_of_a_model_counts() -> None:
    older, newer = (entry_of("probe", "a", {"label": "x"}, {"n": n}) for n in (1, 2))
    ((group),) = groups_of(page(older, newer), "probe")
    assert [member.record.metrics["n"] for member in group.members] == [2]


def test_models_are_in_the_order_of_the_page() -> None:
    entries = [entry_of("probe", name, {}, {}) for name in ("c", "z", "b", "a")]
    ((group),) = groups_of(page(*entries, models=("z", "a")), "probe")
    assert [member.model for member in group.members] == ["z", "a", "b", "c"]


def test_names_of_a_study_are_its_own() -> None:
    entry = entry_of("probe", "a", {}, {})
    ((group),) = groups_of(page(entry, evaluations={entry.id: "linear"}), "probe")
    assert group.title == "xrays: linear, default mode"


def test_seed_zero_is_a_seed() -> None:
    groups = groups_of(page(*(entry_of("probe", "a", {"seed": seed}, {}) for seed in (1, 0))), "probe")
    first, note = first_seeds(groups)
    assert [group.seed for group in first] == [0]
    assert "seed 0" in first[0].title
    assert note


def test_a_lacking_record_is_named_and_others_stay() -> None:
    groups = groups_of(
        page(entry_of("probe", "a", {}, {"x": {"y": 1}}), entry_of("probe", "b", {}, {})), "probe"
    )
    (group,), (note,) = having(groups, "x.y", "Do it again")
    assert [member.model for member in group.members] == ["a"]
    assert "b" in note
    assert "Do it again" in note


def test_few_models_look_alike_in_all_charts() -> None:
    given = page(models=("a", "b", "c"))
    assert looks_for(given, ["c"])["c"] == looks_for(given, ["a", "b", "c"])["c"]


def test_models_look_alike_where_the_page_names_none() -> None:
    given = page(
        *(entry_of(kind, name, {}, {}) for kind, name in (("knn", "a"), ("probe", "a"), ("probe", "b")))
    )
    assert looks_for(given, ["b"])["b"] == looks_for(given, ["a", "b"])["b"]


def test_of_many_models_the_best_have_colours() -> None:
    names = [f"m{i}" for i in range(20)]
    looks = looks_for(page(models=tuple(names)), names, ["m19", "m3"])
    assert {name for name, look in looks.items() if look.place is not None} == {"m19", "m3"}


def test_tables_are_cut_to_fit_and_say_so() -> None:
    rows = tuple((Value(str(i)), Value("x")) for i in range(1000))
    table = DataTable("t", "caption", (Column("a"), Column("b")), rows)
    cut = fitting(table, PageOptions(max_bytes=1_000_000), 0.05, 4)
    assert 12 <= len(cut.rows) < 100
    assert f"{1000 - len(cut.rows)} rows are left out" in cut.notes[-1]
    assert fitting(table, PageOptions(max_bytes=10**9), 0.5, 1) is table


def test_panels_share_the_room() -> None:
    assert panels_each(PageOptions(max_bytes=1_000_000), 0.1, 10, 1000) == 10
    assert panels_each(PageOptions(max_bytes=1000), 0.1, 10, 1000) == 2
