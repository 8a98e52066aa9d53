"""Cuts divide no unit, hit the shares as nearly as units allow, and do not see the order of rows."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from stores.manifest.cutting import Units, by_ratios, into_folds, unit_key

RATIOS = ((0.7, 0.1, 0.2), (0.8, 0.2), (0.5, 0.5), (0.34, 0.33, 0.33))


def units_of(
    groups: list[int], labels: list[int] | None, seed: int = 0, order: list[int] | None = None
) -> Units:
    """Units of rows in some order; group or label -1 is none."""
    rows = np.array(order if order is not None else range(len(groups)))
    names = [f"p{i}" for i in range(max(groups, default=-1) + 1)]
    classes = [f"c{i}" for i in range(max(labels or [-1]) + 1)]
    of_labels = (np.array(labels)[rows], classes) if labels is not None else None
    ids = [f"image {row}" for row in rows]
    return Units.of(ids, (np.array(groups)[rows], names), of_labels, seed, "test")


rows = st.lists(st.tuples(st.integers(-1, 12), st.integers(-1, 3)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(0, 3), st.sampled_from([*RATIOS, 2, 5]), st.randoms(use_true_random=False))
def test_no_patient_straddles_and_order_does_not_count(cells, seed, how, random) -> None:
    groups, labels = map(list, zip(*cells, strict=True))
    order = list(range(len(groups)))
    random.shuffle(order)

    def cut(units: Units) -> np.ndarray:
        return into_folds(units, how) if isinstance(how, int) else by_ratios(units, how)

    parts = cut(units_of(groups, labels, seed))
    assert parts.shape == (len(groups),)
    for group in set(groups) - {-1}:
        assert len({part for part, of in zip(parts, groups, strict=True) if of == group}) == 1
    np.testing.assert_array_equal(cut(units_of(groups, labels, seed, order)), parts[order])


def strata_of(groups: list[int], labels: list[int]) -> list[set[int]]:
    """Rows of each stratum, patient by patient, by the docstring: the class of a patient that is rarest."""
    counts = {label: labels.count(label) for label in sorted(set(labels) - {-1})}
    rarest = sorted(counts, key=lambda label: counts[label])
    found: dict[int, set[int]] = {}
    for row, group in enumerate(groups):
        own = [row] if group < 0 else [i for i, of in enumerate(groups) if of == group]
        have = [rarest.index(labels[i]) for i in own if labels[i] >= 0]
        found.setdefault(min(have, default=len(rarest)), set()).update(own)
    return list(found.values())


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(RATIOS), st.integers(2, 5))
def test_shares_are_within_bounds_in_each_stratum(cells, ratios, folds) -> None:
    groups, labels = map(list, zip(*cells, strict=True))
    units = units_of(groups, labels)
    parts, fold = by_ratios(units, ratios), into_folds(units, folds)
    for stratum in strata_of(groups, labels):
        own = sorted(stratum)
        sizes = np.bincount(units.of_row[own])
        count, largest = np.count_nonzero(sizes), sizes.max()
        dealt = np.bincount(fold[own], minlength=folds)
        assert dealt.max() - dealt.min() <= largest
        shares = np.bincount(parts[own], minlength=len(ratios))
        if count >= len(ratios):
            assert (shares > 0).all()
            # An end is off by half a unit, by one that makes up for others, and by one for each part's own.
            ends = np.abs(np.cumsum(shares) - np.cumsum(ratios) * len(own))
            assert ends.max() <= (1.5 + len(ratios) - 1) * largest
        else:
            assert shares[0] > 0 and (count < 2 or shares[-1] > 0)


def test_many_small_classes_do_not_add_up_to_a_wrong_share() -> None:
    """Seven patients a class: 0.2 of each is one or two, and of all of them 0.2."""
    labels = [row // 7 for row in range(7 * 40)]
    parts = by_ratios(units_of(list(range(len(labels))), labels), (0.8, 0.2))
    assert abs(np.mean(parts == 1) - 0.2) < 0.005
    per_class = np.bincount(np.array(labels)[parts == 1], minlength=40)
    assert set(per_class.tolist()) == {1, 2}


def test_large_patients_are_dealt_by_their_images() -> None:
    fold = into_folds(units_of([0] * 5 + [1, 2, 3, 4, 5], None), 2)
    assert np.bincount(fold).tolist() == [5, 5]


def test_another_seed_is_another_cut_and_adding_a_class_of_patients_is_none() -> None:
    labels = [row % 2 for row in range(200)]
    cuts = [by_ratios(units_of(list(range(200)), labels, seed), (0.5, 0.5)) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(cuts[0], cuts[2])
    assert 60 < np.count_nonzero(cuts[0] != cuts[1]) < 140


def test_keys_are_those_of_the_documented_text() -> None:
    text = b'embank split 1 [7, "test", "group", "p\\u00e9"]'
    assert unit_key(7, "test", "group", "pé") == int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_balanced_like_scikit_learns(seed: int) -> None:
    """By how far a class's share of a fold is from its share of all, at worst."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 6, 120)
    groups = np.repeat(np.arange(120), sizes)
    labels = np.repeat(random.choice(4, 120, p=[0.5, 0.3, 0.15, 0.05]), sizes)

    def worst(fold: np.ndarray) -> float:
        shares = np.array([np.bincount(labels[fold == i], minlength=4) for i in range(5)])
        return float(np.abs(shares / np.bincount(labels) - 0.2).max())

    theirs = np.zeros(len(groups), int)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
    for number, (_, test) in enumerate(folds):
        theirs[test] = number
    ours = into_folds(units_of(groups.tolist(), labels.tolist(), seed), 5)
    assert worst(ours) <= worst(theirs) + 0.02
