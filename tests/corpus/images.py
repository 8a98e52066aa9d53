"""The corpus of images, good and bad, made here in code: `BYTES` are files, `PLACES` what paths lead to."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from engine.recipes import Recipe


@dataclass(frozen=True)
class Case:
    """One image.

    Attributes:
        name: for test ids.
        make: its bytes.
        code: failure code that is due, or "" where the row has to be good.
        golden: uint8 [h, w] or [h, w, 3] that a good one shows (before resizing); None: whatever Pillow's
            `open().convert("RGB")` gives.
        recipe: to render with.
        digest: of the undamaged file, where the manifest holds digests.
    """

    name: str
    make: Callable[[], bytes]
    code: str = ""
    golden: Callable[[], np.ndarray] | None = None
    recipe: Recipe = field(default_factory=Recipe)


# ---- a picture, and ways to write it


def scene(height: int = 250, width: int = 290, channels: int = 3) -> np.ndarray:
    """A smooth picture with edges, uint8 [height, width, channels] (no last axis for one channel)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / (9 + 4 * c)) + np.cos(y / (14 - 3 * c)) for c in range(channels)]
    picture = np.stack(waves, -1) * 40 + 128
    picture[height // 3 : height // 2, width // 4 : width // 2] += 60
    levels = picture.clip(0, 255).astype(np.uint8)
    return levels[:, :, 0] if channels == 1 else levels


def written(pixels: np.ndarray, format: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    """The picture as a file of Pillow's."""
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, format, **options)
    return out.getvalue()


def jpeg(**options: object) -> bytes:
    return written(scene(), "JPEG", **{"quality": 90, **options})


def png(**options: object) -> bytes:
    return written(scene(), "PNG", **options)


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head


def png_of_zeros(width: int, height: int) -> bytes:
    """Valid, grey, all zeros; packed without holding the pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width) * 100
    parts = [packer.compress(row) for _ in range(height // 100)]
    packed = b"".join([*parts, packer.compress(bytes(1 + width) * (height % 100)), packer.flush()])
    return png_header(width, height) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def with_chunk(kind: bytes, payload: bytes) -> bytes:
    """A good PNG with one more chunk after its header."""
    data = png()
    return data[:33] + png_chunk(kind, payload) + data[33:]


def packed_bomb(size: int = 200_000_000) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1_000_000)
    return b"".join([packer.compress(block) for _ in range(size // len(block))] + [packer.flush()])


def png_16(values: np.ndarray) -> bytes:
    """16 bits a sample; grey [h, w] or RGB [h, w, 3]."""
    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = png_header(width, height, 16, 0 if values.ndim == 2 else 2)
    return head + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def tiff(values: np.ndarray, photometric: int = 1, **changed: int) -> bytes:
    """Uncompressed, little-endian, one strip, one channel, one page."""
    kinds = {"u": 1, "i": 2, "f": 3}
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = {
        256: values.shape[1], 257: values.shape[0], 258: 8 * values.itemsize, 259: 1, 262: photometric,
        273: 8, 277: 1, 278: values.shape[0], 279: len(data), 339: kinds[values.dtype.kind],
    }  # fmt: skip
    tags |= {int(tag[1:]): value for tag, value in changed.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


def flipped(data: bytes, at: int, mask: int = 0x10) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped_in_scan(data: bytes) -> bytes:
    """One bit of a JPEG's coded data, somewhere near the middle where no marker comes or goes by it."""
    at = len(data) // 2
    while {0xFF, 0xFB} & set(data[at - 1 : at + 2]):
        at += 1
    return flipped(data, at, 0x04)


def with_rows(data: bytes, rows: int) -> bytes:
    """A PNG whose header promises more rows than its intact data hold; Pillow would show them black."""
    return recrc(data[:20] + struct.pack(">I", rows) + data[24:])


def frames(format: str) -> bytes:
    out = io.BytesIO()
    first, *others = (Image.fromarray(np.roll(scene(), 20 * i, 1)) for i in range(3))
    if format == "GIF":
        first, others = first.convert("P"), [frame.convert("P") for frame in others]
    first.save(out, format, save_all=True, append_images=others)
    return out.getvalue()


def dicom(values: np.ndarray, bits: int = 8, syntax: str = "", **tags: object) -> bytes:
    """A DICOM file of the picture, grey or RGB. `tags` are set by keyword; None removes one.

    `syntax` is the UID of a transfer syntax that pydicom can write, explicit VR little endian if left out.
    """
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    pydicom.pixels.set_pixel_data(
        dataset, values, "MONOCHROME2" if values.ndim == 2 else "RGB", bits, generate_instance_uid=False
    )
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def dicom_around(data: bytes, syntax: str, bits: int, shape: tuple[int, int] = (250, 290)) -> bytes:
    """A DICOM file around a coded grey picture."""
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(dicom(np.zeros((1, 1), np.uint8 if bits == 8 else np.uint16), bits)))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.Rows, dataset.Columns = shape
    dataset.PixelData = pydicom.encaps.encapsulate([data])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset)
    return out.getvalue()


