"""Removing a feature: all of it and nothing else, and a kill at any moment leaves a bank that is sound."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.evals.invariance.statistics import statistics
from engine.evals.invariance.view_store import Views, ViewStore
from engine.evals.saliency.errors import SampleError
from engine.evals.saliency.maps import MapFolder, OcclusionMap
from engine.kernels.whitening import Regularisation
from stores.backends import flock, private
from stores.bank.layout import SIDE
from stores.bank.names import give
from stores.bank.reader import Bank
from stores.bank.records import RunRecord
from stores.bank.writer import FeatureWriter
from stores.errors import BankError, EmbankError, Refused
from stores.maintenance.relabel import relabel
from stores.maintenance.remove import removable, remove
from stores.maintenance.verify import quarantine, verify
from tests.stores import banks
from tests.stores.banks import content, fill, make_bank, make_key

DIM, ROWS = 5, 130
LOCKS = ("lock", "commit.lock")


def everything(root: Path) -> dict[str, bytes]:
    """Every file but the locks, which say nothing."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in LOCKS
    }


def second(bank: Bank) -> str:
    return make_key(bank.image_digest, weights="b" * 64).name


@pytest.fixture
def bank(quick_path: Path) -> Bank:
    """One feature, and a record."""
    bank = make_bank(quick_path / "bank", ROWS, DIM)
    parts = {"asked": {}, "used": {}, "metrics": {}, "seconds": {}}
    RunRecord.now("fewshot", **parts).write(bank.path)
    return bank


def add_second(bank: Bank) -> str:
    """A second feature with a name, notes and every kind of cache."""
    key = make_key(bank.image_digest, weights="b" * 64)
    fill(bank, key, DIM, seed=1)
    with FeatureWriter(bank, key, DIM) as writer:
        writer.write_provenance({"device": "cpu"})
    give(bank.path, {key.name: "mine"})
    cache(bank, key.name)
    return key.name


def cache(bank: Bank, name: str) -> None:
    features = bank.features(name)
    statistics(features, np.flatnonzero(features.ok), Regularisation.parse("ridge=1e-6"))
    ViewStore(features).write(Views("rotate", ((1.0,),)), 3, np.ones((1, DIM), np.float32), False)
    keep_map(bank, features.key.weights, features.key.architecture, features.key.layer)


def keep_map(bank: Bank, weights: str, architecture: str, layer: str) -> None:
    settings = {"model": "m", "weights": weights, "architecture": architecture, "layer": layer}
    error = SampleError(0, 0.0, 0.0, 0.0, 0.0)
    MapFolder(bank.path, settings).keep("c" * 64, OcclusionMap(np.zeros((2, 2)), error))


def test_all_of_a_feature_goes_and_nothing_else(bank: Bank) -> None:
    cache(bank, bank.features().name)
    before = everything(bank.path)
    name = add_second(bank)
    kinds = ("views", "saliency", "statistics")
    for kind in kinds:
        own = [path for path in everything(bank.path) if path.startswith(f"{SIDE}/{kind}/")]
        assert len(own) > len([path for path in before if path.startswith(f"{SIDE}/{kind}/")])
    report = remove(removable(bank.path, "mine"))
    assert (report["feature"], report["title"], report["sealed"]) == (name, "mine", True)
    assert everything(bank.path) == before
    assert not (bank.path / name).exists()
    assert verify(bank).ok
    assert [info.title for info in bank.list()] == ["torchvision/resnet18"]
    fill(bank, make_key(bank.image_digest, weights="b" * 64), DIM, seed=1)
    assert verify(bank).ok, "it can be made again"


def test_maps_that_another_feature_shares_stay(bank: Bank) -> None:
    key = make_key(bank.image_digest, dtype="float32")
    fill(bank, key, DIM)
    keep_map(bank, key.weights, key.architecture, key.layer)
    remove(removable(bank.path, key.name))
    assert list((bank.path / SIDE / "saliency").rglob("*.arrays"))
    remove(removable(bank.path, "torchvision/resnet18"))
    assert not list((bank.path / SIDE / "saliency").rglob("*.arrays"))


def test_the_last_feature(bank: Bank) -> None:
    remove(removable(bank.path, "torchvision"))
    assert bank.list() == []
    assert verify(bank).ok
    assert len(list((bank.path / "records").iterdir())) == 1


def test_a_feature_that_is_not_finished(bank: Bank) -> None:
    before = everything(bank.path)
    with FeatureWriter(bank, make_key(bank.image_digest, weights="b" * 64), DIM) as writer:
        writer.commit(banks.chunk_result(0, *writer.bounds(0), DIM))
    assert remove(removable(bank.path, second(bank)))["sealed"] is False
    assert everything(bank.path) == before


@pytest.mark.parametrize(
    "spoilt",
    [
        ["key.json"],
        ["seal.json"],
        ["key.json", "seal.json"],
        ["key.json", "seal.json", "markers/000000.json", "name.json"],
    ],
)
@pytest.mark.parametrize("how", ["flip", "remove"])
def test_a_damaged_feature(spoilt: list[str], how: str, bank: Bank) -> None:
    before = everything(bank.path)
    name = add_second(bank)
    for each in spoilt:
        path = bank.path / SIDE / name / each
        if how == "flip":
            banks.flip(path)
        else:
            path.unlink()
    remove(removable(bank.path, name))
    left = {path for path in everything(bank.path) if path not in before}
    # Without its key nobody knows which statistics and maps were made from it: `bank prune` takes those.
    assert all(path.startswith((f"{SIDE}/statistics/", f"{SIDE}/saliency/")) for path in left)
    assert verify(bank).ok


