"""Pictures that ask to be turned, by every way that a format has of asking, made by hand."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from tests.corpus.images import png_chunk, written
from tests.corpus.tiffs import picture_tags, tiff_of

#: EXIF's orientation -> what a viewer shows of stored rows and columns. EXIF 2.32, tag 274.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def quarters(channels: int = 3) -> np.ndarray:
    """Four flat quarters, told apart at a glance in any orientation; uint8 [24, 40, channels]."""
    tones = np.array([[20, 90], [160, 230]], np.uint8)
    grey, other = (np.kron(levels, np.ones((12, 20), np.uint8)) for levels in (tones, tones[::-1, ::-1] // 2))
    return grey if channels == 1 else np.stack([grey, other, 255 - grey], -1)


def exif(value: int | None, *, big_endian: bool = False, kind: int = 3) -> bytes:
    """An EXIF block with an orientation, or with another tag alone."""
    order, mark = (">", b"MM") if big_endian else ("<", b"II")
    entries = [struct.pack(order + "HHI4s", 305, 2, 4, b"abc\0")]
    if value is not None:
        inline = struct.pack(order + ("H" if kind == 3 else "I"), value).ljust(4, b"\0")
        entries.insert(0, struct.pack(order + "HHI4s", 274, kind, 1, inline))
    return mark + struct.pack(order + "HIH", 42, 8, len(entries)) + b"".join(entries) + bytes(4)


def xmp(value: int, *, element: bool = False) -> bytes:
    inner = (
        f"><tiff:Orientation>{value}</tiff:Orientation></" if element else f' tiff:Orientation="{value}"/><'
    )
    return b"<x:xmpmeta><rdf:Description%b</x:xmpmeta>" % inner.encode()


def app1(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


EXIF_APP1, XMP_APP1 = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def jpeg_with(*segments: bytes) -> bytes:
    data = written(quarters(), "JPEG", quality=100, subsampling=0)
    return data[:2] + b"".join(segments) + data[2:]


def png_with(kind: bytes, payload: bytes, *, last: bool = False) -> bytes:
    data = written(quarters())
    at = data.index(b"IEND") - 4 if last else 33
    return data[:at] + png_chunk(kind, payload) + data[at:]


def raw_profile(name: bytes, payload: bytes) -> bytes:
    digits = payload.hex().encode()
    lines = b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return b"\n%b\n%8d\n%b\n" % (name, len(payload), lines)


def riff_with(kind: bytes, payload: bytes, flag: int) -> bytes:
    """An extended WebP file: VP8X with the flag, the picture, then the chunk."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    picture = written(quarters(), "WEBP", lossless=True)[12:]
    height, width = quarters().shape[:2]
    head = bytes([flag, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + chunk(b"VP8X", head) + picture + chunk(kind, payload)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jp2_with(uuid: bytes, payload: bytes) -> bytes:
    data = written(quarters(), "JPEG2000", irreversible=False)
    at = data.index(b"jp2c") - 4
    return data[:at] + struct.pack(">I4s", 24 + len(payload), b"uuid") + uuid + payload + data[at:]


def tiff_with(value: int, **options: bool) -> bytes:
    return tiff_of(picture_tags(quarters(), _274=value), quarters().tobytes(), **options)


@lru_cache
def avif(value: int) -> bytes:
    """Pillow writes an EXIF orientation as `irot` and `imir`."""
    out = io.BytesIO()
    block = b"Exif\0\0" + exif(value)
    Image.fromarray(quarters()).save(out, "AVIF", quality=100, subsampling="4:4:4", speed=10, exif=block)
    return out.getvalue()


#: Way of asking -> the file that asks for an orientation.
WAYS: dict[str, Callable[[int], bytes]] = {
    "JPEG, EXIF": lambda o: jpeg_with(app1(EXIF_APP1 + exif(o))),
    "JPEG, big-endian EXIF": lambda o: jpeg_with(app1(EXIF_APP1 + exif(o, big_endian=True))),
    "JPEG, EXIF as LONG": lambda o: jpeg_with(app1(EXIF_APP1 + exif(o, kind=4))),
    "JPEG, EXIF after XMP that says another": lambda o: jpeg_with(
        app1(XMP_APP1 + xmp(9 - o)), app1(EXIF_APP1 + exif(o))
    ),
    "JPEG, EXIF in two segments": lambda o: jpeg_with(
        app1(EXIF_APP1 + exif(o)[:14]), app1(EXIF_APP1 + exif(o)[14:])
    ),
    "JPEG, XMP": lambda o: jpeg_with(app1(XMP_APP1 + xmp(o))),
    "JPEG, XMP after EXIF without": lambda o: jpeg_with(
        app1(EXIF_APP1 + exif(None)), app1(XMP_APP1 + xmp(o, element=True))
    ),
    "PNG, eXIf": lambda o: png_with(b"eXIf", exif(o)),
    "PNG, eXIf at the end": lambda o: png_with(b"eXIf", exif(o, big_endian=True), last=True),
    "PNG, raw profile": lambda o: png_with(
        b"tEXt", b"Raw profile type exif\0" + raw_profile(b"exif", EXIF_APP1 + exif(o))
    ),
    "PNG, packed raw profile APP1": lambda o: png_with(
        b"zTXt",
        b"Raw profile type APP1\0\0" + zlib.compress(raw_profile(b"generic", EXIF_APP1 + exif(o))),
    ),
    "PNG, raw profile XMP": lambda o: png_with(
        b"tEXt", b"Raw profile type xmp\0" + raw_profile(b"xmp", xmp(o))
    ),
    "PNG, XMP": lambda o: png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(o)),
    "PNG, packed XMP": lambda o: png_with(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(o))),
    "WebP, EXIF": lambda o: riff_with(b"EXIF", exif(o), 0x08),
    "WebP, XMP": lambda o: riff_with(b"XMP ", xmp(o), 0x04),
    "TIFF": tiff_with,
    "TIFF, big-endian": lambda o: tiff_with(o, big_endian=True),
    "BigTIFF": lambda o: tiff_with(o, big=True),
    "TIFF, LZW": lambda o: written(quarters(), "TIFF", compression="tiff_lzw", tiffinfo={274: o}),
    "TIFF, XMP": lambda o: tiff_of(picture_tags(quarters(), _700=xmp(o)), quarters().tobytes()),
    "TIFF that contradicts its XMP": lambda o: tiff_of(
        picture_tags(quarters(), _274=o, _700=xmp(9 - o)), quarters().tobytes()
    ),
    "JPEG 2000, EXIF": lambda o: jp2_with(b"JpgTiffExif->JP2", exif(o)),
    "JPEG 2000, XMP": lambda o: jp2_with(bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), xmp(o)),
    "AVIF, irot and imir": avif,
}
