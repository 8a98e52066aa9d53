"""A pretended CUDA device: tensors that say `cuda:0`, hold numbers on the CPU, and refuse what CUDA refuses.

It refuses operands on several devices, a device tensor where the host's memory is wanted, and dtypes that
CUDA has no kernel for; it notices streams that do not wait for each other (`streams`), and enters waits and
copies in a ledger (`ledger`). Its arithmetic is the CPU's: it says nothing of cuBLAS's or cuDNN's roundings,
nor of kernels that are not torch's (DALI, FAISS, cuML).
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.pretended.streams import Device, Race, Stream

aten = torch.ops.aten

#: Operations for which the host waits: it must know a number, or how many there are.
_WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "_linalg_check_errors", "_linalg_eigh", "linalg_lstsq", "_assert_async",
}  # fmt: skip
#: With boolean indices these look for the places first.
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
#: Have CUDA kernels for floating-point numbers alone, where the CPU has some for integers.
_FLOATING = {
    "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "convolution",
    "cudnn_batch_norm",
    "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
    "grid_sampler_2d", "avg_pool2d", "max_pool2d_with_indices", "_cdist_forward",
}  # fmt: skip
#: Have CUDA kernels for float32 and float64 alone.
_NOT_HALF = {
    "_cdist_forward", "linalg_cholesky_ex", "_linalg_eigh", "linalg_qr", "linalg_solve_triangular",
    "_linalg_svd",
    "_linalg_solve_ex", "linalg_inv_ex", "linalg_lu_factor_ex", "cholesky_solve", "triangular_solve",
}  # fmt: skip
_HALVES = (torch.float16, torch.bfloat16)
#: Products that tensor cores sum up in float32.
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "convolution"}
#: Have no CUDA kernel at all.
_ABSENT = {"histogram", "_histogramdd_bin_edges", "_histogramdd_from_bin_cts", "linalg_eig_cpu"}
#: Take one number of the host beside tensors of the device, though they are not elementwise.
_TAKES_NUMBER = _INDEXING | {"masked_fill", "masked_fill_", "fill_", "where"}


class DeviceTensor(torch.Tensor):
    """A tensor of the device.

    Attributes:
        numbers: the same tensor on the CPU.
        made: by which stream, in which of its steps; shared by all views of the memory.
    """

    numbers: torch.Tensor
    made: list[int]

    @staticmethod
    def __new__(cls, numbers: torch.Tensor, device: torch.device, made: list[int]) -> "DeviceTensor":
        # Only the numbers obey inference mode: torch allows no view of one kind on a base of the other.
        with torch.inference_mode(False):
            return torch.Tensor._make_wrapper_subclass(
                cls, numbers.size(), strides=numbers.stride(), storage_offset=numbers.storage_offset(),
                dtype=numbers.dtype, layout=numbers.layout, device=device,
                requires_grad=numbers.requires_grad,
            )  # fmt: skip

    def __init__(self, numbers: torch.Tensor, device: torch.device, made: list[int]) -> None:
        self.numbers, self.made = numbers, made

    def __repr__(self, *, tensor_contents: object = None) -> str:  # must not copy: it would be entered
        return f"DeviceTensor({self.numbers}, device={self.device})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.cpu().numpy()
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def record_stream(self, stream: Stream) -> None:
        assert isinstance(stream, Stream)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return current().run(func, args, kwargs or {})


# torch's own classes are told from others' by their module.
DeviceTensor.__module__ = "torch"

_current: list["Dispatcher"] = []


def current() -> "Dispatcher":
    """That of the pretended device in use."""
    if not _current:
        raise RuntimeError("this tensor is of a pretended device that is no more")
    return _current[-1]


class Mode(TorchDispatchMode):
    """Routes what names the device without having a tensor on it yet: factories and uploads."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return current().run(func, args, kwargs or {})


