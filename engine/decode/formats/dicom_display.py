"""Display of DICOM's stored samples: modality and VOI transforms, windows, palettes.

Tables and rescales are applied here instead of by pydicom, which computes table indices in the type of the
samples or entries, where they can overflow, and does not support functional groups.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.decode.bit_depth import scale_to_bytes
from engine.errors import BadImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def modality(dataset: "Dataset", samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert samples to values in the file's unit, e.g. Hounsfield units (PS3.3, C.11.1, C.7.6.16.2.9).

    Raises:
        BadImage: corrupt, if the transform is invalid or incomplete.
    """
    try:
        source = _macro(dataset, "PixelValueTransformationSequence")
        table = _first_item(source, "ModalityLUTSequence")
        if table is not None:
            return _Table.of_item(table, _is_little(dataset)).look_up(samples)
        slope, intercept = _number(source, "RescaleSlope"), _number(source, "RescaleIntercept")
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise BadImage("corrupt", "its DICOM rescale or modality LUT is invalid") from error
    if (slope is None) != (intercept is None) and (slope, intercept) not in ((1, None), (None, 0)):
        raise BadImage("corrupt", "a DICOM rescale slope or intercept without the other")
    if slope is None or intercept is None:
        return samples
    return samples.astype(np.float64) * slope + intercept


