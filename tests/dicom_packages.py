"""DICOM packages made invisible for a while, as if they were not installed."""

import contextlib
import importlib.metadata
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

#: The module of each optional package that pydicom decodes with.
PLUGINS = {
    "python-gdcm": "gdcm",
    "pylibjpeg": "pylibjpeg",
    "pylibjpeg-libjpeg": "libjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle",
    "pyjpegls": "jpeg_ls",
}
#: What the extra `embank[dicom]` installs of these.
EXTRA = ("pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls")


@contextlib.contextmanager
def only(*packages: str) -> Iterator[None]:
    """Let pydicom see these of its plug-ins alone; it looks for them once, when it is imported."""
    hidden = {module for package, module in PLUGINS.items() if package not in packages}

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in (*hidden, "pydicom")]

    points = importlib.metadata.entry_points

    def visible(**wanted: str) -> list[Any]:
        return [point for point in points(**wanted) if point.module.partition(".")[0] not in hidden]

    before = {name: sys.modules.pop(name) for name in loaded()}
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not to be found
    try:
        with mock.patch(
            "importlib.metadata.entry_points", visible
        ):  # pylibjpeg finds its own plug-ins by them
            yield
    finally:
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(before)
