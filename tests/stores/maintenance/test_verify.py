"""Damage of any kind to any file: found, never read, and mended to the last bit where that is possible."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr

from stores.bank import documents
from stores.bank.layout import MANIFEST
from stores.bank.reader import Bank
from stores.bank.records import RunRecord
from stores.bank.writer import FeatureWriter, open_or_create, write_certificate
from stores.errors import BankError, Refused
from stores.maintenance.verify import VerifyReport, quarantine, verify
from tests.stores.banks import chunk_result, content, fill, make_bank, make_key, make_manifest

ROWS, DIM = 150, 24
FLIPS = 300
LOCKS = ("lock", "commit.lock")


@dataclass(frozen=True)
class Sealed:
    """A sealed bank of two features, and its bytes."""

    path: Path
    every: dict[str, bytes]

    @property
    def bank(self) -> Bank:
        return Bank.open(self.path)

    def restore(self, name: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(self.every[name])


def build(root: Path) -> Sealed:
    bank = make_bank(root / "bank", ROWS, DIM)
    key = make_key(bank.image_digest, model="other/model", dtype="float32")
    with FeatureWriter(bank, key, 7) as writer:
        for index in writer.todo:
            writer.commit(chunk_result(index, *writer.bounds(index), 7, seed=2))
        writer.write_provenance({"device": "cpu", "weights": "file"})
        writer.seal()
    write_certificate(bank, key, {"cosine": 0.999999})
    record = {"asked": {"n": 1}, "used": {}, "metrics": {"accuracy": 0.5}, "seconds": {"all": 1.0}}
    RunRecord.now("fewshot", **record).write(bank.path)
    assert verify(bank).ok
    every = {
        path.relative_to(bank.path).as_posix(): path.read_bytes()
        for path in sorted(bank.path.rglob("*"))
        if path.is_file() and path.name not in LOCKS
    }
    return Sealed(bank.path, every)


@pytest.fixture(scope="module")
def shared(quick_folder: Path) -> Sealed:
    """To be damaged and restored."""
    (quick_folder / "shared").mkdir()
    return build(quick_folder / "shared")


@pytest.fixture
def sealed(shared: Sealed, quick_path: Path) -> Iterator[Sealed]:
    """A copy, to be damaged for good."""
    (quick_path / "images").mkdir()
    yield Sealed(Path(shutil.copytree(shared.path, quick_path / "bank")), shared.every)


def names(sealed: Sealed) -> list[str]:
    return [info.name for info in sealed.bank.list()]


def flips() -> list[tuple[int, float, int]]:
    """(which file, where in it, which bit): every file several times, large ones more often."""
    generator = np.random.default_rng(20)
    return [(i, float(generator.random()), int(generator.integers(8))) for i in range(FLIPS)]


def targets(sealed: Sealed) -> list[str]:
    """Every file in turn, then files drawn by size."""
    every = sorted(sealed.every)
    sizes = np.array([len(sealed.every[name]) for name in every], float)
    drawn = np.random.default_rng(21).choice(len(every), FLIPS, p=sizes / sizes.sum())
    return (every * 2 + [every[at] for at in drawn])[:FLIPS]


def used_by(name: str, feature: str) -> bool:
    """Whether opening the feature relies on the file."""
    if name == "embank.json":
        return True
    beside = ("certificate.json", "provenance.json", "stamps.json")
    return f"{feature}/" in name and not name.endswith(beside)


@pytest.mark.slow
def test_bit_flips_anywhere_are_found_and_never_read(shared: Sealed) -> None:
    """300 seeded single-bit flips over all files, each file at least twice."""
    features = names(shared)
    chosen = targets(shared)
    assert set(chosen) == set(shared.every)
    for name, (_, where, bit) in zip(chosen, flips(), strict=True):
        data = bytearray(shared.every[name])
        data[int(where * len(data))] ^= 1 << bit
        (shared.path / name).write_bytes(data)
        report = verify(shared.path)
        assert name in {each.path for each in report.damaged}, f"{name}: a flip was missed"
        assert all(each.path == name for each in report.damaged), "intact files are blamed"
        for feature in features:
            if used_by(name, feature):
                with pytest.raises(BankError):
                    Bank.open(shared.path).features(feature)
        if name == MANIFEST:
            with pytest.raises(BankError, match="damaged"):
                shared.bank.manifest()
        if "/columns/label" in name:
            with pytest.raises(BankError, match="damaged"):
                _ = shared.bank.features(features[0]).labels
        shared.restore(name)
    assert verify(shared.path).ok
    for feature in features:
        Bank.open(shared.path).features(feature)


def recompute(sealed: Sealed, lost: dict[str, list[int]]) -> None:
    """What the engine does after a quarantine, with the very inputs."""
    bank = sealed.bank
    for name in lost:
        first = name.startswith("torchvision")
        key = make_key(bank.image_digest, **({} if first else {"model": "other/model", "dtype": "float32"}))
        assert key.name == name
        with FeatureWriter(bank, key, DIM if first else 7) as writer:
            assert writer.todo == lost[name]
        fill(bank, key, DIM if first else 7, seed=0 if first else 2)


def assert_mended(sealed: Sealed, but: tuple[str, ...] = ()) -> None:
    found = content(sealed.path)
    free = ("stamps.json", "provenance.json", *but)
    wanted = {n: d for n, d in sealed.every.items() if not n.endswith(free) and not n.startswith("records/")}
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert verify(sealed.path).ok
    for name in names(sealed):
        sealed.bank.features(name)


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "grow":
        path.write_bytes(data + b"\0")
    else:
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flip", "delete", "truncate", "empty", "grow"])
def test_any_file_spoilt_in_any_way_is_mended_to_the_last_bit(
    shared: Sealed, quick_path: Path, how: str
) -> None:
    (quick_path / "images").mkdir()
    every = sorted(shared.every)
    # What is no JSON document has more ways of being wrong than a flipped bit, but not many.
    for turn, name in enumerate(every if how in ("flip", "delete") else every[::4]):
        place = quick_path / str(turn)
        copy = Sealed(Path(shutil.copytree(shared.path, place)), shared.every)
        spoil(copy.path / name, how)
        report = verify(copy.path)
        optional = name.endswith(("certificate.json", "provenance.json", "stamps.json")) or "records/" in name
        if how == "delete" and optional:
            assert report.ok
            continue
        assert not report.ok, f"{name}: {how} was missed"
        assert all(each.remedy for each in report.damaged)
        if name == MANIFEST:  # Not in the bank's power: the run that brings the same manifest puts it back.
            open_or_create(copy.path, make_manifest(quick_path, ROWS))
        lost = quarantine(copy.path, report)
        chunk = {each.chunk for each in report.damaged} - {None}
        assert [index for chunks in lost.values() for index in chunks] == sorted(chunk)
        recompute(copy, lost)
        assert_mended(copy, but=("certificate.json",) if name.endswith("certificate.json") else ())
        shutil.rmtree(place)


def test_swapped_chunks_are_found_though_zarr_reads_them(sealed: Sealed) -> None:
    name = names(sealed)[1]
    first, second = (sealed.path / name / "embedding" / "c" / str(index) / "0" for index in (0, 1))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert len(zarr.open_array(sealed.path / name / "embedding", mode="r")[:]) == ROWS, "checksums are right"
    with pytest.raises(BankError, match="Chunk 0 of"):
        sealed.bank.features(name)
    report = verify(sealed.path)
    assert [(each.feature, each.chunk) for each in report.damaged] == [(name, 0), (name, 1)]
    lost = quarantine(sealed.bank, report)
    assert lost == {name: [0, 1]}
    recompute(sealed, lost)
    assert_mended(sealed)


def test_a_deleted_chunk_is_found_though_zarr_reads_fill(sealed: Sealed) -> None:
    name = names(sealed)[0]
    (sealed.path / name / "embedding" / "c" / "2" / "0").unlink()
    assert np.isnan(zarr.open_array(sealed.path / name / "embedding", mode="r")[128:]).all()
    with pytest.raises(BankError, match=r"Chunk 2 of .*missing"):
        sealed.bank.features(name)
    assert [each.reason for each in verify(sealed.path).damaged] == ["missing"]


def test_damage_everywhere_at_once(sealed: Sealed) -> None:
    first, second = names(sealed)
    for name in (
        f"{first}/embedding/c/0/0",
        f"{first}/norm/c/2",
        f".embank/{first}/markers/000001.json",
        f".embank/{first}/key.json",
        f"{second}/zarr.json",
        f"{second}/status/zarr.json",
        f".embank/{second}/seal.json",
        ".embank/columns/group.npy",
        "zarr.json",
    ):
        spoil(sealed.path / name, "flip")
    report = verify(sealed.path)
    assert len(report.damaged) == 9
    lost = quarantine(sealed.path, report)
    assert lost == {first: [0, 1, 2]}
    recompute(sealed, lost)
    assert_mended(sealed)


def test_key_and_seal_both_lost_need_the_same_command_again(sealed: Sealed) -> None:
    name = names(sealed)[1]
    for lost in ("key.json", "seal.json"):
        spoil(sealed.path / ".embank" / name / lost, "flip")
    report = verify(sealed.path)
    assert any("same `embank embed` command" in each.remedy for each in report.damaged)
    assert quarantine(sealed.path, report) == {name: []}
    recompute(sealed, {name: []})
    assert_mended(sealed)


def test_a_feature_without_its_side_documents_is_found(sealed: Sealed) -> None:
    name = names(sealed)[0]
    shutil.rmtree(sealed.path / ".embank" / name)
    report = verify(sealed.path)
    assert {each.path for each in report.damaged} == {f".embank/{name}/key.json", "zarr.json"}
    assert quarantine(sealed.path, report) == {name: []}
    assert list(zarr.open_group(sealed.path, mode="r").group_keys()) == names(sealed)


def test_an_unsealed_feature_is_verified_by_its_markers(quick_path: Path) -> None:
    bank = open_or_create(quick_path / "bank", make_manifest(quick_path, ROWS), chunk_rows=64)
    key = make_key(bank.image_digest)
    with FeatureWriter(bank, key, DIM) as writer:
        for index in (0, 2):
            writer.commit(chunk_result(index, *writer.bounds(index), DIM))
    assert verify(bank) == VerifyReport(2, ())
    spoil(bank.path / key.name / "norm" / "c" / "2", "flip")
    spoil(bank.path / key.name / "embedding" / "zarr.json", "flip")
    report = verify(bank)
    assert sorted(str(each.chunk) for each in report.damaged) == ["2", "None"]
    assert quarantine(bank, report) == {key.name: [2]}
    with FeatureWriter(bank, key, DIM) as writer:
        assert writer.todo == [1, 2]
    fill(bank, key, DIM)
    (quick_path / "again").mkdir()
    assert content(bank.path) == content(make_bank(quick_path / "again" / "bank", ROWS, DIM).path)


def test_a_lost_run_document_needs_a_witness(quick_path: Path) -> None:
    bank = open_or_create(quick_path / "bank", make_manifest(quick_path, ROWS), chunk_rows=64)
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        writer.commit(chunk_result(0, 0, 64, DIM))
    (bank.path / "embank.json").unlink()
    before = content(bank.path)
    report = verify(bank.path)
    assert [each.path for each in report.damaged] == ["embank.json"]
    with pytest.raises(BankError, match="no finished feature confirms"):
        quarantine(bank.path, report)
    assert content(bank.path) == before
    with pytest.raises(BankError, match="embank bank repair"):
        open_or_create(bank.path, make_manifest(quick_path, ROWS))


def test_a_run_document_is_not_rebuilt_against_the_seals(sealed: Sealed) -> None:
    """The manifest was exchanged as well: nothing can say what the bank was."""
    (sealed.path / "embank.json").unlink()
    make_manifest(sealed.path.parent, ROWS + 1).write(sealed.path / MANIFEST)
    with pytest.raises(BankError, match="no finished feature confirms"):
        quarantine(sealed.path, verify(sealed.path))


def test_features_can_be_chosen(sealed: Sealed) -> None:
    first, second = names(sealed)
    spoil(sealed.path / first / "norm" / "c" / "0", "flip")
    assert verify(sealed.bank, [second]).ok
    assert not verify(sealed.bank, [first]).ok
    assert verify(sealed.bank, ["torchvision/resnet18"]).ok == verify(sealed.bank, [second]).ok
    with pytest.raises(BankError, match="is not in"):
        verify(sealed.bank, ["unknown"])


def test_a_bank_that_is_being_written_is_not_mended(sealed: Sealed) -> None:
    name = names(sealed)[1]
    spoil(sealed.path / name / "norm" / "c" / "0", "flip")
    report = verify(sealed.path)
    with (
        FeatureWriter(sealed.bank, make_key(sealed.bank.image_digest), DIM),
        pytest.raises(Refused),
    ):
        quarantine(sealed.path, report)


def test_the_report_counts_chunks_and_tells_progress(sealed: Sealed) -> None:
    told: list[tuple[int, int]] = []
    report = verify(sealed.path, progress=lambda done, total: told.append((done, total)))
    assert report.ok
    assert report.chunks == 6
    assert report.to_dict() == {"ok": True, "chunks": 6, "damaged": []}
    assert told[-1][0] == told[-1][1] == len(told)
    with pytest.raises(BankError, match="not a bank"):
        verify(sealed.path.parent)


def test_another_schema_is_refused_not_called_damage(sealed: Sealed) -> None:
    path = sealed.path / "embank.json"
    path.write_bytes(documents.encode({**documents.read(path), "schema": 2}))
    with pytest.raises(BankError, match="schema version 2"):
        verify(sealed.path)