class Dispatcher:
    """Runs operations for a device.

    Args:
        device: streams, events and the ledger.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        #: Address -> its memory, held so that no other may have the address.
        self._pinned: dict[int, torch.Tensor] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation, as torch's dispatcher passes it on."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = [t for t in tensors if isinstance(t, DeviceTensor)]
        target = self._target(args, kwargs)
        if not ours and (target is None or target.type != "cuda"):
            return self._on_host(func, args, kwargs)
        if func is torch.ops.prim.device.default:
            return args[0].device
        if _composite(func):
            with Mode():
                return func.decompose(*args, **kwargs)
        name = func.__name__.partition(".")[0]
        if name == "_to_copy":
            return self._to_copy(args[0], kwargs, target)
        if name == "copy_":
            later = args[2] if len(args) > 2 else kwargs.get("non_blocking")
            return self._copy(args[0], args[1], bool(later))
        place = ours[0].device if ours else target
        assert place is not None
        self._one_device(func, name, args, ours, [t for t in tensors if not isinstance(t, DeviceTensor)])
        _check_dtypes(name, ours)
        if name in _WAITS or (name in _INDEXING and any(_mask(i) for i in args[1])):
            self._wait(place, name)
        made = self._use(place, ours)
        return self._compute(func, name, args, kwargs, ours, target or place, made)

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, from now on in page-locked memory."""
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    def pinned(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, DeviceTensor) and tensor.untyped_storage().data_ptr() in self._pinned

    def _target(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
        """The device that is named, in full."""
        named = kwargs.get("device")
        if named is None:
            named = next((a for a in args if isinstance(a, torch.device)), None)
        return None if named is None else self.device.full(named)

    def _on_host(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not kwargs.get("pin_memory"):
            return func(*args, **kwargs)
        return self.pin(func(*args, **{**kwargs, "pin_memory": False}))

    def _one_device(
        self, func: Any, name: str, args: tuple[Any, ...], ours: list[DeviceTensor], hosts: list[torch.Tensor]
    ) -> None:
        """What CUDA says where operands lie on several devices."""
        places = {str(t.device) for t in ours}
        if name in _INDEXING:
            of_host = not isinstance(args[0], DeviceTensor)
            indices = [i for i in args[1] if i is not None]
            if of_host and any(isinstance(i, DeviceTensor) for i in indices):
                raise RuntimeError(
                    "indices should be either on cpu or on the same device as the indexed tensor"
                )
            for i in indices:
                if not isinstance(i, DeviceTensor):  # torch brings them, and waits
                    self._moved("upload", i, ours[0].device, blocking=True, pinned=self.pinned(i))
            hosts = [h for h in hosts if not any(h is i for i in indices)]
        elif torch.Tag.pointwise not in func.tags and name not in _TAKES_NUMBER:
            places |= {"cpu" for _ in hosts}
        written = args[0] if func._schema.is_mutable and args else None
        places |= {"cpu" for h in hosts if h.dim() or h is written}
        if len(places) > 1:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(sorted(places))}! (in {func})"
            )

    def _use(self, place: torch.device, ours: Sequence[DeviceTensor]) -> list[int]:
        """Queue a step that needs some tensors on the current stream; what marks its results."""
        stream = self.device.current_stream(place)
        step = stream.step()
        for tensor in ours:
            number, when = tensor.made
            ours_too = number in self.device.streams  # what an earlier pretended device has made is ready
            if ours_too and number != stream.number and stream.clock.get(number, 0) < when:
                raise Race(
                    f"stream {stream.number} uses a tensor {tuple(tensor.shape)} of stream {number} without "
                    "having waited for it"
                )
        return [stream.number, step]

    def _compute(
        self, func: Any, name: str, args: Any, kwargs: Any, ours: list[DeviceTensor], place: torch.device,
        made: list[int],
    ) -> Any:  # fmt: skip
        outputs = _outputs(func, name, *tree_map_only(DeviceTensor, lambda t: t.numbers, (args, kwargs)))
        known = {id(t.numbers): t for t in ours}
        if func._schema.is_mutable:
            _written(func, args, kwargs, ours, made)
        memory = {t.numbers.untyped_storage().data_ptr(): t.made for t in ours}

        def ours_again(found: torch.Tensor) -> torch.Tensor:
            if id(found) in known:
                return known[id(found)]
            return DeviceTensor(found, place, memory.get(found.untyped_storage().data_ptr(), made))

        return tree_map_only(torch.Tensor, ours_again, outputs)

    def _to_copy(
        self, source: torch.Tensor, kwargs: dict[str, Any], target: torch.device | None
    ) -> torch.Tensor:
        target = target or source.device
        later = bool(kwargs.get("non_blocking"))
        plain = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
        numbers = source.numbers if isinstance(source, DeviceTensor) else source
        found = aten._to_copy.default(numbers, **plain)
        if isinstance(source, DeviceTensor):
            made = self._use(source.device, [source])
            if target.type == "cpu":
                # torch lets a copy that nobody waits for go into page-locked memory.
                into = self.pin(torch.empty_like(found)) if later else None
                return self._download(found, into, source.device)
            return DeviceTensor(found, target, made)
        pinned = self.pinned(source)
        self._moved("upload", found, target, blocking=not (later and pinned), pinned=pinned)
        return DeviceTensor(found, target, self._use(target, []))

    def _copy(self, into: torch.Tensor, source: torch.Tensor, later: bool) -> torch.Tensor:
        if isinstance(into, DeviceTensor):
            numbers = source.numbers if isinstance(source, DeviceTensor) else source
            into.numbers.copy_(numbers)
            if not isinstance(source, DeviceTensor):
                pinned = self.pinned(source)
                self._moved("upload", numbers, into.device, blocking=not (later and pinned), pinned=pinned)
            both = [t for t in (source,) if isinstance(t, DeviceTensor)]
            into.made[:] = self._use(into.device, both)
            return into
        assert isinstance(source, DeviceTensor)
        self._use(source.device, [source])
        found = source.numbers.to(into.dtype).expand(into.shape)
        if later and self.pinned(into):
            self._download(found.clone(), into, source.device)
        else:
            into.copy_(self._download(found, None, source.device))
        return into

    def _download(self, found: torch.Tensor, into: torch.Tensor | None, place: torch.device) -> torch.Tensor:
        """What arrives at once; or `into`, where it arrives once somebody has waited."""
        self._moved("download", found, place, blocking=into is None, pinned=into is not None)
        if into is None:
            return found
        into.fill_(torch.nan if into.is_floating_point() else 113)
        self.device.current_stream(place).arriving.append(functools.partial(into.copy_, found))
        return into

    def _moved(
        self, kind: Any, what: torch.Tensor, place: torch.device, *, blocking: bool, pinned: bool
    ) -> None:
        self.device.ledger.copy(kind, what.numel() * what.element_size(), pinned)
        if blocking:
            self._wait(place, "copy")

    def _wait(self, place: torch.device, cause: str) -> None:
        """The host waits for the current stream."""
        self.device.ledger.wait(cause)
        stream = self.device.current_stream(place)
        stream.step()
        stream.settle()


