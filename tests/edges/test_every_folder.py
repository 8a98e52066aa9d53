"""Every kind of input that once went wrong has copies here and a test of its own."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
COPIES = HERE.parent / "data" / "edges"
#: Where reports of such inputs are collected, beside a checkout.
REPORTED = HERE.parents[2] / "shared" / "failing"


def test_every_copied_folder_is_tested() -> None:
    for folder in COPIES.iterdir():
        test = HERE / f"test_{folder.name.replace('-', '_')}.py"
        assert folder.name in test.read_text()


def test_every_reported_folder_is_copied() -> None:
    if not REPORTED.is_dir():
        pytest.skip(f"no reports at {REPORTED}")
    missing = {f.name for f in REPORTED.iterdir() if f.is_dir()} - {f.name for f in COPIES.iterdir()}
    assert not missing
