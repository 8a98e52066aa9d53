"""What rows were made from: images that change under their names, disks that are away, rows tried again."""

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.decode.source import Limits
from engine.embed.repair import repair
from engine.embed.run import EmbedOptions, EmbedReport, InputChecks, embed
from engine.errors import ChangedImage, Refused
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.reader import Bank, FeatureSet
from stores.maintenance.verify import verify
from stores.manifest.manifest import Manifest
from tests.corpus import images
from tests.engine.embed.test_run import _digests
from tests.one_by_one import OneByOne
from tests.stores.banks import flip

pytestmark = pytest.mark.slow

SMALL = replace(Recipe(), size=32, crop=32)
CPU = Runtime(device="cpu", precision="fp32", threads=2)
OPTIONS = EmbedOptions(batch_size=4, chunk_rows=8)
N = 20
ALL = InputChecks(max_missing=1.0)


def _picture(path: Path, seed: int, side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(N):
        _picture(tmp_path / "images" / f"c{i % 2}" / f"{i:02}.png", i)
    return tmp_path / "images"


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return Manifest.from_folder(root)


@pytest.fixture(scope="module")
def spec() -> Any:
    return resolve("random/squeezenet1_1", recipe=SMALL, seed=3)


@pytest.fixture
def run(manifest: Manifest, spec: Any, tmp_path: Path) -> Callable[..., EmbedReport]:
    def run(checks: InputChecks | None = None, model: Any = None, **options: Any) -> EmbedReport:
        (report,) = embed(
            manifest, [model or spec], tmp_path / "bank", runtime=CPU, options=replace(OPTIONS, **options),
            checks=checks,
        )  # fmt: skip
        return report

    return run


@pytest.fixture
def features(tmp_path: Path) -> Callable[[], FeatureSet]:
    return lambda: Bank.open(tmp_path / "bank").features("random/squeezenet1_1")


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_each_row_keeps_the_digest_of_its_file(
    run: Callable[..., EmbedReport], features: Callable[[], FeatureSet], root: Path, manifest: Manifest
) -> None:
    (root / manifest.uris[3]).write_bytes(b"no image")
    (root / manifest.uris[5]).unlink()
    run(ALL)
    expected = [b"\0" * 32 if row == 5 else _sha256(root / uri) for row, uri in enumerate(manifest.uris)]
    assert [row.tobytes() for row in features().contents] == expected


def test_a_digest_is_kept_also_where_the_manifest_has_them(
    root: Path, spec: Any, tmp_path: Path, features: Callable[[], FeatureSet]
) -> None:
    hashed = Manifest.from_folder(root, hash_files=True)
    embed(hashed, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS)
    assert hashed.sha256s is not None
    assert [row.tobytes().hex() for row in features().contents] == hashed.sha256s


def test_a_finished_feature_of_changed_images_is_refused(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, tmp_path: Path
) -> None:
    run()
    before = _digests(tmp_path / "bank")
    for row, uri in enumerate(manifest.uris):
        _picture(root / uri, 100 + row)
    with pytest.raises(ChangedImage, match="20 of 20 compared"):
        run()
    assert _digests(tmp_path / "bank") == before


@pytest.mark.parametrize("row", [0, 7, 19])
def test_one_changed_image_is_named_if_all_are_compared(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, row: int
) -> None:
    run()
    _picture(root / manifest.uris[row], 100)
    with pytest.raises(ChangedImage, match=manifest.uris[row]):
        run(InputChecks(every=True))


def test_a_run_is_not_resumed_on_changed_images(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, tmp_path: Path, spec: Any
) -> None:
    class Crash(Exception):
        pass

    def crash(progress: Any) -> None:
        if progress.done >= 12:
            raise Crash

    from engine.embed import progress as counting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "PROGRESS_EVERY_S", 0.0)
        with pytest.raises(Crash):
            embed(manifest, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS, on_progress=crash)
    assert len(list((tmp_path / "bank").rglob("markers/*.json"))) in (1, 2)
    for row, uri in enumerate(manifest.uris):
        _picture(root / uri, 100 + row)
    with pytest.raises(ChangedImage):
        run()
    assert not list((tmp_path / "bank").rglob("seal.json"))


def test_another_model_of_a_changed_image_is_refused(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, tmp_path: Path
) -> None:
    run()
    before = _digests(tmp_path / "bank")
    _picture(root / manifest.uris[11], 100)
    other = resolve("random/squeezenet1_0", recipe=SMALL)
    with pytest.raises(ChangedImage, match=manifest.uris[11]):
        run(model=other)
    assert _digests(tmp_path / "bank") == before


