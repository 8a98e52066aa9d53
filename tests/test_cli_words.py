"""What the command line says: version, benchmarks, nothing to do, slugs that may have been meant, options."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cli
from engine.models.catalog import lookup as catalog
from engine.models.catalog import slugs, suggest
from engine.models.catalog.families import ROWS
from tests.command import embank


def test_the_version_is_one_line() -> None:
    from importlib.metadata import version

    ran = embank("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"embank {version('embank')}\n", "")


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_bench_lists_its_scripts_with_what_they_measure(words: tuple[str, ...]) -> None:
    ran = embank("bench", *words)
    assert ran.code == 0
    scripts = {path.stem for path in (Path(cli.__file__).parent / "benchmarks" / "speed").glob("*.py")}
    table = ran.out[ran.out.index("what it measures") :]
    listed = {line.split()[0] for line in table.splitlines()[2:] if line and not line.startswith(" ")}
    assert listed == scripts - {"__init__", "common", "crowd", "simulate"}
    assert "float16 features: embank compared with FAISS" in " ".join(table.split())
    assert ("Usage: " in ran.out and "lists the options of one" in ran.out) == bool(words)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_a_benchmark_is_its_own(option: str) -> None:
    ran = embank("bench", "knn", option)
    assert ran.code == 0
    assert ran.out.startswith("usage: embank bench knn ") and "--queries" in ran.out


def test_help_of_embed_says_what_names_the_slugs() -> None:
    text = " ".join(embank("embed", "--help").out.replace("│", " ").split())
    assert "embank models list" in text


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*words: object, **more: object) -> Any:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


SHOWN = [
    "torchvision/squeezenet1_1",
    "random/squeezenet1_1",
    "timm/resnet18.a1_in1k",
    "timm/tf_efficientnet_lite0",
]


@pytest.mark.parametrize("slug", [*SHOWN, "swav", "simclr-v1", "efficientnet-lite0"])
def test_models_show_opens_no_connection(
    slug: str, no_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if slug.startswith(("timm", "efficientnet")):
        pytest.importorskip("timm")
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "cache"))
    ran = embank("models", "show", slug, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["slug"] == slug and ran.json["dim"] > 0
    if slug.startswith(("torchvision", "timm", "swav", "simclr")):
        assert (ran.json["weights_path"], ran.json["weights_sha256"]) == (None, None)
        assert "not here" in ran.json["weights_source"]


def test_weights_that_are_here_are_shown(no_network: None, tmp_path: Path) -> None:
    """As torch.hub keeps them; the digest in the name is that of the file."""
    import hashlib

    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    told = catalog.architecture_cache.default_weights("torchvision/squeezenet1_1")
    name = told["url"].rpartition("/")[2]
    (folder / name).write_bytes(b"weights")
    ran = embank("models", "show", "torchvision/squeezenet1_1", "--json")
    assert ran.code == 2 and hashlib.sha256(b"weights").hexdigest() in ran.err  # damaged, and said so


@pytest.mark.parametrize(
    ("slug", "expected"),
    [
        ("resnet50", ["torchvision/resnet50", "timm/resnet50", "random/resnet50"]),
        ("ResNet50", ["torchvision/resnet50", "timm/resnet50", "random/resnet50"]),
        ("torchvison/resnet18", ["torchvision/resnet18", "timm/resnet18", "random/resnet18"]),
        ("swaav", ["swav"]),
        ("dinov2_small", ["dinov2-small"]),
    ],
)
def test_a_slug_that_may_have_been_meant_is_suggested(slug: str, expected: list[str]) -> None:
    import importlib.util

    if importlib.util.find_spec("timm") is None:
        expected = [each for each in expected if not each.startswith("timm/")]
    assert slugs.nearest(slug, ROWS)[: len(expected)] == expected
    with pytest.raises(catalog.ModelError) as caught:
        catalog.find(slug)
    assert all(each in caught.value.remedy for each in expected)
    assert "`embank models list`" in caught.value.remedy


def test_what_is_like_nothing_suggests_nothing() -> None:
    assert slugs.nearest("zzzzzzzzzzzz", ROWS) == []


def test_names_of_one_of_several() -> None:
    assert [suggest.either_of(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a or b",
        "a, b or c",
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("words")
    for i in range(8):
        path = root / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 30 * i, np.uint8)).save(path)
    (root / "images" / "a" / "broken.png").write_bytes(b"")
    (root / "recipe.json").write_text(json.dumps({"size": 40, "crop": 32}))
    assert embank("manifest", "folder", root / "images", "-o", root / "m.parquet").code == 0
    return root


def test_a_finished_embed_says_that_nothing_was_to_do(root: Path) -> None:
    model = "random/squeezenet1_1"
    words = ["embed", root / "m.parquet", "--model", model, "--bank", root / "bank", "--device", "cpu"]
    words += ["--recipe", root / "recipe.json", "--max-failed", 1]
    first, again = embank(*words), embank(*words)
    assert (first.code, again.code) == (0, 0), first.err
    assert "nothing to do" not in first.out and "embedded" in first.out
    line, *_ = again.out.splitlines()
    assert line.startswith(f"{model}: nothing to do: 8 of 9 images were embedded before; 1 failed then")
    assert "--retry-failed" in line and "img/s" not in again.out
    told = embank(*words, "--json").json
    keys = {"bank", "key", "model", "rows", "ok", "failed", "seconds", "img_per_s", "stages"}
    assert keys <= told.keys()
    assert (told["rows"], told["ok"], told["embedded"]) == (9, 8, 0)
    more = embank(*words, "--model", "random/shufflenet_v2_x0_5")
    assert "random/squeezenet1_1: nothing to do" in more.out and "img/s" in more.out
    unknown = embank("knn", root / "bank", "--model", "sqeezenet1_1")
    assert unknown.code == 2 and f"write {model}" in unknown.err


@pytest.mark.parametrize("option", ["uri", "id", "label", "split", "group"])
def test_a_column_that_is_not_there_is_named_by_the_option_of_its_part(option: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri,finding,patient\na.png,x,1\n")
    ran = embank("manifest", "table", tmp_path / "t.csv", f"--{option}", "nowhere", "-o", tmp_path / "m.csv")
    assert ran.code == 2
    assert "'nowhere'" in ran.err and "'patient'" in ran.err
    advised = {word.strip("`.,") for word in ran.err.split() if word.startswith("--")}
    assert advised == {f"--{option}"}


def test_what_is_no_manifest_is_sent_to_the_command_that_has_the_option(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.png,x\n")
    (tmp_path / "a.png").write_bytes(b"x")
    ran = embank("manifest", "check", tmp_path / "t.csv")
    assert ran.code == 2 and "`embank manifest table --uri COLUMN`" in ran.err
    made = ("manifest", "table", tmp_path / "t.csv", "--uri", "path", "-o", tmp_path / "m.parquet")
    assert embank(*made).code == 0
    checked = embank("manifest", "check", tmp_path / "m.parquet")
    assert "`embank manifest table --group COLUMN`" in checked.out
