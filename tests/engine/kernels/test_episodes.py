"""Episodes: what the documentation of the streams says, uniform, without repeats, patients apart."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from engine.errors import Refused
from engine.kernels import episodes
from engine.kernels.codes import fill_singletons
from engine.kernels.episodes import Identity, Sampler, smallest_keys, without_replacement


def _pools(sizes: list[int]) -> list[np.ndarray]:
    """Pools of interleaved rows, so that a class is not a range."""
    labels = np.random.default_rng(5).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return [np.flatnonzero(labels == c) for c in range(len(sizes))]


def _shuffle(numbers: np.ndarray, size: int) -> list[int]:
    """The first steps of Fisher and Yates' shuffle, with the whole range in memory."""
    rest = list(range(size))
    for i, u in enumerate(numbers):
        j = i + int(u * (size - i))
        rest[i], rest[j] = rest[j], rest[i]
    return rest[: len(numbers)]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 12), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_sampling_is_the_plain_shuffle(extra: list[int], n: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).random((len(extra), n))
    sizes = np.array(extra) + n
    expected = [_shuffle(row, size) for row, size in zip(numbers, sizes, strict=True)]
    np.testing.assert_array_equal(without_replacement(numbers, sizes), expected)


def test_the_largest_number_stays_inside() -> None:
    largest = np.full((1, 3), 1 - 2.0**-53)
    assert without_replacement(largest, np.array([2**31 - 1])).max() == 2**31 - 2


def test_the_stream_is_what_its_documentation_says() -> None:
    text = "embank episodes 1 " + json.dumps([7, "some digest", 5, 20, 15, "images"])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    expected = [int(r) >> 11 for r in np.random.Philox(key=key).random_raw(6)]
    found = Identity(7, "some digest", 5, 20, 15).stream("images").uniform(2, 3)
    assert [x * 2**53 for x in found.ravel()] == expected


def test_episodes_never_change() -> None:
    """A literal: another numpy, machine or rewrite must draw the same."""
    drawn = Sampler([np.arange(9), np.arange(9, 30), np.arange(30, 36)], Identity(0, "set", 2, 2, 1)).draw(2)
    assert drawn.classes.tolist() == CLASSES
    assert np.concatenate([drawn.support, drawn.query], axis=2).tolist() == ROWS


CLASSES = [[2, 1], [1, 2]]
ROWS = [[[32, 34, 35], [15, 24, 21]], [[10, 14, 9], [35, 30, 32]]]


@given(
    st.lists(st.integers(6, 30), min_size=3, max_size=6),
    st.integers(2, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_distinct_and_of_their_class(
    sizes: list[int], n_way: int, n_shot: int, n_query: int, seed: int
) -> None:
    pools = _pools(sizes)
    drawn = Sampler(pools, Identity(seed, "", n_way, n_shot, n_query)).draw(20)
    assert drawn.support.shape == (20, n_way, n_shot)
    assert drawn.query.shape == (20, n_way, n_query)
    for e in range(20):
        assert len(set(drawn.classes[e])) == n_way
        both = np.concatenate([drawn.support[e], drawn.query[e]], axis=1)
        assert len(set(both.ravel())) == both.size
        for c, rows in zip(drawn.classes[e], both, strict=True):
            assert set(rows) <= set(pools[c])


def test_all_ordered_pairs_are_equally_likely() -> None:
    drawn = Sampler(_pools([6, 6, 6]), Identity(0, "", 2, 1, 1)).draw(30_000)
    ways = np.bincount(drawn.classes[:, 0] * 3 + drawn.classes[:, 1], minlength=9).reshape(3, 3)
    assert chisquare(ways[~np.eye(3, dtype=bool)]).pvalue > 1e-4
    pairs = np.bincount(drawn.support.ravel() * 18 + drawn.query.ravel(), minlength=18 * 18)
    assert chisquare(pairs[pairs > 0]).pvalue > 1e-4
    assert (pairs > 0).sum() == 3 * 6 * 5


def test_every_position_of_a_whole_class_is_uniform() -> None:
    drawn = Sampler(_pools([5, 5]), Identity(1, "", 2, 3, 2)).draw(8000)
    both = np.concatenate([drawn.support, drawn.query], axis=2)
    for position in range(5):
        counts = np.bincount(both[:, :, position].ravel(), minlength=10)
        assert chisquare(counts).pvalue > 1e-4


def test_neither_number_nor_blocks_of_episodes_change_an_episode() -> None:
    pools, identity, groups = _pools([30, 40, 50]), Identity(3, "x", 2, 4, 3), np.arange(120) // 7
    for held in (None, groups):
        whole = Sampler(pools, identity, held).draw(50)
        pieces = Sampler(pools, identity, held)
        parts = [pieces.draw(n) for n in (1, 20, 29)]
        np.testing.assert_array_equal(whole.support, np.concatenate([p.support for p in parts]))
        np.testing.assert_array_equal(whole.query, np.concatenate([p.query for p in parts]))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"data_set": "y"}, {"n_way": 3}, {"n_shot": 5}, {"n_query": 4}]
)
def test_each_part_of_the_identity_gives_other_episodes(change: dict) -> None:
    fields = {"seed": 0, "data_set": "x", "n_way": 2, "n_shot": 4, "n_query": 3}
    one = Sampler(_pools([30, 40, 50]), Identity(**fields)).draw(10)
    other = Sampler(_pools([30, 40, 50]), Identity(**fields | change)).draw(10)
    assert one.support[:, 0, 0].tolist() != other.support[:, 0, 0].tolist()


