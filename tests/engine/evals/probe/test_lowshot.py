"""Low-shot curves: which images are drawn, and that a draw is probed as scikit-learn would."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions, Task
from engine.evals.probe.lowshot import LowShot, draw, low_shot, numbers
from engine.evals.probe.parts import Columns, Parts, SplitOptions, parts
from engine.evals.probe.selection import grid
from tests.probe_banks import DIM, FAILED, FIRST, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key

C = grid(1e-3, 1e1, 3)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_draws_are_balanced_nested_and_keep_to_train(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, 80)
    train = np.flatnonzero(rng.random(80) < 0.7)
    most = int(np.bincount(codes[train], minlength=classes).min())
    order = numbers(80, seed, "set")
    before: set[int] = set()
    for shots in range(1, most + 1):
        rows = draw(codes, train, shots, order)
        assert (np.bincount(codes[rows], minlength=classes) == shots).all()
        assert before < set(rows.tolist()) <= set(train.tolist())
        assert (np.diff(rows) > 0).all()
        for row in train:  # the plain rule: fewer than `shots` of its class have a smaller number
            ahead = (codes[train] == codes[row]) & (order[train] < order[row])
            assert (row in rows) == (ahead.sum() < shots)
        before = set(rows.tolist())


def test_an_image_lost_is_replaced_by_one_other() -> None:
    codes = np.arange(60) % 3
    order = numbers(60, 0, "set")
    whole = draw(codes, np.arange(60), 5, order)
    fewer = draw(codes, np.setdiff1d(np.arange(60), whole[:1]), 5, order)
    assert len(set(whole.tolist()) - set(fewer.tolist())) == 1


def test_numbers_depend_on_seed_and_data_set_alone() -> None:
    """The stream is numpy's Philox under the stated key, made here step by step."""
    import hashlib

    key = hashlib.sha256(b'embank low-shot 1 [3, "some set"]').digest()[:16]
    raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(4)
    np.testing.assert_array_equal(numbers(4, 3, "some set"), (raw >> np.uint64(11)) / 2.0**53)
    assert numbers(9, 0, "a").tolist() != numbers(9, 0, "b").tolist() != numbers(9, 1, "b").tolist()


def test_all_models_of_a_bank_learn_from_the_same_draws(tmp_path: Path) -> None:
    """Twins of one model get the same curve; where rows failed, draws lose these and gain as many others."""
    bank = make_probe_bank(tmp_path)  # FIRST and SECOND failed in the same rows
    first = Features.from_bank(bank, FIRST)
    fill_with(bank, make_key(bank.image_digest, model="twin"), np.float32(first.array), FAILED)
    any_features = np.random.default_rng(9).normal(size=(len(first), DIM)).astype(np.float32)
    fill_with(bank, make_key(bank.image_digest, model="complete"), any_features)
    wanted = BankProbe(low_shot=LowShot((1, 4), seeds=3))
    own, twin, other = probes_from_bank(
        bank.path, [FIRST, "twin", SECOND], wanted, ProbeOptions(C=C, bootstrap=0, threads=1)
    )
    assert own["low_shot"]["curve"] == twin["low_shot"]["curve"] != other["low_shot"]["curve"]
    draws = {}
    for model in (FIRST, SECOND, "complete"):
        features = Features.from_bank(bank, model)
        codes = features.labels.codes
        rows = parts(Columns.of(features), codes, features.ok, SplitOptions()).train
        draws[model] = [
            draw(codes, rows, 8, numbers(len(features), seed, features.data_set)) for seed in range(4)
        ]
    for one, same, more in zip(draws[FIRST], draws[SECOND], draws["complete"], strict=True):
        assert one.tolist() == same.tolist()
        lost = set(more.tolist()) - set(one.tolist())
        assert lost <= set(FAILED) and len(set(one.tolist()) - set(more.tolist())) == len(lost)
    assert any(set(more.tolist()) & set(FAILED) for more in draws["complete"])


def test_a_curve_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(180) % 3
    x = (rng.normal(size=(180, 6)) + 1.5 * np.eye(6)[codes]).astype(np.float32)
    train, val, test = np.arange(90), np.arange(90, 120), np.arange(120, 180)
    task = Task("label", ("a", "b", "c"), codes, Parts(train, val, test, {}))
    told: list[tuple[str, int, int]] = []
    asked = LowShot((2, 8), seeds=3, seed=5)
    found = low_shot(x, task, ProbeOptions(C=C), asked, "set", lambda *step: told.append(step)).to_dict()
    z = StandardScaler().fit(x[train].astype(np.float64)).transform(x.astype(np.float64))
    for point in found["curve"]:
        accuracies = []
        for seed, chosen in zip((5, 6, 7), point["best_C"], strict=True):
            rows = draw(codes, train, point["shots"], numbers(180, seed, "set"))
            models = [LogisticRegression(C=c, tol=1e-10, max_iter=9999).fit(z[rows], codes[rows]) for c in C]
            scores = [model.score(z[val], codes[val]) for model in models]
            losses = [oracle.log_loss(codes[val], model.predict_proba(z[val])) for model in models]
            best = int(np.lexsort((-np.array(losses), scores))[-1])
            assert chosen == C[best]
            guess = models[best].predict(z[test])
            accuracies.append(oracle.accuracy_score(codes[test], guess))
        assert point["accuracy"]["values"] == pytest.approx(accuracies)
        assert point["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
        low, high = stats.t.interval(0.95, 2, np.mean(accuracies), stats.sem(accuracies))
        assert point["accuracy"]["ci95"] == pytest.approx((high - low) / 2)
        assert point["images"] == 3 * point["shots"]
    assert told[-1] == ("low-shot", 6, 6) and len(told) == 6


def test_parse() -> None:
    assert LowShot.parse("1,2, 10", 3, 7) == LowShot((1, 2, 10), 3, 7)


@pytest.mark.parametrize("words", ["", "1,x", "0,1", "2,2", "-1", "1.5", "1;2"])
def test_other_lists_are_refused(words: str) -> None:
    with pytest.raises(Refused, match="images per class"):
        LowShot.parse(words, 5, 0)


def test_too_few_images_or_seeds_are_refused() -> None:
    with pytest.raises(Refused, match="9 images per class, and the smallest class has 2"):
        draw(np.array([0] * 20 + [1, 1]), np.arange(22), 9, numbers(22, 0, "set"))
    with pytest.raises(Refused, match="seeds = 0"):
        LowShot(seeds=0)
