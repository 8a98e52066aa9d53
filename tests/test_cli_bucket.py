"""The commands on a bank in a bucket: the numbers of the bank on disk, resume, repair, workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.faults.s3 import Server, environment
from stores.backends import object_requests, private
from stores.backends.location import Place, place
from stores.manifest.manifest import Manifest
from tests.buckets import serving
from tests.command import Ran, embank

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("bucket") as found, pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment(found.url), private.CACHE_VARIABLE: ""}.items():
            patch.setenv(name, value)
        object_requests.bucket_of.cache_clear()
        yield found
    object_requests.bucket_of.cache_clear()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bucket") / "images"
    generator = np.random.default_rng(0)
    for i in range(40):
        path = root / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    (root / "class0" / "00.png").write_bytes(b"no image")
    (root.parent / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    assert embank("manifest", "folder", root, "-o", root.parent / "m.parquet").code == 0
    return root.parent / "m.parquet"


def words(manifest: Path, bank: str) -> list[str]:
    recipe = manifest.with_name("recipe.json")
    asked = ["embed", manifest, "--model", "random/squeezenet1_1", "--recipe", recipe, "--bank", bank]
    return [*map(str, asked), "--device", "cpu", "--chunk-rows", "8", "--max-failed", "0.5", "--json"]


def embed(manifest: Path, bank: str, *more: str) -> Ran:
    ran = embank(*words(manifest, bank), *more)
    assert ran.code == 0, ran.err
    return ran


@pytest.fixture(scope="module")
def disk(manifest: Path) -> Path:
    path = manifest.with_name("bank")
    embed(manifest, str(path))
    return path


@pytest.fixture(scope="module")
def bucket(server: Server, manifest: Path) -> str:
    embed(manifest, "s3://bucket/study/bank")
    return "s3://bucket/study/bank"


def values(bank: Place | str, out: Path) -> np.ndarray:
    assert embank("bank", "export", bank, "-o", out, "--overwrite").code == 0
    return np.load(out / "embeddings.npy")


def test_evaluations_give_the_numbers_of_the_bank_on_disk(disk: Path, bucket: str) -> None:
    fewshot = ["--model", "random/squeezenet1_1", "--n-way", 2, "--n-shot", 3, "--n-query", 3, "--json"]
    knn = ["--model", "random/squeezenet1_1", "--leave-one-out", "-k", 3, "--device", "cpu", "--json"]
    for command, options, compared in (
        ("fewshot", fewshot, ("accuracy", "ci95", "images", "masked")),
        ("knn", knn, ("test", "by_k", "masked")),
    ):
        left, right = (embank(command, bank, *options) for bank in (disk, bucket))
        assert right.code == 0, right.err
        assert {name: left.json[name] for name in compared} == {name: right.json[name] for name in compared}


def test_predictions_lie_beside_the_record_in_the_bucket_as_on_disk(
    disk: Path, bucket: str, tmp_path: Path
) -> None:
    words = ("--model", "random/squeezenet1_1", "--leave-one-out", "-k", 1, "--device", "cpu", "--json")
    tables = []
    for name, bank in (("disk", disk), ("bucket", bucket)):
        assert embank("knn", bank, *words).code == 0
        record = embank("records", "ls", bank, "--kind", "knn", "--json").json["records"][-1]["record"]
        out = tmp_path / f"{name}.csv"
        ran = embank("records", "export", bank, "--predictions", record, "-o", out, "--json")
        assert (ran.code, ran.json["rows"]) == (0, 39), ran.err
        tables.append(out.read_text())
        assert embank("bank", "verify", bank).code == 0
    assert tables[0] == tables[1] and "truth,predicted,score.class0,score.class1" in tables[0]


def test_looking_and_exporting(
    disk: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = (embank("bank", "ls", bank, "--json").json[0] for bank in (disk, bucket))
    assert left == right
    assert right["failed"] == 1
    shown = embank("bank", "show", bucket, "--failures")
    assert shown.out.startswith(f"{bucket}: 40 rows in chunks of 8")
    assert "row 0: " in shown.out
    made = embank("records", "ls", bucket, "--kind", "embed", "--json").json["records"]
    assert [each["text"] for each in made] == ["39 of 40 images ok, 1 failed"]
    assert embank("records", "show", bucket, made[0]["record"], "--json").json["metrics"]["failed"] == 1
    out = tmp_path / "new" / "r.csv"
    assert embank("records", "export", bucket, "-o", out).code == 0 and "metrics,ok,,39," in out.read_text()
    np.testing.assert_array_equal(values(disk, tmp_path / "a"), values(bucket, tmp_path / "b"))
    monkeypatch.chdir(tmp_path)
    assert embank("bank", "export", bucket, "--format", "parquet").code == 0
    assert (tmp_path / "bank-export" / "embeddings.parquet").is_file()


def test_other_labels(manifest: Path, bucket: str, tmp_path: Path) -> None:
    frame = Manifest.read(manifest).frame[::-1]
    frame["label"] = ["even" if row % 2 else "odd" for row in range(len(frame))]
    frame.to_parquet(tmp_path / "m.parquet")
    for new in (str(tmp_path / "bank"), "s3://bucket/relabelled/bank"):
        ran = embank("bank", "relabel", bucket, tmp_path / "m.parquet", "-o", new, "--json")
        assert ran.code == 0, ran.err
        assert (ran.json["classes"], ran.json["in_order"]) == ({"even": 20, "odd": 20}, False)
        assert embank("bank", "verify", new).code == 0
        np.testing.assert_array_equal(values(bucket, tmp_path / "a"), values(new, tmp_path / new[:2]))


def test_a_second_run_computes_nothing(manifest: Path, bucket: str) -> None:
    assert embed(manifest, bucket).json["embedded"] == 0


def test_verify_and_repair(manifest: Path, disk: Path, server: Server, tmp_path: Path) -> None:
    bank = "s3://bucket/broken/bank"
    embed(manifest, bank)
    assert embank("bank", "verify", bank).out == f"{bank}: 5 chunks verified, no damage\n"
    (feature,) = embank("bank", "ls", bank, "--json").json
    damaged = place(f"{bank}/{feature['name']}/embedding/c/3/0")
    data = bytearray(object_requests.read_if_there(damaged) or b"")
    data[77] ^= 32
    object_requests.replace(damaged, bytes(data))
    ran = embank("bank", "verify", bank, "--json")
    assert (ran.code, [each["chunk"] for each in ran.json["damaged"]]) == (1, [3])
    ran = embank("knn", bank, "--model", "random/squeezenet1_1", "--leave-one-out", "--device", "cpu")
    assert ran.code == 2
    assert f"embank bank repair {bank}" in ran.err
    ran = embank("bank", "repair", bank, "--json")
    assert (ran.code, ran.json["recomputed"]) == (0, 1), ran.err
    np.testing.assert_array_equal(values(disk, tmp_path / "a"), values(bank, tmp_path / "b"))


def test_two_workers(manifest: Path, disk: Path, server: Server, tmp_path: Path) -> None:
    bank = "s3://bucket/workers/bank"
    ran = embed(manifest, bank, "--workers", "2")
    assert (ran.json["embedded"], ran.json["workers"]) == (40, 2)
    np.testing.assert_array_equal(values(disk, tmp_path / "a"), values(bank, tmp_path / "b"))


def test_killed_and_resumed(manifest: Path, disk: Path, server: Server, tmp_path: Path) -> None:
    """SIGKILL while the third chunk's second object is on its way."""
    bank = "s3://bucket/killed/bank"
    code = "import cli; cli.main()"
    run = subprocess.Popen([sys.executable, "-c", code, *words(manifest, bank)], cwd=ROOT)

    def kill(count: int, method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/norm/c/2"):
            os.kill(run.pid, signal.SIGKILL)

    with server.faulty(kill):
        assert run.wait(300) == -signal.SIGKILL
    (feature,) = embank("bank", "ls", bank, "--json").json
    assert feature["pending"] == 24
    assert embed(manifest, bank).json["embedded"] == 24
    np.testing.assert_array_equal(values(disk, tmp_path / "a"), values(bank, tmp_path / "b"))


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [("403", 2, "AWS_ACCESS_KEY_ID"), ("500", 3, "committed chunks are kept"), ("404", 2, "not a bank")],
)
def test_exit_codes(
    bucket: str, server: Server, monkeypatch: pytest.MonkeyPatch, kind: str, code: int, said: str
) -> None:
    monkeypatch.setattr(object_requests, "RETRIES", {"max_retries": 0})
    object_requests.bucket_of.cache_clear()
    with server.faulty(lambda count, method, path: kind):
        ran = embank("bank", "ls", bucket)
    object_requests.bucket_of.cache_clear()
    assert ran.code == code
    assert said in ran.err
    assert bucket in ran.err


def test_a_url_that_is_none_of_ours() -> None:
    ran = embank("bank", "ls", "https://example.org/bank")
    assert ran.code == 2
    assert "s3://" in ran.err
