"""Versions in records are those of the metadata."""

from importlib import metadata

from engine.versions import PACKAGES, versions


def test_versions_are_those_of_the_metadata() -> None:
    expected = {}
    for name in PACKAGES:
        try:
            expected[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found = versions()
    found.pop("python")
    assert {"numpy", "embank"} <= set(found)
    assert found == expected