def test_folders_that_somebody_took_the_documents_from(bank: Bank) -> None:
    before = everything(bank.path)
    name = add_second(bank)
    shutil.rmtree(bank.path / SIDE / name)
    assert not verify(bank).ok
    remove(removable(bank.path, name))
    left = {path for path in everything(bank.path) if path not in before}
    assert all(path.startswith((f"{SIDE}/statistics/", f"{SIDE}/saliency/")) for path in left)
    assert verify(bank).ok


def test_a_bank_that_shares_files_is_not_touched(bank: Bank, quick_path: Path) -> None:
    name = add_second(bank)
    other = relabel(bank, bank.manifest(), quick_path / "other").bank
    before = everything(other.path)
    remove(removable(bank.path, name))
    assert everything(other.path) == before
    assert verify(other).ok
    assert other.features("mine").array.shape == (ROWS, DIM)


def test_quarantined_chunks_and_temporaries_go_too(bank: Bank) -> None:
    before = everything(bank.path)
    name = add_second(bank)
    banks.flip(bank.path / name / "norm" / "c" / "1")
    quarantine(bank, verify(bank))
    (bank.path / SIDE / "tmp" / f"{name}~0011").write_bytes(b"torn")
    assert list((bank.path / SIDE / "quarantine").iterdir())
    remove(removable(bank.path, name))
    assert everything(bank.path) == before
    assert not list((bank.path / SIDE / "quarantine").iterdir())


def test_what_is_being_written_is_refused(bank: Bank) -> None:
    name = add_second(bank)
    before = everything(bank.path)
    with (
        FeatureWriter(bank, make_key(bank.image_digest, weights="b" * 64), DIM),
        pytest.raises(Refused, match="is being written by process"),
    ):
        remove(removable(bank.path, name))
    assert everything(bank.path) == before


def test_a_word_that_fits_several_removes_none(bank: Bank) -> None:
    add_second(bank)
    for word in ("torchvision/resnet18", "torchvision"):
        with pytest.raises(BankError, match="could be any of"):
            removable(bank.path, word)
    with pytest.raises(BankError, match="is not in"):
        removable(bank.path, "nothing")
    with pytest.raises(BankError, match="is not a bank"):
        removable(bank.path.parent / "nowhere", "x")
    assert not (bank.path.parent / "nowhere").exists()


class Died(BaseException):
    """The process ends here."""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_what_the_next_command_finishes(quick_path: Path) -> None:
    """Before every touch of the disk: then all is found sound, mended or removed, and the rest untouched."""
    bank = make_bank(quick_path / "bank", ROWS, DIM)
    before = everything(bank.path)
    name = add_second(bank)
    whole = content(bank.path)
    total = 0
    with banks.patched(banks.Os(banks.nothing)) as counting:
        copy = Path(shutil.copytree(bank.path, quick_path / "copy"))
        remove(removable(copy, name))
        total = counting.count
    assert everything(copy) == before
    shutil.rmtree(copy)
    outcomes = set()
    for moment in range(1, total + 1):

        def before_call(count: int, *_: object, moment: int = moment) -> None:
            if count >= moment:  # nothing works any more
                raise Died

        copy = Path(shutil.copytree(bank.path, quick_path / "copy"))
        with pytest.raises(Died), banks.patched(banks.Os(before_call)):
            remove(removable(copy, name))
        for lock in list(flock._held):  # as the kernel does for a process that has ended
            lock.release()
        outcomes.add(after_a_kill(copy, name, before, whole))
        shutil.rmtree(copy)
    assert outcomes == {"there", "mended", "begun", "gone"}


def after_a_kill(root: Path, name: str, before: dict[str, bytes], whole: dict[str, bytes]) -> str:
    report = verify(root)
    outcome = "there"
    if not report.ok:
        lost = quarantine(root, report)
        assert lost == {} or all(not chunks for chunks in lost.values()), "no chunk is thought damaged"
        assert verify(root).ok
        outcome = "mended"
    bank = Bank.open(root)
    assert bank.features(make_key(bank.image_digest).name).array.shape == (ROWS, DIM)
    if name not in [info.name for info in bank.list()]:
        outcome = "gone"
    elif bank.is_sealed(name):
        bank.features(name)
        assert {path: data for path, data in content(root).items() if path in whole} == whole
    else:
        outcome = "begun"
    try:
        remove(removable(root, name))
    except EmbankError as error:
        assert outcome == "gone", error
    assert everything(root) == before
    return outcome


@pytest.mark.parametrize("step", [1, 7])
def test_an_error_of_the_disk_is_said_and_the_same_command_finishes(step: int, quick_path: Path) -> None:
    bank = make_bank(quick_path / "bank", ROWS, DIM)
    before = everything(bank.path)
    name = add_second(bank)

    def fail(count: int, call: str, args: object) -> None:
        if call == "unlink" and count % step == 0:
            raise OSError(5, "Input/output error")

    with pytest.raises(EmbankError) as fault, banks.patched(banks.Os(fail)):
        remove(removable(bank.path, name))
    assert fault.value.exit_code == 3
    remove(removable(bank.path, name))
    assert everything(bank.path) == before


def test_the_copy_of_a_seal_goes(bank: Bank, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    name = add_second(bank)
    monkeypatch.setenv(private.CACHE_VARIABLE, str(quick_path / "cache"))
    seal = (bank.path / SIDE / name / "seal.json").read_bytes()
    own = quick_path / "cache" / "banks" / hashlib.sha256(seal).hexdigest()
    other = quick_path / "cache" / "banks" / ("0" * 64)
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(b"x")
    remove(removable(bank.path, name))
    assert (own.exists(), other.exists()) == (False, True)
