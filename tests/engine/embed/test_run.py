"""The main job end to end on small real images: values, sharing, resuming, bad neighbours."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from engine import models
from engine.embed import progress as counting
from engine.embed import worker as chunks
from engine.embed.run import EmbedOptions, PassProgress, embed
from engine.errors import BankError, Refused
from engine.evals.fewshot.bank import fewshot_from_bank
from engine.evals.fewshot.evaluate import Protocol
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.manifest.manifest import Manifest

SMALL = replace(Recipe(), size=40, crop=32)
CPU = Runtime(device="cpu", precision="fp32", threads=2)
OPTIONS = EmbedOptions(batch_size=16, chunk_rows=64)
N = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 smooth pictures of odd sizes in three classes, JPEG and PNG, grey and colour."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(N):
        size = generator.integers(48, 90, 2)
        noise = generator.integers(0, 255, (5, 5, 3), np.uint8)
        picture = Image.fromarray(noise).resize((int(size[0]), int(size[1])), Image.Resampling.BICUBIC)
        path = root / f"class{i % 3}" / f"{i:03}.{'png' if i % 2 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        (picture.convert("L") if i % 4 == 0 else picture).save(path)
    return root


@pytest.fixture(scope="module")
def spec() -> Any:
    return resolve("random/resnet18", recipe=SMALL)


@pytest.fixture(scope="module")
def bank(folder: Path, spec: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bank") / "bank"
    embed(Manifest.from_folder(folder), [spec], path, runtime=CPU, options=OPTIONS)
    return path


def _digests(bank: Path) -> dict[str, str]:
    """Digest of every file that must be a function of the inputs alone."""
    volatile = {"stamps.json", "provenance.json", "lock", "commit.lock"}
    return {
        str(p.relative_to(bank)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(bank.rglob("*"))
        if p.is_file()
        and p.name not in volatile
        and not {"records", "tmp", "quarantine"} & set(p.relative_to(bank).parts)
        and not p.name.endswith(".lock")
    }


@pytest.mark.slow
def test_features_equal_torchvision_on_pillow_images(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain = torchvision.models.resnet18(weights=None).eval()
    for (
        module
    ) in plain.modules():  # statistics away from their start, so that folding them has something to get wrong
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    manifest = Manifest.from_folder(folder)
    spec = resolve("torchvision/resnet18", weights=tmp_path / "w.pth", recipe=SMALL)
    embed(manifest, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS)
    found = np.asarray(Bank.open(tmp_path / "bank").features("torchvision/resnet18").array, np.float64)

    plain.fc = torch.nn.Identity()
    prepare = v2.Compose(
        [
            v2.Resize(40, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(32),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.inference_mode():
        truth = np.concatenate(
            [plain(prepare(Image.open(folder / u).convert("RGB"))[None]).numpy() for u in manifest.uris]
        ).astype(np.float64)
    cosine = (found * truth).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(truth, axis=1)
    assert cosine.min() >= 0.9999
    norm = Bank.open(tmp_path / "bank").features("torchvision/resnet18").norm
    np.testing.assert_allclose(norm, np.linalg.norm(truth, axis=1), rtol=0.02)


class _Counted:
    """A decoder that counts the rows it was asked for."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.name, self.rows = inner, inner.name, 0

    def stream(self, source: Any, batches: Sequence[Sequence[int]]) -> Iterator[Any]:
        self.rows += sum(len(b) for b in batches)
        return self.inner.stream(source, batches)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[_Counted]:
    made: list[_Counted] = []
    original = chunks.make_decoder

    def counted(*args: Any, **kwargs: Any) -> _Counted:
        made.append(_Counted(original(*args, **kwargs)))
        return made[-1]

    monkeypatch.setattr(chunks, "make_decoder", counted)
    return made


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Slugs of the models that were loaded."""
    loaded: list[str] = []
    original = models.load

    def counted(spec: Any, runtime: Runtime) -> Any:
        loaded.append(spec.slug)
        return original(spec, runtime)

    monkeypatch.setattr(models, "load", counted)
    return loaded


@pytest.mark.slow
def test_models_with_one_recipe_share_one_decode_pass(
    folder: Path, spec: Any, bank: Path, tmp_path: Path, decoders: list[_Counted]
) -> None:
    other = resolve("random/mobilenet_v3_small", recipe=SMALL)
    alone = resolve("random/resnet18", recipe=replace(SMALL, crop=40), seed=1)
    manifest = Manifest.from_folder(folder)
    reports = embed(manifest, [spec, alone, other], tmp_path / "bank", runtime=CPU, options=OPTIONS)
    assert [d.rows for d in decoders if d.rows] == [N, N]  # those made beforehand decode nothing
    assert [r.model for r in reports] == ["random/resnet18", "random/resnet18", "random/mobilenet_v3_small"]
    shared = Bank.open(tmp_path / "bank")
    name = Bank.open(bank).list()[0].name
    np.testing.assert_array_equal(shared.features(name).array, Bank.open(bank).features(name).array)
    records = {record.used["feature"]: record.seconds for record in read_all(tmp_path / "bank")}
    first, second = (records[report.feature] for report in (reports[0], reports[2]))
    assert first["stages"] == second["stages"], "the clocks of the pass"
    assert first["encode"]["images"] == second["encode"]["images"] == N
    alone = [seconds["encode"]["busy_s"] for seconds in (first, second)]
    assert min(alone) > 0 and sum(alone) <= first["stages"]["encode"]["busy_s"] + 2e-4


def test_a_finished_bank_is_not_computed_again(
    folder: Path, spec: Any, bank: Path, decoders: list[_Counted], loads: list[str]
) -> None:
    before = _digests(bank)
    (report,) = embed(Manifest.from_folder(folder), [spec], bank, runtime=CPU, options=OPTIONS)
    assert (report.embedded, report.ok, loads, decoders) == (0, N, [], [])
    assert _digests(bank) == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_bank_is_opened_once_and_looked_at_again_when_a_feature_is_sealed(
    folder: Path, spec: Any, bank: Path, tmp_path: Path, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seal is of the bank that is still there (`FeatureWriter.seal`); all else needs one look."""
    opened: list[Path] = []
    original = Bank.open.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Bank], path: Any) -> Bank:
        opened.append(path)
        return original(cls, path)

    monkeypatch.setattr(Bank, "open", classmethod(counted))
    manifest = Manifest.from_folder(folder)
    if finished:
        (report,) = embed(manifest, [spec], bank, runtime=CPU, options=OPTIONS)
        assert report.embedded == 0
    else:
        few = Manifest.from_frame(manifest.frame.iloc[:8], manifest.root)
        (report,) = embed(few, [spec], tmp_path / "new", runtime=CPU, options=OPTIONS)
        assert report.embedded == 8
    assert len(opened) == 2