@given(st.integers(0, 1000), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_no_group_on_both_sides(seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    labels, groups = generator.integers(0, 3, 150), generator.integers(-1, 150 // size, 150)
    pools = [np.flatnonzero(labels == c) for c in range(3)]
    drawn = Sampler(pools, Identity(seed, "", 3, 3, 2), groups).draw(15)
    for e in range(15):
        held = set(groups[drawn.support[e]].ravel()) - {-1}
        assert not held & set(groups[drawn.query[e]].ravel())
        assert not set(drawn.support[e].ravel()) & set(drawn.query[e].ravel())
        for n, c in enumerate(drawn.classes[e]):
            assert len(set(drawn.query[e, n])) == 2
            assert set(drawn.query[e, n]) <= set(pools[c])


@given(
    st.integers(0, 1000),
    st.integers(1, 12),
    st.sampled_from([1, 60, 4_000_000]),
    st.sampled_from([1e-9, 1e9]),
)
@settings(max_examples=40, deadline=None)
def test_queries_are_those_of_the_plain_loop(seed: int, size: int, at_once: int, few: float) -> None:
    """An episode at a time: the rows of a class whose group is not in the support, then a sample of them."""
    generator, identity = np.random.default_rng(seed), Identity(seed, "", 3, 3, 2)
    labels, groups = generator.integers(0, 4, 160), fill_singletons(generator.integers(-1, 150 // size, 160))
    pools = [np.flatnonzero(labels == c) for c in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes, "_EXCLUDED_ROWS", at_once)
        patch.setattr(episodes, "_FEW", few)
        drawn = Sampler(pools, identity, groups).draw(15)
    numbers = identity.stream("images").uniform(15, 3, 5)[..., 3:]
    for e in range(15):
        for n, c in enumerate(drawn.classes[e]):
            allowed = pools[c][~np.isin(groups[pools[c]], groups[drawn.support[e]])]
            places = without_replacement(numbers[e, n][None], np.array([len(allowed)]))[0]
            assert drawn.query[e, n].tolist() == allowed[places].tolist()


def test_single_images_as_groups_leave_the_support_as_it_is() -> None:
    pools, identity = _pools([20, 20, 20]), Identity(0, "", 2, 3, 3)
    np.testing.assert_array_equal(
        Sampler(pools, identity).draw(30).support, Sampler(pools, identity, np.arange(60)).draw(30).support
    )


def test_a_redrawn_support_leaves_enough_queries() -> None:
    """A patient with most images of a class: only supports without this patient can be asked."""
    groups = np.concatenate([np.zeros(20), np.arange(1, 8), np.full(20, 90) + np.arange(20)]).astype(int)
    drawn = Sampler([np.arange(27), np.arange(27, 47)], Identity(0, "", 2, 1, 9), groups).draw(30)
    assert (groups[drawn.support[drawn.classes == 0]] != 0).all()


def test_classes_of_one_patient_are_refused_with_numbers() -> None:
    sampler = Sampler([np.arange(10), np.arange(10, 20)], Identity(0, "", 2, 2, 2), np.arange(20) // 10)
    with pytest.raises(Refused, match=r"fewer than 2 query images \(last 0\)"):
        sampler.draw(1)


def test_a_cap_keeps_its_choice_when_a_row_is_missing() -> None:
    identity, rows = Identity(0, "", 2, 1, 1), np.arange(5, 95)
    whole = smallest_keys(identity.stream("cap"), rows, 100, 20)
    assert len(whole) == 20
    gone = whole[7]
    fewer = smallest_keys(identity.stream("cap"), rows[rows != gone], 100, 20)
    assert len(set(whole) & set(fewer)) == 19
