"""Several findings at once: each is scikit-learn's fit on the rows it does not mask."""

import math

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from engine.errors import Refused
from engine.evals.probe.evaluate import ProbeOptions
from engine.evals.probe.multilabel import Unfit, probe_findings
from engine.evals.probe.parts import Parts
from engine.evals.probe.selection import grid
from engine.evals.probe.targets import Policies, Target, finding_of
from tests.said import said

C = grid(1e-3, 1e1, 5)
N = 240
PARTS = Parts(
    np.arange(0, 140), np.arange(140, 190), np.arange(190, N), {"failed": 0, "unlabelled": 0}, notes=("cut",)
)
NONE = np.full(N, -1)


def data(findings: int = 3) -> tuple[np.ndarray, list[Target]]:
    """Features, and findings of cells 1, 0, -1 and empty."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(N, 7)) * np.geomspace(0.2, 9, 7)).astype(np.float32)
    targets = []
    for at in range(findings):
        score = x[:, at] / x[:, at].std() + rng.normal(size=N)
        cells = np.where(rng.random(N) < 0.15, 2, (score > 0.3 * at).astype(int))
        cells = np.where(rng.random(N) < 0.1, -1, cells)
        targets.append(finding_of(f"finding {at}", cells, ["0.0", "1.0", "-1.0"], Policies()))
    return x, targets


def test_every_finding_is_scikit_learns() -> None:
    x, targets = data()
    found = probe_findings(x, targets, PARTS, ProbeOptions(C=C, bootstrap=20), NONE)
    train = StandardScaler().fit(x[PARTS.train].astype(np.float64)).transform(x.astype(np.float64))
    whole = StandardScaler().fit(x[PARTS.refit].astype(np.float64)).transform(x.astype(np.float64))
    for one, target in zip(found.fitted, targets, strict=True):
        y = target.codes
        fit, val, both, test = (
            rows[y[rows] >= 0] for rows in (PARTS.train, PARTS.val, PARTS.refit, PARTS.test)
        )
        areas = []
        for c in C:
            model = LogisticRegression(C=c, tol=1e-10, max_iter=9999).fit(train[fit], y[fit])
            areas.append(oracle.roc_auc_score(y[val], model.decision_function(train[val])))
        np.testing.assert_allclose(one.sweep.val_score, areas, atol=2e-3)
        model = LogisticRegression(C=one.best_C, tol=1e-10, max_iter=9999).fit(whole[both], y[both])
        np.testing.assert_allclose(one.probabilities, model.predict_proba(whole[test]), atol=1e-3)
        assert one.test.headline["auroc"] == pytest.approx(
            oracle.roc_auc_score(y[test], model.decision_function(whole[test])), abs=2e-3
        )
        assert one.task.parts.masked["unlabelled"] == N - (y >= 0).sum()
    summary = found.to_dict()
    for name in ("accuracy", "auroc", "average_precision"):
        assert summary["test"][name] == pytest.approx(
            np.mean([one.test.headline[name] for one in found.fitted])
        )
    assert summary["evaluated"] == 3 and summary["best_C"] is None
    assert summary["label"] == "finding 0, finding 1, finding 2"
    assert summary["objective"] == pytest.approx(sum(one["objective"] for one in summary["findings"]))


def test_a_flat_auroc_never_chooses_a_constant_classifier() -> None:
    """A rare finding that one feature tells: every C ranks it perfectly, at the smallest none is found."""
    x, targets = data(2)
    rare = np.arange(N) % 8 == 3
    x[:, 6] = np.where(rare, 40.0, -6.0) + np.random.default_rng(1).normal(size=N)
    targets[1] = finding_of("rare", rare.astype(int), ["0", "1"], Policies())
    found = probe_findings(x, targets, PARTS, ProbeOptions(C=C, bootstrap=0), NONE)
    other, one = found.fitted
    assert (one.sweep.val_score == 1.0).all() and one.sweep.flat and not other.sweep.flat
    z = StandardScaler().fit(x[PARTS.train].astype(np.float64)).transform(x.astype(np.float64))
    models = [
        LogisticRegression(C=c, tol=1e-10, max_iter=9999).fit(z[PARTS.train], rare[PARTS.train]) for c in C
    ]
    losses = [oracle.log_loss(rare[PARTS.val], model.predict_proba(z[PARTS.val])) for model in models]
    assert one.best_C == C[int(np.argmin(losses))] == C[-1]
    assert not models[0].predict(z[PARTS.test]).any(), "as the strongest regularisation would have it"
    assert one.test.headline["mean_per_class_accuracy"] == 1.0
    written = found.to_dict()["findings"]
    assert [each["flat"] for each in written] == [False, True]
    flat = "Validation auroc is the same for all 5 values of C: chosen by log loss"
    assert [flat in said(each) for each in found.fitted] == [False, True]
    assert [one.subject for one in found.validity if one.sentence == flat] == ["rare"]


def test_what_cannot_be_learnt_chosen_or_tested_is_left_out_with_its_reason() -> None:
    x, targets = data(5)
    targets[1].codes[PARTS.train] = 0
    targets[2].codes[PARTS.val] = 1
    targets[3].codes[PARTS.test] = -1
    found = probe_findings(x, targets, PARTS, ProbeOptions(C=C, bootstrap=0), NONE)
    assert [isinstance(each, Unfit) for each in found.findings] == [False, True, True, True, False]
    notes = "\n".join(said(found))
    assert "finding 1 is left out: 1 of 2 classes among" in notes
    assert "finding 2 is left out: No auroc on the" in notes
    assert "finding 3 is left out: 0 of 2 classes among 0 test images" in notes
    alone = probe_findings(x, [targets[0]], PARTS, ProbeOptions(C=C, bootstrap=0), NONE)
    np.testing.assert_allclose(alone.fitted[0].probabilities, found.fitted[0].probabilities, atol=1e-5)


def test_a_metric_that_is_undefined_for_one_is_the_mean_over_the_others() -> None:
    x, targets = data(2)
    targets[1].codes[PARTS.test] = np.minimum(targets[1].codes[PARTS.test], 0)
    found = probe_findings(x, targets, PARTS, ProbeOptions(C=C, bootstrap=0), NONE)
    first, second = found.fitted
    assert math.isnan(second.test.headline["auroc"])
    summary = found.to_dict()
    assert summary["test"]["auroc"] == first.test.headline["auroc"]
    assert "auroc is the mean over 1 of 2 findings" in summary["notes"]


def test_none_that_can_be_probed_is_refused() -> None:
    x, targets = data(2)
    for target in targets:
        target.codes[PARTS.train] = 1
    with pytest.raises(Refused, match="finding 0: 1 of 2 classes"):
        probe_findings(x, targets, PARTS, ProbeOptions(C=C), NONE)
