"""Leave out one transfer between host and device after another: each time the pretended device notices."""

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import normalise
from engine.kernels import prototypes
from engine.kernels.logistic import design_matrix
from engine.kernels.logistic import solver as logistic
from engine.recipes import Recipe
from engine.runtime import streams
from tests.pretended.session import pretend
from tests.pretended.streams import Device

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(1.0, 0.5, (80, 6)).astype(np.float32)
ROWS = np.arange(40).reshape(2, 2, 10)
FEW = np.arange(40)
PLACE = "cuda:0"


def _fetched(module: Any) -> Any:
    return [
        host.numpy() for host in module.fetch(*(torch.tensor(each, device=PLACE) * 2 for each in (X, FEW)))
    ]


def _fewshot(module: Any) -> Any:
    module.DEVICE_BYTES = 1  # an episode at a time
    return module.predict_on_device(torch.tensor(X, device=PLACE), ROWS, ROWS + 40)


def _design_matrix(module: Any) -> Any:
    rows = module.DesignMatrix.around_mean(X, FEW, None, PLACE, 1 << 20)
    resident = module.DesignMatrix.around_mean(torch.tensor(X, device=PLACE), FEW, None, PLACE, 1 << 20)
    theta = torch.ones(1, 1, 7, device=PLACE)
    to_the_host = module.DesignMatrix.around_mean(torch.tensor(X, device=PLACE), FEW, None, "cpu", 1 << 20)
    return [
        *(torch.cat(each.linear_predictors(theta)).cpu().numpy() for each in (rows, resident)),
        torch.cat(to_the_host.linear_predictors(theta.cpu())).numpy(),
    ]


def _fit(module: Any) -> Any:
    labels, options = (np.arange(80) % 2).astype(np.int64), module.Options(device=PLACE)
    small = module.fit(X, labels, [1.0], options=options).coef
    with pytest.MonkeyPatch.context() as patch:  # first in float32, then in float64
        patch.setattr(design_matrix, "SMALL", 0)
        resident = torch.tensor(X, device=PLACE)
        large = module.fit(resident, labels, [1.0], options=options)
    return small, large.coef, large.scores(resident, 0)


def _pixels(module: Any) -> Any:
    module._line.cache_clear()
    return module.normalise(torch.ones(1, 4, 4, 3, dtype=torch.uint8, device=PLACE), Recipe()).cpu().numpy()


def _host_copy(module: Any) -> Any:
    copied = module.host_buffer((6,), torch.float32, PLACE)
    copied.copy_(torch.tensor(X[0], device=PLACE), non_blocking=True)
    module.DeviceEvent(PLACE).wait()
    arrived = copied.numpy().copy()
    return [arrived, module.HostCopy(torch.tensor(X, device=PLACE) * 2).wait().numpy()]


def _streams(module: Any) -> Any:
    with module.side_stream(PLACE):
        made = module.to_device(module.host_buffer((3,), torch.float32, PLACE).fill_(1), PLACE) + 1
        ready = module.DeviceEvent(PLACE)
    ready.make_current_stream_wait(made)
    return (made + 1).cpu().numpy()


def _text(module: types.ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


_TRANSFER = re.compile(r"\.to\((?:self\.)?(?:device|features\.device)(?:, [a-z_=T]+)?\)|\.cpu\(\)")
#: What is computed, and where its transfers (or waits) are.
PATHS: list[tuple[types.ModuleType, Callable[[Any], Any], re.Pattern[str]]] = [
    (prototypes, _fewshot, _TRANSFER),
    (design_matrix, _design_matrix, _TRANSFER),
    (logistic, _fit, _TRANSFER),
    (normalise, _pixels, _TRANSFER),
    (
        streams,
        _host_copy,
        re.compile(r"self\._event\.synchronize\(\)|self\._event\.record\([a-z_.(]+tensor\.device\)\)"),
    ),
    (
        streams,
        _fetched,
        re.compile(r"arrived\.synchronize\(\)|arrived\.record\([a-z_.(]+tensors\[0\]\.device\)\)"),
    ),
    (
        streams,
        _streams,
        re.compile(r"stream\.wait_event\(self\._event\)|self\._event\.record\([a-z_.]+\(device\)\)"),
    ),
]
MUTANTS = [
    pytest.param(module, run, match.span(), id=f"{module.__name__.rpartition('.')[2]}-{at}{match[0]}")
    for module, run, pattern in PATHS
    for at, match in enumerate(pattern.finditer(_text(module)))
]


def _changed(module: types.ModuleType, span: tuple[int, int] | None) -> types.ModuleType:
    """A copy of a module, without a part of its text."""
    text = _text(module)
    if span is not None:
        cut = text[slice(*span)]
        text = text[: span[0]] + ("" if cut[0] in ".," else "None") + text[span[1] :]
    copy = types.ModuleType(module.__name__)
    copy.__file__ = module.__file__
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, copy)  # dataclasses look there
        exec(compile(text, str(module.__file__), "exec"), copy.__dict__)
    return copy


@pytest.mark.parametrize(("module", "run"), [path[:2] for path in PATHS], ids=lambda v: v.__name__)
def test_an_unchanged_copy_computes(
    module: types.ModuleType, run: Callable[[Any], Any], device: Device
) -> None:
    for found, expected in zip(_arrays(run(_changed(module, None))), _arrays(run(module)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("module", "run", "span"), MUTANTS)
def test_a_transfer_left_out_is_noticed(
    module: types.ModuleType, run: Callable[[Any], Any], span: tuple[int, int]
) -> None:
    """By an error, another result, or other copies (such as none, where all stays on the CPU)."""
    with pretend() as device:
        expected, copies = run(_changed(module, None)), _copies(device)
    try:
        with pretend() as device:
            found = run(_changed(module, span))
    except (RuntimeError, TypeError, AttributeError):
        return
    same = all(np.array_equal(a, b) for a, b in zip(_arrays(found), _arrays(expected), strict=True))
    assert not same or _copies(device) != copies, "nothing has changed"


def _copies(device: Device) -> list[int]:
    return [device.ledger.count("upload"), device.ledger.count("download"), device.ledger.size("upload")]


def _arrays(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list | tuple) else [found]