def dicom_garbage() -> bytes:
    return bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\xc8\x00\x00\x00" + bytes(200)


def jpeg_sized(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    data = jpeg()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def jpeg_12_bits() -> bytes:
    data = jpeg()
    at = data.index(b"\xff\xc0")
    return data[: at + 1] + b"\xc1" + data[at + 2 : at + 4] + b"\x0c" + data[at + 5 :]


def idat_start(data: bytes) -> int:
    return data.index(b"IDAT") + 4


def interlaced(missing: int = 0) -> bytes:
    """Adam7, grey, without some of the last bytes; Pillow cannot write it."""
    pixels = scene(channels=1)
    starts = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    parts = (pixels[top::down, left::along] for top, left, down, along in starts)
    raw = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    packed = zlib.compress(raw[: len(raw) - missing])
    height, width = pixels.shape
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def recrc(data: bytes) -> bytes:
    """Right checksums for all chunks, so that only their content is wrong."""
    out, at = [data[:8]], 8
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        out.append(png_chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(out)


def depth_ramp(high: int) -> np.ndarray:
    """uint16 values from 0 to `high`, [250, 290]."""
    return (scene(channels=1).astype(np.float64) / 255 * high).astype(np.uint16)


def scaled(high: float, low: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.rint(
        ((values.astype(np.float64) - low) * 255 / (high - low)).clip(0, 255)
    ).astype(np.uint8)


_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
_HTML = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"
_SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>\n'
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"

EMPTY = (
    Case("no bytes", lambda: b"", "empty"),
    Case("one byte", lambda: b"\xff", "unknown_format"),
    Case("HTML", lambda: _HTML, "unknown_format"),
    Case("Git LFS pointer", lambda: _LFS, "unknown_format"),
    Case("SVG", lambda: _SVG, "unknown_format"),
    Case("EPS", lambda: _EPS, "unknown_format"),
    Case("MetaImage header", lambda: b"ObjectType = Image\nNDims = 3\n", "unknown_format"),
    Case("RIFF that is a sound", lambda: b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40), "unknown_format"),
    Case("zeros", lambda: bytes(1000), "unknown_format"),
)

TRUNCATED = (
    Case("JPEG, half", lambda: half(jpeg()), "truncated"),
    Case("JPEG, minus 20 bytes", lambda: jpeg()[:-20], "truncated"),
    Case("JPEG, minus its end marker", lambda: jpeg()[:-2], "truncated"),
    Case("JPEG, 100 bytes", lambda: jpeg()[:100], "truncated"),
    Case("JPEG, 3 bytes", lambda: jpeg()[:3], "truncated"),
    Case(
        "JPEG, progressive, half",
        lambda: half(jpeg(progressive=True)),
        "truncated",
    ),
    Case("JPEG, end before scan", lambda: jpeg()[: jpeg().index(b"\xff\xda")] + b"\xff\xd9", "truncated"),
    Case("PNG, half", lambda: half(png()), "truncated"),
    Case("PNG, no IEND", lambda: png()[:-12], "truncated"),
    Case("PNG, minus 3 bytes", lambda: png()[:-3], "truncated"),
    Case("PNG, 20 bytes", lambda: png()[:20], "truncated"),
    Case("TIFF, half", lambda: half(written(scene(), "TIFF")), "truncated"),
    Case("TIFF, strip beyond the end", lambda: tiff(scene(channels=1), _279=10**8), "truncated"),
    Case("WebP, half", lambda: half(written(scene(), "WEBP")), "truncated"),
    Case("BMP, half", lambda: half(written(scene(), "BMP")), "truncated"),
    Case("JPEG 2000, half", lambda: half(written(scene(), "JPEG2000")), "truncated"),
    Case("GIF, half", lambda: half(written(scene(), "GIF")), "truncated"),
)

CORRUPT = (
    Case("PNG, data flip", lambda: flipped(png(), idat_start(png()) + 900), "corrupt"),
    Case("PNG, bad checksum", lambda: flipped(png(), len(png()) - 14), "corrupt"),
    Case("PNG, header checksum", lambda: flipped(png(), 30), "corrupt"),
    Case("PNG, zero width", lambda: recrc(png_header(0, 250) + png()[33:]), "corrupt"),
    Case("PNG, impossible depth", lambda: recrc(png_header(290, 250, 3) + png()[33:]), "corrupt"),
    Case("PNG, no data", lambda: png_header(9, 9) + png_chunk(b"IEND", b""), "corrupt"),
    Case("PNG, no palette", lambda: png_header(9, 9, 8, 3) + png()[33:], "corrupt"),
    Case("PNG, zlib stream broken", lambda: recrc(flipped(png(), idat_start(png()) + 900)), "corrupt"),
    Case("PNG, zlib header broken", lambda: recrc(flipped(png(), idat_start(png()))), "corrupt"),
    Case("PNG, too few rows", lambda: with_rows(png(), 251), "truncated"),
    Case("PNG, interlaced, too few rows", lambda: interlaced(missing=1), "truncated"),
    Case("PNG, palette, too few rows", lambda: with_rows(written(scene(), mode="P"), 900), "truncated"),
    Case("JPEG, zero width", lambda: jpeg_sized(0, 250), "corrupt"),
    Case("JPEG, zero height", lambda: jpeg_sized(290, 0), "corrupt"),
    Case("JPEG, segment of length 0", lambda: jpeg()[:4] + b"\0\0" + jpeg()[6:], "corrupt"),
    Case("JPEG, no tables", lambda: jpeg().replace(b"\xff\xdb", b"\xff\xee"), "corrupt"),
    Case("TIFF, no data", lambda: tiff(scene(channels=1), _273=0xFFFFFFF0), "truncated"),
    Case("TIFF, zero height", lambda: tiff(scene(channels=1), _257=0), "corrupt"),
)

BOMBS = (
    Case("PNG header 65500 x 65500", lambda: png_header(65500, 65500) + png()[33:], "too_large"),
    Case("PNG header 2^31 - 1", lambda: png_header(2**31 - 1, 2**31 - 1) + png()[33:], "too_large"),
    Case("JPEG header 65500 x 65500", lambda: jpeg_sized(65500, 65500), "too_large"),
    Case(
        "TIFF header 2^31 - 1", lambda: tiff(scene(channels=1), _256=2**31 - 1, _257=2**31 - 1), "too_large"
    ),
    Case("real PNG 20000 x 20000", lambda: png_of_zeros(20000, 20000), "too_large"),
    Case("real PNG 13000 x 13000", lambda: png_of_zeros(13000, 13000), "too_large"),
    Case("zTXt of 200 MB", lambda: with_chunk(b"zTXt", b"Comment\0\0" + packed_bomb()), "too_large"),
    Case("iTXt of 200 MB", lambda: with_chunk(b"iTXt", b"Comment\0\1\0\0\0" + packed_bomb()), "too_large"),
    Case("iCCP of 200 MB", lambda: with_chunk(b"iCCP", b"ICC profile\0\0" + packed_bomb()), "too_large"),
    Case(
        "JPEG of 300 scans",
        lambda: jpeg()[:-2] + jpeg()[jpeg().index(b"\xff\xda") : -2] * 300 + b"\xff\xd9",
        "too_large",
    ),
    Case("JPEG of 20,000 segments", lambda: jpeg()[:2] + b"\xff\xfe\0\2" * 20_000 + jpeg()[2:], "too_large"),
)


def _first_gif_frame() -> np.ndarray:
    return np.asarray(Image.fromarray(scene()).convert("P").convert("RGB"))


MULTI_FRAME = (
    Case("GIF of 3 frames", lambda: frames("GIF"), golden=_first_gif_frame),
    Case("animated PNG", lambda: frames("PNG"), "multi_frame"),
    Case("TIFF of 3 pages", lambda: frames("TIFF"), "multi_frame"),
    Case("animated WebP", lambda: frames("WEBP"), "multi_frame"),
    Case("GIF of one frame", lambda: written(scene(), "GIF")),
)

SILENT = (
    Case("JPEG, flip in the middle", lambda: flipped_in_scan(jpeg())),
    Case(
        "JPEG, zeros in the middle",
        lambda: jpeg()[: len(jpeg()) // 2] + bytes(2000) + jpeg()[len(jpeg()) // 2 + 2000 :],
    ),
)

_EXIF = Image.Exif()
_EXIF[0x0112] = 6

MODES = (
    Case("JPEG", jpeg),
    Case("JPEG, grey", lambda: written(scene(channels=1), "JPEG", quality=90)),
    Case("JPEG, 4:4:4", lambda: jpeg(subsampling=0)),
    Case("JPEG, progressive", lambda: jpeg(progressive=True)),
    Case("JPEG, grey, progressive", lambda: written(scene(channels=1), "JPEG", progressive=True)),
    Case("JPEG, CMYK", lambda: written(scene(), "JPEG", "CMYK", quality=95)),
    Case("JPEG, restart markers", lambda: jpeg(restart_marker_blocks=4)),
    Case("JPEG, EXIF 6, not asked to turn", lambda: jpeg(exif=_EXIF)),
    Case(
        "JPEG, EXIF 6, turned", lambda: jpeg(exif=_EXIF, quality=100, subsampling=0), recipe=Recipe(exif=True)
    ),
    Case("JPEG, thumbnail in its comment", lambda: jpeg(comment=jpeg()[:9000])),
    Case("PNG", png, golden=scene),
    Case("PNG, grey", lambda: written(scene(channels=1)), golden=lambda: scene(channels=1)),
    Case("PNG, 1 bit", lambda: written(scene(), mode="1")),
    Case("PNG, palette", lambda: written(scene(), mode="P")),
    Case("PNG, palette with transparency", lambda: written(scene(), mode="P", transparency=3)),
    Case(
        "PNG, LA",
        lambda: written(np.dstack([scene(channels=1), scene()[:, :, 1]])),
        golden=lambda: scene(channels=1),
    ),
    Case("PNG, RGBA", lambda: written(np.dstack([scene(), scene()[:, :, 1]])), golden=scene),
    Case(
        "PNG, black",
        lambda: written(np.zeros((250, 260), np.uint8)),
        golden=lambda: np.zeros((250, 260), np.uint8),
    ),
    Case("PNG, interlaced", interlaced, golden=lambda: scene(channels=1)),
    Case("PNG, RGB with transparent colour", lambda: png(transparency=(1, 2, 3)), golden=scene),
    Case(
        "PNG, grey with transparent level",
        lambda: written(scene(channels=1), transparency=9),
        golden=lambda: scene(channels=1),
    ),
    Case(
        "PNG, colour profile and text",
        lambda: with_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"hello" * 50)),
        golden=scene,
    ),
    Case("TIFF", lambda: written(scene(), "TIFF"), golden=scene),
    Case("TIFF, LZW", lambda: written(scene(), "TIFF", compression="tiff_lzw"), golden=scene),
    Case(
        "TIFF, white is zero",
        lambda: tiff(255 - scene(channels=1), photometric=0),
        golden=lambda: scene(channels=1),
    ),
    Case("WebP, lossless", lambda: written(scene(), "WEBP", lossless=True), golden=scene),
    Case("WebP, lossy", lambda: written(scene(), "WEBP")),
    Case("BMP", lambda: written(scene(), "BMP"), golden=scene),
    Case("JPEG 2000", lambda: written(scene(), "JPEG2000"), golden=scene),
    Case(
        "1 x 1",
        lambda: written(np.full((1, 1, 3), 200, np.uint8)),
        golden=lambda: np.full((1, 1, 3), 200, np.uint8),
    ),
    Case(
        "1 x 20000",
        lambda: written(np.full((1, 20000), 77, np.uint8)),
        golden=lambda: np.full((1, 20000), 77, np.uint8),
    ),
    Case(
        "20000 x 1, JPEG",
        lambda: written(np.full((20000, 1), 77, np.uint8), "JPEG"),
        golden=lambda: np.full((20000, 1), 77, np.uint8),
    ),
    Case(
        "black",
        lambda: written(np.zeros((240, 260, 3), np.uint8), "JPEG"),
        golden=lambda: np.zeros((240, 260, 3), np.uint8),
    ),
    Case(
        "white",
        lambda: written(np.full((240, 260, 3), 255, np.uint8), "JPEG"),
        golden=lambda: np.full((240, 260, 3), 255, np.uint8),
    ),
    Case("exactly 224", lambda: written(scene(224, 224)), golden=lambda: scene(224, 224)),
    Case("smaller", lambda: written(scene(64, 50)), golden=lambda: scene(64, 50)),
    Case("trailing bytes, JPEG", lambda: jpeg() + b"\xff\xd9 trailing \xff\xd8\xff\0" * 30),
    Case("trailing bytes, PNG", lambda: png() + bytes(500), golden=scene),
)

_SCALE = Recipe(depth="scale")
_12_IN_16 = Recipe(depth="window", window=(0, 4095))
_FLOATS = Recipe(depth="window", window=(-1, 1))


def _floats() -> np.ndarray:
    return (scene(channels=1).astype(np.float32) / 127.5 - 1).astype(np.float32)


DEPTH = (
    Case("PNG, 16 bits", lambda: png_16(depth_ramp(65535)), "depth"),
    Case("PNG, 16 bits, RGB", lambda: png_16(scene().astype(np.uint16) * 257), "depth"),
    Case("TIFF, 16 bits", lambda: tiff(depth_ramp(65535)), "depth"),
    Case("TIFF, float32", lambda: tiff(_floats()), "depth"),
    Case("TIFF, int16", lambda: tiff(depth_ramp(9).astype(np.int16)), "depth"),
    Case("JPEG, 12 bits", jpeg_12_bits, "undecodable"),
    Case(
        "PNG, 16 bits, scale",
        lambda: png_16(depth_ramp(65535)),
        "",
        lambda: scaled(65535)(depth_ramp(65535)),
        _SCALE,
    ),
    Case(
        "TIFF, 16 bits, scale",
        lambda: tiff(depth_ramp(65535)),
        "",
        lambda: scaled(65535)(depth_ramp(65535)),
        _SCALE,
    ),
    Case(
        "12 in 16, window",
        lambda: png_16(depth_ramp(4095)),
        "",
        lambda: scaled(4095)(depth_ramp(4095)),
        _12_IN_16,
    ),
    Case(
        "12 in 16, white is zero",
        lambda: tiff(4095 - depth_ramp(4095), photometric=0),
        "",
        lambda: 255 - scaled(4095)(4095 - depth_ramp(4095)),
        _12_IN_16,
    ),
    Case("float32, window", lambda: tiff(_floats()), "", lambda: scaled(1, -1)(_floats()), _FLOATS),
    Case("float32, scale", lambda: tiff(_floats()), "depth", None, _SCALE),
    Case(
        "PNG, 16 bits, RGB, scale",
        lambda: png_16(scene().astype(np.uint16) * 200),
        "",
        lambda: scaled(65535)(scene().astype(np.uint16) * 200),
        _SCALE,
    ),
    Case("PNG, 16 bits, voi", lambda: png_16(depth_ramp(65535)), "depth", None, Recipe(depth="voi")),
    Case("8 bits under voi", png, "", scene, Recipe(depth="voi")),
    Case(
        "float32, not finite", lambda: tiff(np.full((250, 290), np.nan, np.float32)), "corrupt", None, _FLOATS
    ),
    Case("8 bits under a window", png, "", scene, _12_IN_16),
)

_VOI = Recipe(depth="voi")
_HU = Recipe(depth="window", window=(-1000, 250))
_DEFLATED, _RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_JPEG, _JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"


def _grey_jpeg() -> bytes:
    return written(scene(channels=1), "JPEG")


def _hounsfield() -> np.ndarray:
    return (scene(channels=1).astype(np.int16) - 100) * 10


def _ct(**tags: object) -> bytes:
    """Stored as in CT: 1024 above the Hounsfield units."""
    stored = (_hounsfield() + 1024).clip(0).astype(np.uint16)
    return dicom(stored, 12, **{"RescaleSlope": 1, "RescaleIntercept": -1024, **tags})


def _shown_ct(low: float, high: float) -> Callable[[], np.ndarray]:
    return lambda: scaled(high, low)((_hounsfield() + 1024).clip(0) - 1024)


def deflated(plain: bytes, more: bytes = b"") -> bytes:
    """A DICOM file with its data set deflated, `more` elements before it."""
    meta = plain.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x00" + _DEFLATED.encode())
    # The group's length is the value of its first element.
    length = struct.unpack_from("<I", meta, 140)[0] + 2
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(more + meta[144 + length :]) + packer.flush()
    return meta[:140] + struct.pack("<I", length) + meta[144 : 144 + length] + packed


def _deflated_bomb(size: int = 20_000_000) -> bytes:
    """A private element that unpacks to 20 MB."""
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, size) + bytes(size)
    return deflated(dicom(scene(channels=1)), element)


