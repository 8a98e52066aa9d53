"""Names for files that are not decoded here: sound pictures of other formats, and what is no picture."""

import zlib
from typing import NoReturn

from engine.errors import BadImage

_CONVERT = "convert it to PNG"
_SLICES = "convert slices to PNG or TIFF (for instance with nibabel)"
_RENDER = "render it as PNG"

#: Pictures and volumes: where the telling bytes are, the bytes, the format's name and what reads it.
_PICTURES = (
    (0, b"\xff\x0a", f"JPEG XL; {_CONVERT} with djxl"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", f"JPEG XL; {_CONVERT} with djxl"),
    (0, b"II\xbc\x01", f"JPEG XR; {_CONVERT} with JxrDecApp, or with imagecodecs in Python"),
    (0, b"BPG\xfb", f"BPG; {_CONVERT} with bpgdec"),
    (0, b"FLIF", f"FLIF; {_CONVERT} with flif"),
    (0, b"qoif", f"QOI; {_CONVERT}, for instance with Pillow"),
    (0, b"8BPS", f"Photoshop (PSD); {_CONVERT}, for instance with Pillow"),
    (0, b"gimp xcf", f"GIMP (XCF); {_CONVERT} with GIMP"),
    (0, b"P7\n", f"PAM; {_CONVERT} with pamtopng"),
    (0, b"PF\n", "PFM, of floating-point samples; convert it to a float32 TIFF"),
    (0, b"Pf\n", "PFM, of floating-point samples; convert it to a float32 TIFF"),
    (0, b"v/1\x01", "OpenEXR; convert it to a float32 TIFF"),
    (0, b"#?RADIANCE", "Radiance HDR; convert it to a float32 TIFF"),
    (0, b"SIMPLE  =", "FITS; convert it to TIFF (for instance with astropy)"),
    (0, b"DDS ", f"DDS; {_CONVERT}, for instance with Pillow"),
    (0, b"SDPX", f"DPX; {_CONVERT} with ImageMagick"),
    (0, b"XPDS", f"DPX; {_CONVERT} with ImageMagick"),
    (0, b"\x8aMNG\r\n\x1a\n", f"MNG; {_CONVERT} with ImageMagick"),
    (0, b"\x8bJNG\r\n\x1a\n", f"JNG; {_CONVERT} with ImageMagick"),
    (0, b"\x97JB2\r\n\x1a\n", f"JBIG2; {_CONVERT} with jbig2dec"),
    (0, b"\x59\xa6\x6a\x95", f"Sun raster; {_CONVERT}, for instance with Pillow"),
    (0, b"\x01\xda\x00\x01", f"SGI; {_CONVERT}, for instance with Pillow"),
    (0, b"\x01\xda\x01\x01", f"SGI; {_CONVERT}, for instance with Pillow"),
    (0, b"\x0a\x05\x01", f"PCX; {_CONVERT}, for instance with Pillow"),
    (0, b"\0\0\1\0", f"a Windows icon; {_CONVERT}, for instance with Pillow"),
    (0, b"AT&TFORM", f"DjVu; {_CONVERT} with ddjvu"),
    (344, b"n+1\0", f"NIfTI; {_SLICES}"),
    (344, b"ni1\0", f"the header of a NIfTI volume (.hdr beside .img); {_SLICES}"),
    (4, b"n+2\0\r\n\x1a\n", f"NIfTI-2; {_SLICES}"),
    (4, b"ni2\0\r\n\x1a\n", f"the header of a NIfTI-2 volume; {_SLICES}"),
    (0, b"\x5c\x01\x00\x00", f"NIfTI or Analyze; {_SLICES}"),
    (0, b"\x00\x00\x01\x5c", f"NIfTI or Analyze; {_SLICES}"),
    (0, b"NRRD000", "NRRD; convert slices to PNG or TIFF (for instance with SimpleITK)"),
    (0, b"CDF\x01", "MINC or NetCDF; convert slices to PNG or TIFF (for instance with nibabel)"),
)

#: What is no picture, or holds pictures to be named within it; compared in lower case.
_OTHERS = (
    (0, b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
    (0, b"%!ps", f"PostScript (EPS); {_RENDER}"),
    (0, b"\xc5\xd0\xd3\xc6", f"PostScript (EPS); {_RENDER}"),
    (0, b"%pdf", f"PDF; {_RENDER}"),
    (0, b"\x08\x00\x05\x00", "DICOM without its preamble; write it as a DICOM file (PS3.10) first"),
    (0, b"\x02\x00\x00\x00ul", "DICOM without its preamble; write it as a DICOM file (PS3.10) first"),
    (0, b"objecttype", "a MetaImage volume; name one of its slices (FILE.mha!/slice/0.5)"),
    (0, b"pk\x03\x04", "a ZIP archive; name a file in it (FILE.zip!/NAME)"),
    (0, b"\x1f\x8b", "gzip; unpack it first"),
    (0, b"\x89hdf\r\n\x1a\n", "HDF5; write its pictures as PNG or TIFF"),
    (0, b"\x93numpy", "a NumPy array; write its pictures as PNG or TIFF"),
    (0, b"matlab 5.0 mat-file", "a MATLAB file; write its pictures as PNG or TIFF"),
)
#: Of a packed volume, enough to know it by.
_HEAD = 352


def refuse(data: bytes) -> NoReturn:
    """Raise what there is to say of a file that no reader takes.

    Raises:
        BadImage: undecodable, a picture of a format that is not decoded here; else unknown_format.
    """
    if what := _picture(data) or _packed_volume(data):
        raise BadImage("undecodable", what)
    head = data[:512].lower()
    what = next((what for at, magic, what in _OTHERS if head.startswith(magic, at)), "")
    if b"<svg" in head:
        what = f"SVG; {_RENDER}"
    elif head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<!doctype html", b"<html")):
        what = "an HTML page, perhaps the error message of a download"
    raise BadImage(
        "unknown_format", f"no image format that is accepted: {what or 'it begins with ' + data[:8].hex(' ')}"
    )


def _picture(data: bytes) -> str:
    return next((what for at, magic, what in _PICTURES if data.startswith(magic, at)), "")


def _packed_volume(data: bytes) -> str:
    """Volumes are usually kept packed: .nii.gz."""
    if not data.startswith(b"\x1f\x8b"):
        return ""
    try:
        what = _picture(zlib.decompressobj(wbits=31).decompress(data[:65536], _HEAD))
    except zlib.error:
        return ""
    return f"packed with gzip: {what}" if what else ""


#: JPEG's frame markers that no decoder here knows -> what they mean.
JPEG_KINDS = dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG; convert it to PNG")
JPEG_KINDS |= {
    0xCB: "lossless JPEG with arithmetic coding; convert it to PNG",
    0xF7: "JPEG-LS; convert it to PNG (for instance with imagecodecs in Python)",
}


def refuse_jpeg(marker: int) -> None:
    """Refuse a JPEG frame of a kind that is not decoded here.

    Raises:
        BadImage: undecodable.
    """
    if marker in JPEG_KINDS:
        raise BadImage("undecodable", JPEG_KINDS[marker])