def _outputs(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the CPU computes."""
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    if name == "cudnn_batch_norm":
        x, weight, bias, mean, var, training, momentum, eps = args
        found = torch.nn.functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
        return found, found.new_zeros(0), found.new_zeros(0), found.new_zeros(0, dtype=torch.uint8)
    if name in _PRODUCTS and any(isinstance(t, torch.Tensor) and t.dtype in _HALVES for t in args):
        return _product(func, args, kwargs)
    return func(*args, **kwargs)


def _written(func: Any, args: Any, kwargs: Any, ours: Sequence[DeviceTensor], made: list[int]) -> None:
    """After an operation that writes: the shapes of tensors, and which stream has made them."""
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():  # the wrapper's own shape
            func(*args, **kwargs)
    for tensor in ours:
        if tensor.numbers.shape != tensor.shape:
            raise NotImplementedError(f"{func} gave a tensor of the pretended device another shape")
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info and argument.alias_info.is_write and isinstance(value, DeviceTensor):
            value.made[:] = made


def _product(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """A product of halves, summed up in float32 and rounded once; the CPU's own would take minutes."""
    dtype = next(t.dtype for t in args if isinstance(t, torch.Tensor))
    if any(t.dtype != dtype for t in args if isinstance(t, torch.Tensor)):
        raise RuntimeError(f"expected operands of {func} to have the same dtype")
    found: torch.Tensor = func(*tree_map_only(torch.Tensor, torch.Tensor.float, args), **kwargs)
    return found.to(dtype)


@functools.cache
def _composite(func: Any) -> bool:
    """Whether torch makes the operation of others, on every device alike."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _check_dtypes(name: str, ours: Sequence[DeviceTensor]) -> None:
    """What CUDA says where it has no kernel."""
    for tensor in ours:
        whole = not (tensor.is_floating_point() or tensor.is_complex())
        half = tensor.dtype in _HALVES
        if name in _ABSENT or (name in _FLOATING and whole) or (name in _NOT_HALF and half):
            raise NotImplementedError(f'"{name}" not implemented for {str(tensor.dtype)!r} on CUDA')
