"""Rows of one manifest among those of another: by id, else by uri, else by content, and never by a guess."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.bank.contents import unknown
from stores.errors import ManifestError
from stores.maintenance.relabel import aligned
from stores.manifest.manifest import Manifest
from stores.manifest.matching import Match, match


def made(ids: str, uris: str, digests: str = "", **more: list[str]) -> Manifest:
    """A manifest of images that have one letter each as id, uri and digest; `-` is an unknown digest."""
    frame = pd.DataFrame({"image_id": list(ids), "uri": list(uris)})
    if digests:
        frame["sha256"] = ["" if letter == "-" else f"{ord(letter):064x}" for letter in digests]
    return Manifest.from_frame(frame.assign(**more), "/x")


def found(own: Manifest, other: Manifest) -> tuple[str, list[int]]:
    matched: Match = match(own, other)
    return matched.by, matched.rows.tolist()


def test_the_first_way_that_finds_every_row_is_taken() -> None:
    own = made("abc", "xyz", "123")
    assert found(own, made("cb", "zy", "32")) == ("image_id", [2, 1])
    assert found(own, made("cB", "zy", "32")) == ("uri", [2, 1])
    assert found(own, made("CB", "Zy", "32")) == ("content", [2, 1])
    assert found(made("abc", "xyz"), made("C", "z")) == ("uri", [2])


@pytest.mark.parametrize(
    ("own", "other", "says"),
    [
        (("abc", "xyz"), ("cD", "zw"), "1 of 2 images are not in the bank: 'D' .*image_id 1, by uri 1"),
        (("abc", "xyz", "123"), ("CD", "Zw", "34"), "1 of 2 .*: 'w' .*image_id 0, by uri 0, by content 1"),
        (("abc", "xxz"), ("AC", "xz"), "1 of 2 .*: 'x' .*by uri 1"),  # two rows of one file
        (("abc", "xyz", "113"), ("A", "X", "1"), "1 of 1 .*by content 0"),  # two files of one content
        (("abc", "xyz", "123"), ("AB", "XY", "11"), "2 of 2 .*by content 0"),
        (("abc", "xyz", "123"), ("AB", "XY", "1-"), "1 of 2 .*by content 1"),  # not read is no match
        (("abc", "xyz", "12-"), ("AB", "XY", "1-"), "1 of 2 .*by content 1"),
        (("abc", "xyz", "1--"), ("AB", "XY", "1-"), "1 of 2 .*by content 1"),
    ],
)
def test_what_is_not_one_image_of_the_bank_is_refused(
    own: tuple[str, ...], other: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ManifestError, match=says):
        match(made(*own), made(*other))


def test_digests_are_asked_for_where_there_are_none() -> None:
    with pytest.raises(ManifestError) as caught:
        match(made("a", "x", "1"), made("A", "X"))
    assert "manifest folder --hash" in caught.value.remedy


def test_a_file_that_was_replaced_is_no_match_by_its_uri() -> None:
    with pytest.raises(ManifestError, match="other files in the bank"):
        aligned(made("ab", "xy", "12"), made("AB", "xy", "13"))


def test_partners_are_named_by_the_banks_ids() -> None:
    own = made("abc", "xyz")
    labelled, _, _ = aligned(own, made("ABC", "xyz", pair=["C", "", "elsewhere"]))
    assert labelled.column("pair") == ["c", "", "elsewhere"]
    labelled, _, _ = aligned(own, made("abc", "xyz", pair=["c", "", "A"]))
    assert labelled.column("pair") == ["c", "", "A"]


letters = st.text("abcd", min_size=1, max_size=4)


@settings(max_examples=40)
@given(letters, letters, st.sets(st.sampled_from("pqrs"), min_size=1))
def test_a_match_is_one_to_one_and_true(uris: str, digests: str, rows: set[str]) -> None:
    """Against a search row by row: whatever is matched by a key is the only one with it on either side."""
    own = made("1234"[: len(uris)], uris, (digests * 4)[: len(uris)])
    other = made("".join(rows), "".join(rows), "abcd"[: len(rows)])
    keys = [own.sha256s.index(key) if own.sha256s.count(key) == 1 else -1 for key in other.sha256s or []]
    try:
        assert found(own, other) == ("content", keys)
    except ManifestError:
        assert -1 in keys


def test_contents_count_before_the_manifests_digests() -> None:
    own, contents = made("ab", "xy", "12"), unknown(2)
    contents[0, -1] = ord("3")
    assert match(own, made("A", "X", "3"), contents).rows.tolist() == [0]
    with pytest.raises(ManifestError):
        match(own, made("A", "X", "1"), contents)
