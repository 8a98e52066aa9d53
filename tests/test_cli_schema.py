"""A bank of another schema version, at the command line: refused with a remedy, and nothing is touched."""

from pathlib import Path

import pytest

from stores.bank import documents
from tests.command import embank
from tests.stores.banks import content, make_bank

COMMANDS = (
    ("bank", "ls"),
    ("bank", "show"),
    ("bank", "verify"),
    ("bank", "repair"),
    ("bank", "export", "--model", "torchvision/resnet18", "-o", "out"),
    ("bank", "audit", "--model", "torchvision/resnet18"),
    ("bank", "scatter", "--model", "torchvision/resnet18", "-o", "out/x.png"),
    ("bank", "relabel", "m.csv", "-o", "out"),
    ("records", "ls"),
    ("records", "show", "x"),
    ("records", "export", "-o", "out/r.csv"),
    ("fewshot", "--model", "torchvision/resnet18"),
    ("knn", "--model", "torchvision/resnet18", "--leave-one-out"),
)


@pytest.mark.parametrize(
    ("schema", "remedy"), [(2, "install a newer embank"), (0, "embed again into a new bank")]
)
def test_other_schemas_are_refused_by_every_command(
    schema: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bank = make_bank(tmp_path / "bank", 80, 4).path
    path = tmp_path / "bank" / "embank.json"
    path.write_bytes(documents.encode({**documents.read(path), "schema": schema}))
    before = content(tmp_path / "bank")
    (tmp_path / "m.csv").write_text("uri\n00000.png\n")
    for words in COMMANDS:
        size = 2 if words[0] in ("bank", "records") else 1
        ran = embank(*words[:size], bank, *words[size:])
        assert ran.code == 2, words
        assert f"schema version {schema}" in ran.err and remedy in " ".join(ran.err.split()), words
    assert content(tmp_path / "bank") == before
    assert not (tmp_path / "out").exists()
