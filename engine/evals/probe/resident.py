"""Features of a probe on its device, uploaded once for the sweep, the refit, the draws and the tests.

Several models of one command are uploaded one ahead: while one is fitted, a thread sends the next on a stream
of its own. Their fits stay apart: features of two models have no product in common, and a batch of both would
do what one after the other does.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from engine.evals.common.features import Features
from engine.evals.probe.options import ProbeOptions


def resident(features: Features, options: ProbeOptions) -> Any:
    """Return the matrix [N, d] on the device of a probe, in its stored precision, where that serves.

    Args:
        options: backend, mode, device and memory of the probe.

    Returns:
        A tensor [N, d]; or the array itself: on the CPU, for scikit-learn, and where there is no room.
    """
    serves = options.device.startswith("cuda") and options.mode == "default" and options.backend != "sklearn"
    return features.matrix(options.device, options.memory) if serves else features.array


def one_ahead(
    features: Iterable[Callable[[], Features]], options: ProbeOptions
) -> Iterator[tuple[Features, Any]]:
    """Yield features, and their matrices as `resident` gives them; each is sent while the one before is used.

    Args:
        features: functions that open the features of one model after another.
        options: of the probe.
    """
    if not options.device.startswith("cuda"):
        for opened in features:
            here = opened()
            yield here, here.array
        return
    from engine.runtime import side_stream

    def send(opened: Callable[[], Features]) -> Features:
        here = opened()
        with side_stream(options.device):
            resident(here, options)
        return here

    waiting = iter(features)
    with ThreadPoolExecutor(1) as thread:
        coming = _submitted(thread, send, waiting)
        while coming is not None:
            here = coming.result()
            array = resident(here, options)  # there already: now this thread's stream uses it
            coming = _submitted(thread, send, waiting)
            yield here, array


def _submitted(
    thread: ThreadPoolExecutor,
    send: Callable[[Callable[[], Features]], Features],
    waiting: Iterator[Callable[[], Features]],
) -> "Future[Features] | None":
    opened = next(waiting, None)
    return None if opened is None else thread.submit(send, opened)