def _deflated_pixels() -> bytes:
    """Pixels that unpack to 60 MB, of which 73 kB are wanted."""
    return deflated(dicom(scene(channels=1), PixelData=bytes(60_000_000)))


DICOM = (
    Case("garbage", dicom_garbage, "truncated"),
    Case("no preamble", lambda: dicom(scene(channels=1))[132:], "unknown_format"),
    Case("140 bytes", lambda: dicom(scene(channels=1))[:140], "truncated"),
    Case("half", lambda: half(dicom(scene(channels=1))), "truncated"),
    Case("minus 20 bytes", lambda: dicom(scene(channels=1))[:-20], "truncated"),
    Case("compressed, half", lambda: half(dicom(scene(channels=1), syntax=_RLE)), "corrupt"),
    Case(
        "65535 x 65535 with 128 bytes",
        lambda: dicom(np.zeros((8, 16), np.uint8), Rows=65535, Columns=65535),
        "too_large",
    ),
    Case("no rows", lambda: dicom(scene(channels=1), Rows=0), "corrupt"),
    Case("no size", lambda: dicom(scene(channels=1), Rows=None), "corrupt"),
    Case("no pixels", lambda: dicom(scene(channels=1), PixelData=None), "no_pixels"),
    Case("three frames", lambda: dicom(scene(channels=1), NumberOfFrames=3), "multi_frame"),
    Case(
        "no palette", lambda: dicom(scene(channels=1), PhotometricInterpretation="PALETTE COLOR"), "corrupt"
    ),
    Case("deflated bomb", _deflated_bomb, "too_large"),
    Case("deflated bomb of pixels", _deflated_pixels, "too_large"),
    Case("deflated, half", lambda: half(deflated(dicom(scene(channels=1)))), "truncated"),
    Case("deflated", lambda: deflated(dicom(scene(channels=1))), golden=lambda: scene(channels=1)),
    Case(
        "a film",
        lambda: dicom(scene(channels=1)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.10"[:20]),
        "undecodable",
    ),
    Case(
        "a JPEG of another size inside",
        lambda: dicom_around(jpeg_sized(65500, 65500), _JPEG, 8),
        "corrupt",
    ),
    Case("a smaller JPEG inside", lambda: dicom_around(jpeg_sized(9, 9), _JPEG, 8), "corrupt"),
    Case("16 bits", lambda: dicom(depth_ramp(65535), 16), "depth"),
    Case("16 bits, voi without a window", lambda: dicom(depth_ramp(65535), 16), "depth", None, _VOI),
    Case("signed, scale", lambda: dicom(_hounsfield(), 16), "depth", None, _SCALE),
    Case("16 bits in colour, voi", lambda: dicom(scene().astype(np.uint16) * 257, 16), "depth", None, _VOI),
    Case("16 bits in colour, scale", lambda: dicom(scene().astype(np.uint16) * 257, 16), "", scene, _SCALE),
    Case("window of no width", lambda: _ct(WindowCenter=0, WindowWidth=0), "corrupt", None, _VOI),
    Case("8 bits", lambda: dicom(scene(channels=1)), golden=lambda: scene(channels=1)),
    Case(
        "8 bits, MONOCHROME1",
        lambda: dicom(255 - scene(channels=1), PhotometricInterpretation="MONOCHROME1"),
        golden=lambda: scene(channels=1),
    ),
    Case("RGB", lambda: dicom(scene()), golden=scene),
    Case(
        "8 bits under a window",
        lambda: dicom(scene(channels=1)),
        golden=lambda: scene(channels=1),
        recipe=_HU,
    ),
    Case("8 bits under voi", lambda: dicom(scene(channels=1)), golden=lambda: scene(channels=1), recipe=_VOI),
    Case(
        "JPEG inside",
        lambda: dicom_around(_grey_jpeg(), _JPEG, 8),
        golden=lambda: np.asarray(Image.open(io.BytesIO(_grey_jpeg()))),
    ),
    Case(
        "RLE, 12 bits, scale",
        lambda: dicom(depth_ramp(4095), 12, _RLE),
        "",
        lambda: scaled(4095)(depth_ramp(4095)),
        _SCALE,
    ),
    Case(
        "JPEG 2000, 16 bits, scale",
        lambda: dicom_around(written(depth_ramp(65535), "JPEG2000", no_jp2=True), _JPEG_2000, 16),
        "",
        lambda: scaled(65535)(depth_ramp(65535)),
        _SCALE,
    ),
    Case(
        "12 bits, scale",
        lambda: dicom(depth_ramp(4095), 12),
        "",
        lambda: scaled(4095)(depth_ramp(4095)),
        _SCALE,
    ),
    Case(
        "16 bits, scale, MONOCHROME1",
        lambda: dicom(depth_ramp(65535), 16, PhotometricInterpretation="MONOCHROME1"),
        "",
        lambda: 255 - scaled(65535)(depth_ramp(65535)),
        _SCALE,
    ),
    Case("CT under a window in Hounsfield units", _ct, "", _shown_ct(-1000, 250), _HU),
    Case(
        "signed CT under a window",
        lambda: dicom(_hounsfield(), 16),
        "",
        lambda: scaled(250, -1000)(_hounsfield()),
        _HU,
    ),
    # C.11.2.1.2: LINEAR maps centre - 0.5 -+ (width - 1) / 2 to the ends; LINEAR_EXACT centre -+ width / 2.
    Case(
        "CT under its own window",
        lambda: _ct(WindowCenter=-300, WindowWidth=1401),
        "",
        _shown_ct(-1000.5, 399.5),
        _VOI,
    ),
    Case(
        "CT under its own exact window",
        lambda: _ct(WindowCenter=[-300, 40], WindowWidth=[1400, 80], VOILUTFunction="LINEAR_EXACT"),
        "",
        _shown_ct(-1000, 400),
        _VOI,
    ),
)

#: Files under the default limits, by group. Good ones are good under every decoder, bad ones bad by reason.
BYTES: dict[str, tuple[Case, ...]] = {
    "empty": EMPTY, "truncated": TRUNCATED, "corrupt": CORRUPT, "bombs": BOMBS, "multi-frame": MULTI_FRAME,
    "silent": SILENT, "modes": MODES,
    "depth": DEPTH, "DICOM": DICOM,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Something a path can lead to: `make(root)` prepares it and returns the uri."""

    name: str
    make: Callable[[Path], str]
    code: str = ""


def _linked(target: str) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        (root / "link.jpg").symlink_to(target)
        return "link.jpg"

    return make


def _fifo(root: Path) -> str:
    os.mkfifo(root / "pipe.jpg")
    return "pipe.jpg"


def _directory(root: Path) -> str:
    (root / "folder.jpg").mkdir()
    return "folder.jpg"


def _named(name: str, data: Callable[[], bytes]) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data())
        return name

    return make


def _linked_inside(root: Path) -> str:
    (root / "real.jpg").write_bytes(jpeg())
    (root / "link.jpg").symlink_to("real.jpg")
    return "link.jpg"


def _linked_outside(root: Path) -> str:
    outside = root.parent / "outside.jpg"
    outside.write_bytes(jpeg())
    (root / "link.jpg").symlink_to(outside)
    return "link.jpg"


def _linked_folder(root: Path) -> str:
    outside = root.parent / "elsewhere"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(jpeg())
    (root / "sub").symlink_to(outside)
    return "sub/a.jpg"


def _no_permission(root: Path) -> str:
    (root / "closed.jpg").write_bytes(jpeg())
    (root / "closed.jpg").chmod(0)
    return "closed.jpg"


PLACES = (
    Place("directory", _directory, "not_a_file"),
    Place("FIFO", _fifo, "not_a_file"),
    Place("link to a password file", _linked("/etc/passwd"), "outside_root"),
    Place("link to a device", _linked("/dev/zero"), "not_a_file"),
    Place("link to a terminal", _linked("/dev/tty"), "not_a_file"),
    Place("link to itself", _linked("link.jpg"), "unreadable"),
    Place("dangling link", _linked("nowhere.jpg"), "missing"),
    Place("link to an image outside", _linked_outside, "outside_root"),
    Place("folder linked from outside", _linked_folder, "outside_root"),
    Place("up and out", lambda root: _linked_outside(root) and "../outside.jpg", "outside_root"),
    Place("absolute", lambda root: "/etc/passwd", "outside_root"),
    Place("missing", lambda root: "nothing.jpg", "missing"),
    Place("below a file", lambda root: _named("a.jpg", jpeg)(root) + "/b.jpg", "missing"),
    Place("no permission", _no_permission, "unreadable"),
    Place("300 characters", lambda root: "n" * 296 + ".jpg", "unreadable"),
    Place("400 bytes of UTF-8", lambda root: "é" * 198 + ".jpg", "unreadable"),
    Place("NUL in the name", lambda root: "a\0b.jpg", "unreadable"),
    Place("lone surrogate in the name", lambda root: "a\ud800b.jpg", "unreadable"),
    Place("JPEG named .png", _named("photo.png", jpeg)),
    Place("PNG named .jpg", _named("photo.jpg", png)),
    Place("no suffix, in a folder", _named("deep/er/photo", png)),
    Place("name of many scripts", _named("Röntgen 肺 \N{GRINNING FACE}.png", png)),
    Place("link inside the root", _linked_inside),
)
