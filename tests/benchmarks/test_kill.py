"""Killed runs resume to the same bytes (`benchmarks.faults.kill`, small), and the comparison sees damage."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.faults import kill

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for i in range(64):
        (root / f"class{i % 2}").mkdir(exist_ok=True)
        noise = Image.fromarray(generator.integers(0, 255, (8, 8, 3), np.uint8))
        noise.resize((300, 200)).save(root / f"class{i % 2}" / f"{i:02}.png")
    return root


def test_three_kills_leave_no_trace(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = kill.run(kills=3, whole=0, data=folder, chunk_rows=4, side=32, work=tmp_path, say=said.append)
    assert result["problems"] == []
    assert result["ok"] and result["kills"] == 3
    assert result["rows"] == 64 and result["chunks"] == 16
    # Embedding, norm, status, marker of each chunk; more for metadata and documents.
    assert result["files_compared"] > 4 * 16
    assert (tmp_path / "bank000").is_dir()
    _see_damage(tmp_path / "bank000", tmp_path / "undisturbed")


def _see_damage(bank: Path, truth: Path) -> None:
    assert kill.problems_of(bank, truth) == []
    chunk = next(iter(sorted(bank.glob("*/embedding/c/3/0"))))
    whole = chunk.read_bytes()
    chunk.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    found = kill.problems_of(bank, truth)
    assert any(line.endswith("differs") for line in found)
    assert any(line.startswith("verify: ") for line in found)
    chunk.write_bytes(whole)
    marker = next(iter(sorted(bank.glob(".embank/*/markers/000002.json"))))
    marker.rename(marker.with_name("999999.json"))
    found = kill.differences(bank, truth)
    assert [line.split()[0] for line in found] == ["lacks", "has"]


def test_states_are_told_from_files(tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    assert kill.state_of(bank, 2) == "1 before the bank"
    (bank / ".embank" / "tmp").mkdir(parents=True)
    (bank / "embank.json").touch()
    assert kill.state_of(bank, 2) == "2 before the feature"
    side = bank / ".embank" / "m.0123"
    (side / "markers").mkdir(parents=True)
    (side / "key.json").touch()
    assert kill.state_of(bank, 2) == "3 no chunk yet"
    chunk = bank / "m.0123" / "embedding" / "c" / "0" / "0"
    chunk.parent.mkdir(parents=True)
    chunk.touch()
    assert kill.state_of(bank, 2) == "5 inside a commit or seal"
    (side / "markers" / "000000.json").touch()
    assert kill.state_of(bank, 2) == "4 between commits"
    (bank / ".embank" / "tmp" / "x").touch()
    assert kill.state_of(bank, 2) == "5 inside a commit or seal"
    (bank / ".embank" / "tmp" / "x").unlink()
    (side / "markers" / "000001.json").touch()
    assert kill.state_of(bank, 2) == "6 all chunks, no seal"
    (side / "seal.json").touch()
    assert kill.state_of(bank, 2) == "7 sealed"


def test_only_times_and_caches_may_differ(tmp_path: Path) -> None:
    for name in ("records/a.json", ".embank/tmp/x", ".embank/f.0/stamps.json", ".embank/f.0/lock", "f.0/c"):
        for side in ("a", "b"):
            path = tmp_path / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(side if name != "f.0/c" else "same")
    assert kill.differences(tmp_path / "a", tmp_path / "b") == []
    (tmp_path / "b" / "f.0" / "c").write_text("other")
    assert kill.differences(tmp_path / "a", tmp_path / "b") == ["f.0/c differs"]
