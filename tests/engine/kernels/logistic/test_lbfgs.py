"""Directions of many problems at once: each is what the plain two-loop recursion gives for it alone."""

import numpy as np
import pytest
import torch

from engine.kernels.logistic.lbfgs import History

_SIZE, _MEMORY = 6, 10


class _Plain:
    """One problem's pairs, and its direction by Nocedal and Wright, Numerical Optimization, algorithm 7.4."""

    def __init__(self) -> None:
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def direction(self, gradient: np.ndarray, scale: np.ndarray) -> np.ndarray:
        q, alphas = gradient.copy(), []
        for s, y in reversed(self.pairs):
            alphas.append(s @ q / (s @ y))
            q -= alphas[-1] * y
        r = scale * q
        for (s, y), alpha in zip(self.pairs, reversed(alphas), strict=True):
            r += s * (alpha - y @ r / (s @ y))
        return -r


def _check(history: History, plain: list[_Plain], rng: np.random.Generator) -> None:
    gradients, scale = rng.normal(size=(len(plain), 2, _SIZE // 2)), rng.uniform(0.5, 2.0, _SIZE)
    factors = torch.from_numpy(scale).view(2, -1)
    found = history.direction(torch.from_numpy(gradients), lambda g: g * factors)
    expected = [p.direction(g.ravel(), scale) for p, g in zip(plain, gradients, strict=True)]
    np.testing.assert_allclose(found.flatten(1).numpy(), np.stack(expected), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("turns", [3, 9, 25])
def test_directions_are_those_of_each_problem_alone(turns: int) -> None:
    rng = np.random.default_rng(turns)
    root = rng.normal(size=(_SIZE, _SIZE))
    curvature = root @ root.T + np.eye(_SIZE)
    history, plain = History(2, _SIZE, _MEMORY, torch.float64, "cpu"), [_Plain(), _Plain()]
    for turn in range(turns):
        steps = rng.normal(size=(len(plain), _SIZE))
        changes = steps @ curvature
        if turn % 5 == 1:
            changes[0] = -changes[0]  # no positive curvature: left out, though it takes a place
        history.add(torch.from_numpy(steps), torch.from_numpy(changes))
        for p, s, y in zip(plain, steps, changes, strict=True):
            p.pairs.append((s, y))
            p.pairs = p.pairs[-_MEMORY:]
        _check(history, [_usable(p) for p in plain], rng)
        if turn % 4 == 2:
            history.join(1)
            plain.append(_Plain())
        if turn % 7 == 5:
            history.forget(torch.arange(len(plain)) == 1)
            plain[1].pairs = []
        if turn % 11 == 8:
            history.keep(torch.arange(len(plain)) != 0)
            del plain[0]
        _check(history, [_usable(p) for p in plain], rng)


def _usable(plain: _Plain) -> _Plain:
    found = _Plain()
    found.pairs = [(s, y) for s, y in plain.pairs if s @ y > 0]
    return found