def voi(dataset: "Dataset", samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | None:
    """Apply the file's first VOI LUT, else its first window; None if it has neither (PS3.3, C.11.2).

    Raises:
        BadImage: corrupt, if it is invalid; depth, if a VOI LUT has entries beyond its stated range.
    """
    try:
        source = _macro(dataset, "FrameVOILUTSequence")
        item = _first_item(source, "VOILUTSequence")
        table = None if item is None else _Table.of_item(item, _is_little(dataset))
        centre, width = _number(source, "WindowCenter"), _number(source, "WindowWidth")
        function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise BadImage("corrupt", "its DICOM window or VOI LUT is invalid") from error
    if table is not None:
        return scale_to_bytes(table.look_up(modality(dataset, samples)), 0, 2**table.bits - 1, clip=False)
    if centre is None or width is None:
        return None
    return window(modality(dataset, samples), centre, width, function)


def window(
    values: npt.NDArray[Any], centre: float, width: float, function: str = "LINEAR"
) -> npt.NDArray[np.uint8]:
    """Apply a DICOM window.

    Args:
        values: [height, width], after the modality transform.
        centre, width: in the unit of the values.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        BadImage: corrupt, if width or function are not in the standard.

    Source: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.
    """
    min_width = 1.0 if function == "LINEAR" else 0.0
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not (
        width >= min_width and width > 0 and np.isfinite([centre, width]).all()
    ):
        raise BadImage("corrupt", f"a DICOM window {function[:20]!r} of width {width:g}")
    if function == "SIGMOID":
        # Beyond 700 the exponential overflows, where the byte is 0 or 255 anyway.
        slope = ((values.astype(np.float64) - centre) * (-4 / width)).clip(-700, 700)
        return scale_to_bytes(1 / (1 + np.exp(slope)), 0, 1, clip=True)
    middle, half = (centre - 0.5, (width - 1) / 2) if function == "LINEAR" else (centre, width / 2)
    if half == 0:
        return np.where(values > middle, np.uint8(255), np.uint8(0))
    return scale_to_bytes(values, middle - half, middle + half, clip=True)


def palette(dataset: "Dataset", samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Look up the colours [height, width, 3] of samples [height, width] (PS3.3, C.7.6.3.1.5 and C.7.9).

    Raises:
        BadImage: corrupt, if the palette is missing or invalid.
    """
    colours = np.empty((*samples.shape, 3), np.uint8)
    for channel, name in enumerate(("Red", "Green", "Blue")):
        try:
            table = _palette_table(dataset, name)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise BadImage("corrupt", "its DICOM palette is missing or invalid") from error
        colours[:, :, channel] = table.in_bytes().look_up(samples)
    return colours


def _palette_table(dataset: "Dataset", name: str) -> "_Table":
    descriptor = dataset[f"{name}PaletteColorLookupTableDescriptor"].value
    plain = dataset.get(f"{name}PaletteColorLookupTableData")
    if plain is not None:
        return _Table.of(descriptor, plain, _is_little(dataset))
    count, _, bits = _described(descriptor)
    packed = dataset[f"Segmented{name}PaletteColorLookupTableData"].value
    words = _words(packed, bits // 8, _is_little(dataset))
    return _Table.of(descriptor, _expanded([int(word) for word in words], count), True)


@dataclass(frozen=True)
class _Table:
    """A lookup table: `entries` of `bits` bits each, the first one for the value `first`."""

    entries: npt.NDArray[Any]
    first: int
    bits: int

    @classmethod
    def of_item(cls, item: "Dataset", little: bool) -> "_Table":
        """Read the table of a sequence's item."""
        return cls.of(item.LUTDescriptor, item.LUTData, little)

    @classmethod
    def of(cls, descriptor: Any, data: Any, little: bool) -> "_Table":
        """Read a table from its descriptor and data; raise ValueError if they contradict each other."""
        count, first, bits = _described(descriptor)
        if isinstance(data, bytes):
            # Entries of 8 bits may be stored as words or packed (PS3.3, C.11.1.1).
            entries = _words(data, 2 if len(data) >= 2 * count else 1, little)
        else:
            entries = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
        entries = entries[:count]
        if len(entries) < count or entries.max() >= 2**bits:
            raise ValueError("a table that is not what its descriptor says")
        return cls(entries, first, bits)

    def look_up(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the entries of values; values beyond the ends take the outermost entries."""
        if not np.isfinite(values).all():
            raise BadImage("corrupt", "samples that are not finite")
        # Computed in float64, which represents samples of all types.
        index = np.rint(values.astype(np.float64) - self.first).clip(0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)]

    def in_bytes(self) -> "_Table":
        """Return the table with entries scaled to 8 bits."""
        return _Table(scale_to_bytes(self.entries, 0, 2**self.bits - 1, clip=False), self.first, 8)


def _described(descriptor: Any) -> tuple[int, int, int]:
    """Return the number of entries, the value of the first, and bits per entry (PS3.3, C.11.1.1.1)."""
    count, first, bits = (int(value) for value in descriptor)
    if not 1 <= bits <= 16:
        raise ValueError(f"{bits} bits an entry")
    return (count & 0xFFFF) or 1 << 16, first, bits


def _words(data: bytes, size: int, little: bool) -> npt.NDArray[Any]:
    complete = data[: len(data) // size * size]
    return np.frombuffer(complete, np.dtype(f"u{size}").newbyteorder("<" if little else ">"))


def _expanded(words: list[int], count: int) -> list[int]:
    """Return the entries of a segmented table (PS3.3, C.7.9.2), at most `count` of them."""
    entries: list[int] = []
    position = 0
    while position + 1 < len(words) and len(entries) < count:
        kind, length = words[position : position + 2]
        position += 2
        if kind == 0:
            entries += words[position : position + length]
            position += length
        elif kind == 1:  # a linear segment from the previous entry (excluded) to the given one
            start, end = entries[-1], words[position]
            entries += np.rint(start + (end - start) * np.arange(1, length + 1) / length).astype(int).tolist()
            position += 1
        else:
            raise BadImage("undecodable", f"a DICOM palette with segments of kind {kind}")
    return entries


def _macro(dataset: "Dataset", name: str) -> "Dataset":
    """Return an item of an enhanced image's functional groups, shared or per frame, else the data set."""
    groups = [group for sequence in _GROUPS if (group := _first_item(dataset, sequence)) is not None]
    items = [item for group in groups if (item := _first_item(group, name)) is not None]
    if len(items) == 2 and items[0] != items[1]:
        raise BadImage("corrupt", f"its shared and its frame's {name} contradict each other")
    return items[0] if items else dataset


def _first_item(dataset: "Dataset", name: str) -> "Dataset | None":
    items = dataset.get(name)
    return items[0] if items else None


def _number(dataset: "Dataset", name: str) -> float | None:
    """Return the first value of an element, or None."""
    value = dataset.get(name)
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float | str) else value[0])


def _is_little(dataset: "Dataset") -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)