@pytest.mark.parametrize("row", [3, 19])
def test_a_change_that_the_sample_misses_is_found_when_the_file_is_read(
    run: Callable[..., EmbedReport],
    root: Path,
    manifest: Manifest,
    tmp_path: Path,
    row: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a feature refused before its first chunk nothing is left; committed chunks are kept."""
    run()
    before = _digests(tmp_path / "bank")
    _picture(root / manifest.uris[row], 100)
    monkeypatch.setattr("engine.embed.inputs.SAMPLE", 0)
    with pytest.raises(ChangedImage, match=manifest.uris[row]):
        run(model=resolve("random/squeezenet1_0", recipe=SMALL))
    if row == 3:
        assert _digests(tmp_path / "bank") == before
    else:
        assert [info.sealed for info in Bank.open(tmp_path / "bank").list()].count(True) == 1


def test_accepted_changes_make_features_beside_the_old_ones(
    run: Callable[..., EmbedReport],
    features: Callable[[], FeatureSet],
    root: Path,
    manifest: Manifest,
    tmp_path: Path,
    spec: Any,
) -> None:
    run()
    old = features()
    before, changed = np.array(old.array), 4
    _picture(root / manifest.uris[changed], 100)
    report = run(InputChecks(accept_changed=True))
    assert (report.ok, report.embedded) == (N, N)
    store = Bank.open(tmp_path / "bank")
    (new,) = [store.features(info.name) for info in store.list() if info.name != old.name]
    differ = (np.asarray(new.array) != before).any(axis=1)
    assert np.flatnonzero(differ).tolist() == [changed]
    np.testing.assert_array_equal(store.features(old.name).array, before)
    assert new.contents[changed].tobytes() == _sha256(root / manifest.uris[changed])
    # A bank made of these images from the start agrees.
    embed(manifest, [spec], tmp_path / "fresh", runtime=CPU, options=OPTIONS)
    fresh = Bank.open(tmp_path / "fresh").features("random/squeezenet1_1")
    np.testing.assert_array_equal(fresh.array, new.array)
    assert verify(tmp_path / "bank").ok
    assert run(InputChecks(accept_changed=True)).embedded == 0


@pytest.mark.parametrize("how", ["flip", "remove"])
def test_a_damaged_image_set_is_found_and_made_again(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, tmp_path: Path, how: str
) -> None:
    run()
    _picture(root / manifest.uris[4], 100)
    (root / manifest.uris[5]).write_bytes(b"no image")
    run(InputChecks(accept_changed=True))
    (path,) = (tmp_path / "bank" / ".embank" / "sets").iterdir()
    before = path.read_bytes()
    flip(path) if how == "flip" else path.unlink()
    assert [damage.path for damage in verify(tmp_path / "bank").damaged] == [f".embank/sets/{path.name}"]
    assert repair(tmp_path / "bank", device="cpu")["ok"]
    assert path.read_bytes() == before
    flip(path)
    run(InputChecks(accept_changed=True))  # the other remedy of the message
    assert path.read_bytes() == before


def test_nothing_changed_is_no_new_image_set(run: Callable[..., EmbedReport], tmp_path: Path) -> None:
    run()
    assert run(InputChecks(accept_changed=True)).embedded == 0
    assert len(Bank.open(tmp_path / "bank").list()) == 1


def test_the_finished_feature_does_not_need_its_images(
    run: Callable[..., EmbedReport], root: Path, tmp_path: Path
) -> None:
    run()
    before = _digests(tmp_path / "bank")
    shutil.rmtree(root)
    assert run().embedded == 0
    assert _digests(tmp_path / "bank") == before


def test_a_missing_root_is_refused_before_a_bank_is_made(
    run: Callable[..., EmbedReport], root: Path, tmp_path: Path
) -> None:
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="is not a folder"):
        run()
    assert not (tmp_path / "bank").exists()


def test_too_many_missing_files_are_refused_with_numbers(
    run: Callable[..., EmbedReport], root: Path, tmp_path: Path
) -> None:
    (root / "c1").rename(tmp_path / "unmounted")
    with pytest.raises(Refused, match="10 of 20 image files are missing"):
        run()
    assert not (tmp_path / "bank").exists()


def test_what_was_missing_is_embedded_by_the_same_command(
    run: Callable[..., EmbedReport],
    features: Callable[[], FeatureSet],
    root: Path,
    manifest: Manifest,
    tmp_path: Path,
    spec: Any,
) -> None:
    embed(manifest, [spec], tmp_path / "undisturbed", runtime=CPU, options=OPTIONS)
    path = root / manifest.uris[9]
    path.rename(tmp_path / "away")
    report = run(ALL)
    assert (report.ok, report.failed, report.pending, report.failures) == (N - 1, 0, 1, {"missing": 1})
    assert features().status[9] == 0
    assert np.isnan(features().array[9]).all()
    assert run(ALL).embedded == 0
    (tmp_path / "away").rename(path)
    report = run()
    assert (report.ok, report.pending, report.embedded) == (N, 0, 1)
    assert _digests(tmp_path / "bank") == _digests(tmp_path / "undisturbed")


def test_too_small_a_limit_leaves_rows_pending(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest
) -> None:
    _picture(root / manifest.uris[2], 2, side=60)
    report = run(limits=Limits(max_pixels=2000))
    assert (report.pending, report.failures) == (1, {"too_large": 1})
    assert run(limits=Limits(max_pixels=4000)).ok == N


def test_links_out_of_the_root_wait_for_leave(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, tmp_path: Path
) -> None:
    path = root / manifest.uris[2]
    path.rename(tmp_path / "outside.png")
    path.symlink_to(tmp_path / "outside.png")
    assert run().failures == {"outside_root": 1}
    assert run(allow_outside=True).ok == N


def test_a_package_that_is_not_installed_costs_the_row_that_needs_it(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pydicom = pytest.importorskip("pydicom")
    values = np.random.default_rng(6).integers(0, 255, (40, 40), np.uint8)
    (root / manifest.uris[6]).write_bytes(images.dicom(values))
    deep = resolve("random/squeezenet1_1", recipe=replace(SMALL, depth="scale"), seed=3)
    import importlib.util

    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "pydicom" else find(name))
        report = run(model=deep)
    assert (report.ok, report.pending, report.failures) == (N - 1, 1, {"needs_package": 1})
    assert pydicom.__name__ in sys.modules
    assert run(model=deep).ok == N


@pytest.mark.parametrize("spoilt", [b"", b"<html>", "cut"])
def test_failed_rows_are_tried_again_if_asked(
    run: Callable[..., EmbedReport],
    root: Path,
    manifest: Manifest,
    tmp_path: Path,
    spec: Any,
    spoilt: bytes | str,
) -> None:
    embed(manifest, [spec], tmp_path / "undisturbed", runtime=CPU, options=OPTIONS)
    path = root / manifest.uris[9]
    good = path.read_bytes()
    path.write_bytes(good[:-30] if isinstance(spoilt, str) else spoilt)
    assert (run().failed, run().embedded) == (1, 0)
    path.write_bytes(good)
    assert run().embedded == 0
    report = run(InputChecks(retry_failed=True))
    assert (report.ok, report.failed, report.embedded) == (N, 0, 1)
    assert _digests(tmp_path / "bank") == _digests(tmp_path / "undisturbed")


def test_another_process_can_try_rows_again(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, tmp_path: Path, spec: Any
) -> None:
    """As workers do it, one task at a time, each of which opens the bank itself."""
    embed(manifest, [spec], tmp_path / "undisturbed", runtime=CPU, options=OPTIONS)
    path = root / manifest.uris[9]
    good = path.read_bytes()
    path.write_bytes(b"<html>")
    run()
    path.write_bytes(good)
    checks = InputChecks(retry_failed=True)
    (report,) = embed(
        manifest, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS, checks=checks, executor=OneByOne()
    )
    assert (report.ok, report.embedded) == (N, 1)
    assert _digests(tmp_path / "bank") == _digests(tmp_path / "undisturbed")


def test_trying_again_in_vain_changes_nothing(
    run: Callable[..., EmbedReport], root: Path, manifest: Manifest, tmp_path: Path
) -> None:
    (root / manifest.uris[9]).write_bytes(b"<html>")
    run()
    before = _digests(tmp_path / "bank")
    assert run(InputChecks(retry_failed=True)).failed == 1
    assert _digests(tmp_path / "bank") == before


def test_an_ok_row_stays_as_it_is_while_others_are_tried_again(
    run: Callable[..., EmbedReport],
    features: Callable[[], FeatureSet],
    root: Path,
    manifest: Manifest,
) -> None:
    (root / manifest.uris[9]).write_bytes(b"<html>")
    run()
    before = np.array(features().array)
    (root / manifest.uris[10]).unlink()  # of the same chunk, embedded already
    _picture(root / manifest.uris[9], 9)
    assert run(InputChecks(retry_failed=True)).ok == N
    after = np.array(features().array)
    np.testing.assert_array_equal(np.delete(after, 9, 0), np.delete(before, 9, 0))
    assert np.isfinite(after[9]).all()
