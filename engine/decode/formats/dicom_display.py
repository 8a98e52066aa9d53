"""What DICOM's stored samples mean and how they are shown: modality and VOI transforms, windows, palettes.

Tables and rescales are applied here, not by pydicom: it indexes tables with the type of the samples or of the
entries, which wraps around where either is too small, and knows no functional groups.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.decode.bit_depth import levels
from engine.errors import BadImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def modality(dataset: "Dataset", samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values in the file's own unit, for instance Hounsfield units (PS3.3, C.11.1 and C.7.6.16.2.9).

    Raises:
        BadImage: corrupt, a transform that is invalid or incomplete.
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
    """What the file's first VOI LUT, else its first window, shows; None if it has neither (PS3.3, C.11.2).

    Raises:
        BadImage: corrupt, one that is invalid; depth, a VOI LUT of entries beyond its own range.
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
        return levels(table.look_up(modality(dataset, samples)), 0, 2**table.bits - 1, clip=False)
    if centre is None or width is None:
        return None
    return window(modality(dataset, samples), centre, width, function)


def window(
    values: npt.NDArray[Any], centre: float, width: float, function: str = "LINEAR"
) -> npt.NDArray[np.uint8]:
    """A DICOM window to bytes.

    Args:
        values: [height, width], after the modality transform.
        centre, width: in their unit.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        BadImage: corrupt, a width or function that the standard does not know.

    Source: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.
    """
    least = 1.0 if function == "LINEAR" else 0.0
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not (
        width >= least and width > 0 and np.isfinite([centre, width]).all()
    ):
        raise BadImage("corrupt", f"a DICOM window {function[:20]!r} of width {width:g}")
    if function == "SIGMOID":
        # Beyond 700 the exponential overflows, and the byte has long been 0 or 255.
        slope = ((values.astype(np.float64) - centre) * (-4 / width)).clip(-700, 700)
        return levels(1 / (1 + np.exp(slope)), 0, 1, clip=True)
    middle, half = (centre - 0.5, (width - 1) / 2) if function == "LINEAR" else (centre, width / 2)
    if half == 0:
        return np.where(values > middle, np.uint8(255), np.uint8(0))
    return levels(values, middle - half, middle + half, clip=True)


def palette(dataset: "Dataset", samples: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The colours that samples [height, width] stand for: [height, width, 3] (PS3.3, C.7.6.3.1.5 and C.7.9).

    Raises:
        BadImage: corrupt, a palette that is missing or invalid.
    """
    shown = np.empty((*samples.shape, 3), np.uint8)
    for channel, name in enumerate(("Red", "Green", "Blue")):
        try:
            table = _palette_table(dataset, name)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise BadImage("corrupt", "its DICOM palette is missing or invalid") from error
        shown[:, :, channel] = table.in_bytes().look_up(samples)
    return shown


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
    """A lookup table: `entries` of `bits` bits, the first of which is for the value `first`."""

    entries: npt.NDArray[Any]
    first: int
    bits: int

    @classmethod
    def of_item(cls, item: "Dataset", little: bool) -> "_Table":
        return cls.of(item.LUTDescriptor, item.LUTData, little)

    @classmethod
    def of(cls, descriptor: Any, data: Any, little: bool) -> "_Table":
        count, first, bits = _described(descriptor)
        if isinstance(data, bytes):
            # Entries of 8 bits may lie in words or be packed (PS3.3, C.11.1.1).
            entries = _words(data, 2 if len(data) >= 2 * count else 1, little)
        else:
            entries = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
        entries = entries[:count]
        if len(entries) < count or entries.max() >= 2**bits:
            raise ValueError("a table that is not what its descriptor says")
        return cls(entries, first, bits)

    def look_up(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not np.isfinite(values).all():
            raise BadImage("corrupt", "samples that are not finite")
        # In floats first, which hold whatever the samples do.
        at = np.rint(values.astype(np.float64) - self.first).clip(0, len(self.entries) - 1)
        return self.entries[at.astype(np.intp)]

    def in_bytes(self) -> "_Table":
        return _Table(levels(self.entries, 0, 2**self.bits - 1, clip=False), self.first, 8)


def _described(descriptor: Any) -> tuple[int, int, int]:
    """Number of entries, the value of the first, and bits of each (PS3.3, C.11.1.1.1)."""
    count, first, bits = (int(value) for value in descriptor)
    if not 1 <= bits <= 16:
        raise ValueError(f"{bits} bits an entry")
    return (count & 0xFFFF) or 1 << 16, first, bits


def _words(data: bytes, size: int, little: bool) -> npt.NDArray[Any]:
    whole = data[: len(data) // size * size]
    return np.frombuffer(whole, np.dtype(f"u{size}").newbyteorder("<" if little else ">"))


def _expanded(words: list[int], count: int) -> list[int]:
    """Entries of a segmented table (PS3.3, C.7.9.2), `count` of them at most."""
    entries: list[int] = []
    position = 0
    while position + 1 < len(words) and len(entries) < count:
        kind, length = words[position : position + 2]
        position += 2
        if kind == 0:
            entries += words[position : position + length]
            position += length
        elif kind == 1:  # a line from the entry before, without it, to the one that is given
            start, end = entries[-1], words[position]
            entries += np.rint(start + (end - start) * np.arange(1, length + 1) / length).astype(int).tolist()
            position += 1
        else:
            raise BadImage("undecodable", f"a DICOM palette with segments of kind {kind}")
    return entries


def _macro(dataset: "Dataset", name: str) -> "Dataset":
    """The item of an enhanced image's functional groups, shared or the frame's; else the data set itself."""
    groups = [group for of in _GROUPS if (group := _first_item(dataset, of)) is not None]
    items = [item for group in groups if (item := _first_item(group, name)) is not None]
    if len(items) == 2 and items[0] != items[1]:
        raise BadImage("corrupt", f"its shared and its frame's {name} contradict each other")
    return items[0] if items else dataset


def _first_item(dataset: "Dataset", name: str) -> "Dataset | None":
    items = dataset.get(name)
    return items[0] if items else None


def _number(dataset: "Dataset", name: str) -> float | None:
    """The first of an element's values."""
    value = dataset.get(name)
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float | str) else value[0])


def _is_little(dataset: "Dataset") -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)