def test_a_decoder_that_is_not_the_named_one_is_refused(
    folder: Path, spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = chunks.make_decoder
    monkeypatch.setattr(
        chunks, "make_decoder", lambda _, *args, **kwargs: original("reference", *args, **kwargs)
    )
    with pytest.raises(Refused, match="decoder reference"):
        embed(Manifest.from_folder(folder), [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS)
    assert not list((tmp_path / "bank").rglob("c/0*"))


@pytest.mark.slow
@pytest.mark.parametrize("after", [16, 80, 140])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    folder: Path, spec: Any, bank: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PROGRESS_EVERY_S", 0.0)

    class Crash(Exception):
        pass

    def crash(progress: PassProgress) -> None:
        if progress.done >= after:
            raise Crash

    manifest = Manifest.from_folder(folder)
    with pytest.raises(Crash):
        embed(manifest, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS, on_progress=crash)
    (report,) = embed(manifest, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS)
    assert report.ok == N
    assert report.embedded == {16: N, 80: N - 64, 140: N - 128}[after]
    assert _digests(tmp_path / "bank") == _digests(bank)


def test_batch_size_and_threads_leave_no_trace(folder: Path, spec: Any, bank: Path, tmp_path: Path) -> None:
    runtime, options = replace(CPU, threads=1), replace(OPTIONS, batch_size=7)
    embed(Manifest.from_folder(folder), [spec], tmp_path / "bank", runtime=runtime, options=options)
    assert _digests(tmp_path / "bank") == _digests(bank)


def test_bad_images_cost_their_row_only(folder: Path, spec: Any, bank: Path, tmp_path: Path) -> None:
    manifest = Manifest.from_folder(folder)
    bad = {3: "truncated", 17: "missing", 64: "unknown_format", 149: "empty"}
    root = tmp_path / "images"
    for uri in manifest.uris:
        (root / uri).parent.mkdir(parents=True, exist_ok=True)
        (root / uri).hardlink_to(folder / uri)
    for row, code in bad.items():
        path = root / manifest.uris[row]
        data = path.read_bytes()
        path.unlink()
        if code != "missing":
            path.write_bytes(
                {"truncated": data[: len(data) // 2], "empty": b""}.get(code, b"<html>not found</html>")
            )
    moved = replace(manifest, root=root)
    (report,) = embed(moved, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS)
    assert (report.ok, report.failed, report.pending) == (N - 4, 3, 1)  # the missing one may come yet
    features = Bank.open(tmp_path / "bank").features("random/resnet18")
    assert {f.row: f.code for f in features.failures()} == bad
    assert np.isnan(features.array[list(bad)]).all()
    good = np.setdiff1d(np.arange(N), list(bad))
    truth = Bank.open(bank).features("random/resnet18").array
    assert features.array[good].tobytes() == truth[good].tobytes()


@pytest.mark.slow
def test_every_image_bad_still_gives_a_sealed_bank(spec: Any, tmp_path: Path) -> None:
    for i in range(5):
        path = tmp_path / "images" / "a" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    manifest = Manifest.from_folder(tmp_path / "images")
    (report,) = embed(manifest, [spec], tmp_path / "bank", runtime=CPU, options=OPTIONS)
    assert (report.ok, report.failed, report.failures) == (0, 5, {"unknown_format": 5})


@pytest.mark.slow
def test_the_report_says_where_the_time_went(folder: Path, spec: Any, tmp_path: Path) -> None:
    seen: list[PassProgress] = []
    manifest = Manifest.from_folder(folder)
    (report,) = embed(manifest, [spec], tmp_path / "b", runtime=CPU, options=OPTIONS, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == N
    for stage in ("decode", "encode", "commit"):
        clock = report.stages[stage]
        assert clock["images"] == N
        assert 0 < clock["busy_s"] <= report.seconds * CPU.threads
        assert {"img_per_s", "starved_s", "blocked_s"} <= set(clock)


def test_an_evaluation_opens_no_image_and_calls_no_encoder(
    bank: Path, monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(torchvision.io, "decode_image", refuse)
    found = fewshot_from_bank(bank, "random/resnet18", Protocol(n_way=3, n_shot=5, n_query=5, episodes=20))
    assert 0 <= found["accuracy"] <= 1
    assert loads == []


@pytest.mark.slow
def test_low_precision_makes_another_array_beside_the_first(folder: Path, spec: Any, tmp_path: Path) -> None:
    manifest = Manifest.from_folder(folder)
    for precision in ("fp32", "bf16"):
        runtime = Runtime.resolve("cpu", precision)
        embed(manifest, [spec], tmp_path / "bank", runtime=runtime, options=OPTIONS)
    store = Bank.open(tmp_path / "bank")
    exact, low = (
        np.asarray(store.features(i.name).array, np.float64)
        for i in sorted(store.list(), key=lambda i: i.key.precision, reverse=True)
    )
    cosine = (exact * low).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(low, axis=1)
    assert len(store.list()) == 2
    assert (exact != low).any()
    assert cosine.min() > 0.999


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cuda_run_agrees_with_the_cpu(
    folder: Path, spec: Any, bank: Path, tmp_path: Path, precision: str
) -> None:
    runtime = Runtime.resolve("cuda", precision)
    embed(Manifest.from_folder(folder), [spec], tmp_path / "bank", runtime=runtime, options=OPTIONS)
    found = np.asarray(Bank.open(tmp_path / "bank").features("random/resnet18").array, np.float64)
    truth = np.asarray(Bank.open(bank).features("random/resnet18").array, np.float64)
    cosine = (found * truth).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(truth, axis=1)
    assert cosine.min() > 0.999


def test_the_same_images_with_other_labels_are_refused(folder: Path, spec: Any, bank: Path) -> None:
    manifest = Manifest.from_folder(folder)
    frame = manifest.frame
    frame["label"] = frame["label"].to_numpy()[::-1]
    relabelled = Manifest.from_frame(frame, folder)
    assert relabelled.image_digest == manifest.image_digest
    before = _digests(bank)
    with pytest.raises(BankError, match="other labels"):
        embed(relabelled, [spec], bank, runtime=CPU, options=OPTIONS)
    assert _digests(bank) == before
