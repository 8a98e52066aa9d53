"""From a server or a file into the cache, to safetensors, to an encoder: checks, pins, damage."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torchvision import models

from engine.errors import WeightsError
from engine.models import load, resolve
from engine.models.catalog import families as rows
from engine.models.catalog import lookup as catalog
from engine.models.catalog.entry import Row, Variant
from engine.models.checkpoints import checkpoint_cache
from engine.models.checkpoints.checkpoint_cache import Expected, Published, bring, convert
from engine.models.checkpoints.readers import TorchFile
from engine.recipes import Recipe
from engine.runtime import Runtime
from tests.command import embank
from tests.engine.models.checkpoints.test_download import QUICK, Server, server
from tests.engine.models.plain import cosine, pictures, settle

pytestmark = pytest.mark.slow

assert server  # a fixture
SIDE = 64
SMALL = Recipe(size=SIDE, crop=SIDE)
ARCHITECTURE = "torchvision/resnet18"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoCo-like file of a ResNet-18."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = settle(models.resnet18(weights=None)).state_dict()
    path = tmp_path_factory.mktemp("published") / "theirs.pth.tar"
    torch.save({"epoch": 1, "state_dict": {f"module.encoder_q.{k}": v for k, v in state.items()}}, path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models" / "tiny"


def _source(url: str = "https://127.0.0.1/w.pth", **options: Any) -> Published:
    reader = TorchFile("state_dict", "module.encoder_q.", ("fc.",))
    return Published("tiny", url, "w.pth.tar", reader, **options)


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Iterator[Row]:
    """A row of the catalogue, and nothing else: that is all that adding a model takes."""
    added = Row("tiny", ARCHITECTURE, _source(), SMALL, variants=(Variant("same", "same"),))
    monkeypatch.setattr(catalog, "ROWS", (*rows.ROWS, added))
    return added


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the way in ---------------------------------------------------------------------------------------


def test_from_a_server(server: Server, file: Path, cache: Path) -> None:
    server.content = file.read_bytes()
    server.drops = [1_000_000]
    source = _source(server.url)
    assert source.present() == "no"
    path = bring(source, patience=QUICK, schemes=("http",))
    assert path.read_bytes() == server.content
    assert source.present() == "fetched, not converted"
    pin = json.loads((cache / "source.json").read_text())
    assert pin["sha256"] == _sha256(file)
    assert pin["md5"] == hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    assert (pin["size"], pin["url"], pin["from_file"]) == (len(server.content), server.url, False)
    asked = len(server.asked)
    assert bring(source, schemes=("http",)) == path  # it is there
    assert len(server.asked) == asked
    assert sorted(p.name for p in cache.iterdir()) == ["source.json", "w.pth.tar"]


@pytest.mark.parametrize("known", [Expected(sha256="00"), Expected(md5="ffff"), Expected(size=5)])
def test_a_wrong_file_leaves_nothing(known: Expected, server: Server, file: Path, cache: Path) -> None:
    server.content = file.read_bytes()
    with pytest.raises(WeightsError, match="catalogue expects"):
        bring(_source(server.url, expected=known), patience=QUICK, schemes=("http",))
    with pytest.raises(WeightsError, match="catalogue expects"):
        bring(_source(expected=known), from_file=file)
    assert not cache.exists()


def test_the_beginnings_of_digests_are_enough(file: Path) -> None:
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    known = Expected(_sha256(file)[:8], md5[:8], file.stat().st_size)
    assert bring(_source(expected=known), from_file=file).exists()


def test_what_was_first_fetched_is_pinned(file: Path, cache: Path, tmp_path: Path) -> None:
    bring(_source(), from_file=file)
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {}}, other)
    with pytest.raises(WeightsError, match="pinned") as caught:
        bring(_source(), from_file=other)
    assert str(cache) in caught.value.remedy
    (cache / "w.pth.tar").write_bytes(other.read_bytes())
    for step in (lambda: bring(_source()), lambda: convert(_source(), ARCHITECTURE)):
        with pytest.raises(WeightsError, match="pinned"):
            step()


def test_only_https(file: Path) -> None:
    with pytest.raises(WeightsError, match="https only"):
        bring(_source("http://127.0.0.1/w.pth"))


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b""])
def test_no_weights_file(content: bytes, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "page").write_bytes(content)
    with pytest.raises(WeightsError):
        bring(_source(), from_file=tmp_path / "page")
    assert not (cache / "w.pth.tar").exists()


@pytest.mark.parametrize("variable", ["EMBANK_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_where_the_cache_is(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMBANK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    inside = {"EMBANK_CACHE": "", "XDG_CACHE_HOME": "embank", "HOME": ".cache/embank"}[variable]
    assert checkpoint_cache.cache() == tmp_path / inside


# --- conversion ---------------------------------------------------------------------------------------


def test_provenance(file: Path, cache: Path) -> None:
    bring(_source(), from_file=file)
    told = convert(_source(), ARCHITECTURE)
    assert told == json.loads((cache / "model.json").read_text())
    assert told["sha256"] == _sha256(cache / "model.safetensors")
    assert told["source"]["sha256"] == _sha256(file)
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0] or told["versions"]["torch"]
    assert set(told["left_out"]) == {"module.encoder_q.fc.weight", "module.encoder_q.fc.bias"}
    with safe_open(cache / "model.safetensors", "pt") as opened:
        inside = json.loads(opened.metadata()["embank"])
        assert inside["source"]["sha256"] == _sha256(file)
        assert inside["mapping"]["prefix"] == "module.encoder_q."
        theirs = torch.load(file, weights_only=True)["state_dict"]
        names = set(opened.keys())
        assert names == {
            k.removeprefix("module.encoder_q.") for k in theirs if "fc." not in k and "num_batches" not in k
        }
        assert all(torch.equal(opened.get_tensor(n), theirs[f"module.encoder_q.{n}"]) for n in names)


def test_the_converted_bytes_are_the_same_everywhere(file: Path, cache: Path, tmp_path: Path) -> None:
    """Its digest goes into the key, so it must not depend on the process, the time or the place."""
    bring(_source(), from_file=file)
    here = convert(_source(), ARCHITECTURE)["sha256"]
    assert convert(_source(), ARCHITECTURE, source=file, out=tmp_path / "x.safetensors")["sha256"] == here
    code = """if True:
        import sys
        from pathlib import Path
        from engine.models.checkpoints.checkpoint_cache import Published, convert
        from engine.models.checkpoints.readers import TorchFile
        source = Published("tiny", "", "w.pth.tar", TorchFile("state_dict", "module.encoder_q.", ("fc.",)))
        print(convert(source, sys.argv[1], source=Path(sys.argv[2]), out=Path(sys.argv[3]))["sha256"])
    """
    run = subprocess.run(
        [sys.executable, "-c", code, ARCHITECTURE, str(file), str(tmp_path / "y.safetensors")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    assert run.stdout.strip() == here


def test_another_architecture_is_refused(file: Path, cache: Path) -> None:
    bring(_source(), from_file=file)
    with pytest.raises(WeightsError, match="does not fit"):
        convert(_source(), "torchvision/resnet34")
    assert not (cache / "model.safetensors").exists()


def test_a_missing_tensor_is_refused(file: Path, tmp_path: Path) -> None:
    whole = torch.load(file, weights_only=True)
    del whole["state_dict"]["module.encoder_q.layer4.1.bn2.running_var"]
    torch.save(whole, tmp_path / "w.pth")
    bring(_source(), from_file=tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"layer4\.1\.bn2\.running_var"):
        convert(_source(), ARCHITECTURE)


def test_a_variance_below_zero_is_refused(file: Path, cache: Path, tmp_path: Path) -> None:
    damaged = torch.load(file, weights_only=True)
    damaged["state_dict"]["module.encoder_q.layer4.1.bn2.running_var"][5] = -1e-3
    torch.save(damaged, tmp_path / "w.pth")
    bring(_source(), from_file=tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"layer4\.1\.bn2\.running_var -0\.001"):
        convert(_source(), ARCHITECTURE)
    assert not (cache / "model.safetensors").exists()


# --- use --------------------------------------------------------------------------------------------


def test_absent_weights_name_the_command(row: Row, file: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve("tiny")
    assert "embank models fetch tiny" in caught.value.remedy
    assert "--from-file" in caught.value.remedy
    bring(_source(), from_file=file)
    with pytest.raises(WeightsError) as caught:
        resolve("tiny+same")
    assert "embank models convert tiny" in caught.value.remedy


def test_features_are_the_published_networks(row: Row, file: Path) -> None:
    bring(_source(), from_file=file)
    told = convert(_source(), ARCHITECTURE)
    spec = resolve("tiny")
    assert spec.weights_sha256 == told["sha256"]
    plain = models.resnet18(weights=None)
    theirs = torch.load(file, weights_only=True)["state_dict"]
    plain.load_state_dict({k.removeprefix("module.encoder_q."): v for k, v in theirs.items()})
    plain.fc = nn.Identity()
    pixels = pictures(3, SIDE)
    mean, sd = (torch.tensor(v).reshape(-1, 1, 1) for v in (SMALL.mean, SMALL.sd))
    with torch.inference_mode():
        expected = plain.eval()((pixels.permute(0, 3, 1, 2) / 255 - mean) / sd)
    assert cosine(load(spec, Runtime(threads=1))(pixels), expected) > 1 - 1e-8
    assert cosine(load(resolve("tiny+same"), Runtime(threads=1))(pixels), expected) < 1 - 1e-5


def test_damage_in_the_cache_is_found(row: Row, file: Path, cache: Path) -> None:
    bring(_source(), from_file=file)
    convert(_source(), ARCHITECTURE)
    bad = bytearray((cache / "model.safetensors").read_bytes())
    bad[-1] ^= 1
    (cache / "model.safetensors").write_bytes(bad)
    with pytest.raises(WeightsError, match="damaged") as caught:
        resolve("tiny")
    assert "models convert tiny" in caught.value.remedy


# --- the command line -------------------------------------------------------------------------------


def test_the_commands(row: Row, file: Path, cache: Path, tmp_path: Path) -> None:
    before = embank("models", "show", "tiny+same", "--json").json
    assert (before["weights_sha256"], before["dim"], before["source"]["present"]) == (None, 512, "no")
    assert embank("models", "convert", "tiny").code == 2
    fetched = embank("models", "fetch", "tiny", "--from-file", file, "--json")
    assert fetched.code == 0
    assert fetched.json["sha256"] == _sha256(cache / "model.safetensors")
    shown = embank("models", "show", "tiny", "--json").json
    assert shown["weights_sha256"] == fetched.json["sha256"]
    assert shown["source"]["pinned"]["sha256"] == _sha256(file)
    listed = {r["slug"]: r["present"] for r in embank("models", "list", "--json").json}
    assert (listed["tiny"], listed["moco-v2"], listed["random-r50"]) == ("yes", "no", "yes")
    out = tmp_path / "own" / "w.safetensors"
    assert embank("models", "convert", "tiny", "--from-file", file, "-o", out).code == 0
    assert _sha256(out) == fetched.json["sha256"]
    assert "512" in embank("models", "show", "tiny").out


@pytest.mark.parametrize("slug", ["random-r50", "torchvision/resnet18", "efficientnet-lite0", "nothing"])
@pytest.mark.parametrize("verb", ["fetch", "convert"])
def test_what_is_not_published_is_refused(verb: str, slug: str) -> None:
    ran = embank("models", verb, slug)
    assert ran.code == 2
    assert "remedy" in ran.err


def test_embed_asks_for_the_fetch(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image_id,uri\na,a.png\n")
    ran = embank("embed", tmp_path / "m.csv", "--model", "moco-v2", "--bank", tmp_path / "b")
    assert ran.code == 2
    assert "embank models fetch moco-v2" in ran.err
    assert not (tmp_path / "b").exists()
