"""Features of a probe on its device, uploaded once for the sweep, the refit, the draws and the tests.

Several models of one command are uploaded one ahead: while one is fitted, a thread sends the next on a stream
of its own. Their fits stay apart: features of two models have no product in common, and a batch of both would
do what one after the other does.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from engine.evals.common.features import Features
from engine.evals.probe.options import ProbeOptions

#: Share of the solver's memory that features may take beside it; two models' are there at a time.
_SHARE = 8


def resident(array: Any, options: ProbeOptions) -> Any:
    """Return features [N, d] on the device of a probe, in their stored precision, where that serves.

    Args:
        array: numpy (possibly memory-mapped) or torch.
        options: backend, mode, device and memory of the probe.

    Returns:
        A tensor [N, d]; or the array itself: on the CPU, for scikit-learn, and where it takes more than an
        eighth of the memory.
    """
    return _sent(array, options).ready()


@dataclass(frozen=True)
class _Sent:
    """Features on their way.

    Attributes:
        array: the features, or their copy on the device.
        event: after which the copy is there; None if there is none to wait for.
    """

    array: Any
    event: Any = None

    def ready(self) -> Any:
        """Let the current stream wait for the copy, and return it."""
        if self.event is not None:
            self.event.make_current_stream_wait(self.array)
        return self.array


def _sent(array: Any, options: ProbeOptions) -> _Sent:
    on_device = options.device.startswith("cuda") and options.mode == "default"
    if not on_device or options.backend == "sklearn" or not hasattr(array, "__array_interface__"):
        return _Sent(array)
    from engine.kernels.logistic.options import Options
    from engine.runtime import DeviceEvent, side_stream, upload

    if array.nbytes > Options(device=options.device, memory=options.memory).limit // _SHARE:
        return _Sent(array)
    with side_stream(options.device):
        copy = upload(array, options.device)
        return _Sent(copy, DeviceEvent(options.device))


def one_ahead(
    features: Iterable[Callable[[], Features]], options: ProbeOptions
) -> Iterator[tuple[Features, Any]]:
    """Yield features, and their arrays as `resident` gives them; each is sent while the one before is used.

    Args:
        features: functions that open the features of one model after another.
        options: of the probe.
    """
    if not options.device.startswith("cuda"):
        for opened in features:
            here = opened()
            yield here, here.array
        return

    def send(opened: Callable[[], Features]) -> tuple[Features, _Sent]:
        here = opened()
        return here, _sent(here.array, options)

    waiting = iter(features)
    with ThreadPoolExecutor(1) as thread:
        coming = _submitted(thread, send, waiting)
        while coming is not None:
            here, sent = coming.result()
            coming = _submitted(thread, send, waiting)
            yield here, sent.ready()


def _submitted(
    thread: ThreadPoolExecutor,
    send: Callable[[Callable[[], Features]], tuple[Features, _Sent]],
    waiting: Iterator[Callable[[], Features]],
) -> "Future[tuple[Features, _Sent]] | None":
    opened = next(waiting, None)
    return None if opened is None else thread.submit(send, opened)
