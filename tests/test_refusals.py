"""A command that ends with 2 leaves the disk as it was: bank, cache, images, working folder and outputs."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models as torchvision_models

from engine.models.catalog import families as rows
from engine.models.catalog import lookup as catalog
from engine.models.catalog.entry import Row
from engine.models.checkpoints.checkpoint_cache import Published
from engine.models.checkpoints.readers import TorchFile
from engine.recipes import Recipe
from stores.manifest.manifest import Manifest
from tests.command import embank
from tests.stores.banks import flip

MODEL = "random/squeezenet1_1"
NET, OTHER = "torchvision/squeezenet1_1", "torchvision/squeezenet1_0"
#: What a command may write whether it is refused or not: caches, made again from the rest.
DERIVED = ("stamps.json",)
DERIVED_FOLDERS = ("facts", "columns")


def digests(root: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of everything below a folder, by relative path; links are not followed."""
    found = {}
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in DERIVED_FOLDERS]
        for path in (Path(folder), *(Path(folder, name) for name in names if name not in DERIVED)):
            state = path.lstat()
            if path.is_symlink():
                content = f"to {path.readlink()}"
            else:
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            found[path.relative_to(root).as_posix()] = (state.st_mode, content)
    return found


def picture(seed: int, grey: bool = False) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (40, 44, 3), np.uint8)
    return np.repeat(noise[..., :1], 3, axis=2) if grey else noise


def make_images(root: Path, count: int, grey: bool = False, first: int = 0) -> None:
    for i in range(count):
        path = root / f"c{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(first + i, grey)).save(path)


def make_bank(root: Path, name: str, splits: bool = True) -> None:
    manifest = Manifest.from_folder(root / name)
    if splits:
        frame = manifest.frame
        frame["split"] = [("train", "train", "val", "test")[i // 2 % 4] for i in range(len(frame))]
        frame["group"] = [f"p{i // 2}" for i in range(len(frame))]
        frame["finding"] = ["0", "1"] * (len(frame) // 2)
        manifest = Manifest.from_frame(frame, root / name)
    manifest.write(root / f"{name}.parquet")
    words = ("--recipe", root / "recipe.json", "--device", "cpu", "--threads", 1, "--chunk-rows", 16)
    ran = embank("embed", root / f"{name}.parquet", "--model", MODEL, "--bank", root / f"{name}.bank", *words)
    assert ran.code == 0, ran.err


def make_weights(root: Path) -> None:
    torch.manual_seed(0)
    state = torchvision_models.squeezenet1_1(weights=None).state_dict()
    torch.save(state, root / "good.pth")
    torch.save(torchvision_models.squeezenet1_0(weights=None).state_dict(), root / "other.pth")
    torch.save({**state, "features.0.bias": state["features.0.bias"] * float("nan")}, root / "nan.pth")
    (root / "garbage.pth").write_bytes(b"\x80\x02garbage" * 99)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images, manifests, banks, weights, a cache, and a working folder with files of the user."""
    root = tmp_path_factory.mktemp("refusals")
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    make_weights(root)
    make_images(root / "x", 32)
    make_images(root / "grey", 8, grey=True)
    make_images(root / "changed", 32, first=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBANK_CACHE", str(root / "cache"))
        (root / "cache").mkdir()
        source = Published("tiny", "https://127.0.0.1:9/w.pth", "w.pth", TorchFile("state_dict", "", ()))
        own = Row("tiny", "torchvision/resnet18", source, Recipe(size=32, crop=32))
        patch.setattr(catalog, "ROWS", (*rows.ROWS, own))
        make_bank(root, "x")
        make_bank(root, "grey", splits=False)
        shutil.copytree(root / "x.bank", root / "flawed.bank")
        flip(next((root / "flawed.bank").glob("*/embedding/c/1/0")))
        frame = Manifest.read(root / "x.parquet").frame
        Manifest.from_frame(frame.assign(label="same"), root / "x").write(root / "labels.parquet")
        strangers = frame.assign(image_id=frame["image_id"] + "?", uri=frame["uri"] + "?")
        Manifest.from_frame(strangers, root / "x").write(root / "strangers.parquet")
        (root / "none.csv").write_text("image_id,uri,label\n")
        (root / "table.csv").write_text("path,finding\nc0/00.png,a\nc1/01.png,b\n")
        make_work(root)
        yield root


def make_work(root: Path) -> None:
    work = root / "work"
    work.mkdir()
    for name in (
        "mine.png",
        "mine.svg",
        "mine.pdf",
        "mine.csv",
        "mine.parquet",
        "mine.safetensors",
        "mine.html",
    ):
        (work / name).write_bytes(b"mine")
    (work / "folder.png").mkdir()
    (work / "taken").mkdir()
    (work / "taken" / "status.npy").write_bytes(b"mine")
    (work / "gallery").mkdir()
    (work / "gallery" / "sheet.png").write_bytes(b"mine")
    (work / "link.png").symlink_to(root / "x" / "c0" / "00.png")
    os.link(root / "x" / "c0" / "02.png", work / "second-name.png")
    (work / "into-bank").symlink_to(root / "x.bank")
    (work / "dangling.png").symlink_to("nowhere.png")
    (work / "data").mkdir()
    (work / "x.yaml").write_text(STUDY)
    (work / "typo.yaml").write_text(STUDY.replace("[audit]", "[audits]"))
    (work / "out.yaml").write_text(STUDY.replace("x.parquet", "../x.parquet"))
    (work / "y").mkdir()
    (work / "y" / "mine.txt").write_bytes(b"mine")
    (work / "data" / "labels.csv").write_text("file,label\na.png,x\n")
    (work / "data" / "fundus").write_text("a file where a folder of tiles would be")
    ran = embank("probe", root / "x.bank", "--model", MODEL, *SMALL.split(), "-o", work / "probe.png")
    assert ran.code == 0, ran.err


STUDY = """study: x
datasets: {x: {manifest: x.parquet}}
models: [random/squeezenet1_1]
evaluations: [audit]
"""
SMALL = "--values 2 --bootstrap 0 --device cpu"
EMBED = "embed {x}.parquet --recipe {root}/recipe.json --device cpu --threads 1"
BANK = "{x}.bank --model random/squeezenet1_1"
NEW = "new/bank"
TWO = "{root}/good.pth --weights {root}/good.pth"
VIEWS = f"invariance {BANK} --views 4 --images 4 --device cpu"
MAPS = "--stride 10 --threads 1 --device cpu"

CASES = f"""
embed missing.parquet --model {MODEL} --bank {NEW}
{EMBED} --model {NET} --weights {{root}}/garbage.pth --bank {NEW}
{EMBED} --model {NET} --weights {{root}}/other.pth --bank {NEW}
{EMBED} --model {NET} --weights {{root}}/nan.pth --bank {NEW}
{EMBED} --model {NET} --weights {{root}}/absent.pth --bank {NEW}
{EMBED} --model {NET} --weights {{root}}/nan.pth --workers 1 --bank {NEW}
{EMBED} --model {NET} --weights {{root}}/garbage.pth --bank {{x}}.bank
{EMBED} --model {NET} --weights {{root}}/other.pth --bank {{x}}.bank
{EMBED} --model {NET} --weights {{root}}/nan.pth --bank {{x}}.bank
{EMBED} --model torchvision/resnet18 --model {NET} --weights {TWO} --bank {NEW}
{EMBED} --model {NET} --model {OTHER} --weights {TWO} --bank {{x}}.bank
{EMBED} --model {NET} --weights {TWO} --bank {NEW}
{EMBED} --model {MODEL} --weights {{root}}/good.pth --bank {NEW}
{EMBED} --model {MODEL} --decoder reference --dct --bank {NEW}
{EMBED} --model {MODEL} --decoder reference --dct --bank {{x}}.bank
{EMBED} --model {MODEL} --decoder magic --bank {NEW}
{EMBED} --model {MODEL} --seed 5 --chunk-rows 8 --bank {{x}}.bank
{EMBED} --model {MODEL} --chunk-rows 2000000 --bank {NEW}
{EMBED} --model {MODEL} --precision fp16 --bank {NEW}
{EMBED} --model {MODEL} --model {MODEL} --bank {NEW}
{EMBED} --model no-such-model --bank {NEW}
{EMBED} --model moco-v2 --bank {NEW}
{EMBED} --model {MODEL} --depth window:1 --bank {NEW}
{EMBED} --model {MODEL} --recipe nothing --bank {NEW}
{EMBED} --model {MODEL} --workers 1 --scheduler tcp://127.0.0.1:9 --bank {NEW}
{EMBED} --model {MODEL} --bank mine.csv
{EMBED} --model {MODEL} --bank mine.csv/bank
{EMBED} --model {MODEL} --bank {{x}}
{EMBED} --model {MODEL} --bank {{x}}.bank/inner/bank
{EMBED} --model {MODEL} --bank into-bank/inner
{EMBED} --model {MODEL} --bank ftp://host/bank
{EMBED} --model {MODEL}
embed {{root}}/labels.parquet --recipe {{root}}/recipe.json --model {MODEL} --seed 9 --bank {{x}}.bank
embed {{root}}/grey.parquet --recipe {{root}}/recipe.json --model {MODEL} --bank {{x}}.bank
embed {{root}}/none.csv --model {MODEL} --bank {NEW}
manifest folder nowhere -o new/m.parquet
manifest folder {{x}} -o new/m.png
manifest folder {{x}} -o mine.parquet
manifest folder {{x}} -o folder.png
manifest folder {{x}} -o new/m.csv
manifest folder {{x}} -o mine.csv/m.parquet
manifest folder {{x}} -o {{x}}.bank/manifest.parquet --force
manifest folder {{x}} -o {{x}}.bank/new/m.parquet
manifest folder {{x}} -o into-bank/m.parquet
manifest folder {{x}} --split-folders -o new/m.parquet
manifest table {{root}}/table.csv --uri path --root {{x}} -o {{root}}/table.csv --force
manifest table {{root}}/table.csv --uri path --root {{x}} -o mine.parquet
manifest table {{root}}/table.csv --uri nothing --root {{x}} -o new/m.parquet
manifest table {{x}}.parquet -o {{x}}.parquet --force
manifest build nothing new -o new.parquet
manifest build tiles new -o new.png
manifest build tiles new -o mine.parquet
manifest build tiles new -o elsewhere/m.csv
manifest build tiles mine.csv -o new.parquet
manifest build tiles data -o new.parquet
manifest build digits {{x}}.bank/digits -o new.parquet
manifest build digits into-bank/digits -o new.parquet
manifest build digits new -o new.parquet --mode as-published
manifest build digits new -o new.parquet -O seed
manifest build digits new -o new.parquet -O seed=1
manifest build imagefolder data -o data/labels.csv --force
manifest build chexpert data -o new/m.parquet
manifest check nowhere.parquet
bank ls nowhere
bank show {{x}}.bank --model nothing
bank verify nowhere
bank verify {{x}}.bank --model nothing
bank repair nowhere
bank repair {{root}}/flawed.bank --weights {{root}}/garbage.pth
bank repair {{root}}/flawed.bank --device cuda:7
bank export {{x}}.bank --model nothing -o new
bank export {{x}}.bank -o taken
bank export {{x}}.bank -o mine.csv
bank export {{x}}.bank -o {{x}}.bank --force
bank export {{x}}.bank -o {{x}}.bank/out
bank export {{x}}.bank -o into-bank/out
bank export {{root}}/flawed.bank -o new
bank relabel {{x}}.bank {{x}}.parquet -o {{x}}.bank
bank relabel {{x}}.bank {{root}}/labels.parquet -o {{x}}.bank
bank relabel {{x}}.bank {{root}}/labels.parquet -o into-bank
bank relabel {{x}}.bank {{root}}/labels.parquet -o {{x}}.bank/other
bank relabel {{x}}.bank {{root}}/labels.parquet -o {{root}}/grey.bank
bank relabel {{x}}.bank {{root}}/labels.parquet -o taken
bank relabel {{x}}.bank {{root}}/strangers.parquet -o new
bank relabel {{root}}/flawed.bank {{root}}/labels.parquet -o new
bank relabel {{x}}.bank {{root}}/labels.parquet -o new --model nothing
bank scatter {BANK} --split nowhere -o new/scatter.png
bank audit {BANK} --threshold 2 -o new/pairs.csv
bank audit {BANK} -o new/pairs.png
bank audit {BANK} -o mine.csv
bank audit {BANK} -o {{x}}.bank/embank.json --force
bank audit {BANK} --sheet mine.png
bank audit {BANK} --sheet {{x}}/c0/00.png --force
bank audit {BANK} --sheet probe.png
bank audit {{x}}.bank --model nothing -o new/pairs.csv
records ls nowhere
records ls {{x}}.bank --kind nothing
records ls {{x}}.bank --model nothing
records show {{x}}.bank nothing
records show {{x}}.bank 2
records export {{x}}.bank -o new/r.tex
records export {{x}}.bank -o mine.csv
records export {{x}}.bank -o {{x}}.bank/r.csv
records export {{x}}.bank -o into-bank/r.csv
records export {{x}}.bank -o mine.csv/r.csv
records export {{x}}.bank -o new/r.csv --kind nothing
compare nowhere
compare {{x}}.bank
compare {{x}}.bank --evaluation fewshot -o new/c.gif
compare {{x}}.bank --evaluation fewshot -o mine.csv
compare {{x}}.bank --evaluation fewshot -o {{x}}.bank/c.png
compare {{x}}.bank/records/nothing -o new/c.png
fewshot {BANK} --n-way 99
fewshot {BANK} --n-way 2 --n-shot 99
fewshot {BANK} --n-way 2 --split exam
fewshot {BANK} --model nothing --n-way 2
knn {BANK} --model nothing -k 1
knn {BANK} -k 999
knn {BANK} --train-split exam
probe {BANK} {SMALL} -o new/p.jpg
probe {BANK} {SMALL} -o mine.svg
probe {BANK} {SMALL} -o mine.csv/p.png
probe {BANK} {SMALL} -o {{x}}.bank/p.png
probe {BANK} {SMALL} -o {{x}}/c1/01.png --force
probe {BANK} {SMALL} --label nothing -o new/p.png
probe {BANK} {SMALL} --label label --label split -o new/p.png
probe {BANK} {SMALL} --model nothing -o new/p.png
search {BANK} --image {{x}}/c0/00.png -o {{x}}/c0/00.png
search {BANK} --image {{x}}/c0/00.png -o {{x}}/c0/00.png --force
search {BANK} --image {{x}}/c0/00.png -o link.png --force
search {BANK} --image {{x}}/c0/02.png -o second-name.png --force
search {BANK} --id c0/04.png -o second-name.png --force
search {BANK} --id c0/04.png -o {{x}}/c0/04.png --force
search {BANK} --id c0/04.png -o probe.png
search {BANK} --id c0/04.png -o folder.png --force
search {BANK} --id c0/04.png -o dangling.png
search {BANK} --id c0/04.png -o new/s.gif
search {BANK} --id c0/04.png -o into-bank/s.png
search {BANK} --id nobody -o new/s.png
search {BANK} --id c0/04 -k 999 -o new/s.png
search {BANK} --image {{root}}/garbage.pth -o new/s.png
saliency {BANK} {MAPS} -o {{x}}.bank
saliency {BANK} {MAPS} -o into-bank/maps
saliency {BANK} {MAPS} -o mine.csv
saliency {BANK} {MAPS} -o gallery
saliency {BANK} {MAPS} --id nobody -o new
saliency {BANK} {MAPS} --fill red -o new
saliency {BANK} {MAPS} --size 3 --stride 4 -o new
saliency {{x}}.parquet --model {NET} --weights {{root}}/garbage.pth {MAPS} -o new/maps
saliency {{x}}.parquet --model {NET} --weights {{root}}/other.pth {MAPS} -o new/maps
saliency {{x}}.parquet --model random/vit_b_16 {MAPS} -o new/maps
saliency {{x}}.parquet --model {MODEL} {MAPS}
saliency {{x}}.parquet --model {MODEL} {MAPS} -o {{root}}/grey.bank
finetune {{x}}.parquet --model {MODEL} --bank {{x}}.bank --lr 0 --device cpu
finetune {{x}}.parquet --model {MODEL} --bank {{x}}.bank --label nothing --device cpu
finetune {{x}}.parquet --model {MODEL} --bank new.bank --mode as-published --accumulate 2 --device cpu
finetune {{root}}/labels.parquet --model {MODEL} --bank new.bank --device cpu
finetune {{x}}.parquet --model {NET} --weights {{root}}/garbage.pth --bank new.bank --device cpu
finetune {{x}}.parquet --model {MODEL} --model {NET} --weights {NET}={{root}}/garbage.pth --bank new.bank
finetune {{x}}.parquet --model {MODEL} --bank {{root}}/grey.bank --device cpu
finetune {{x}}.parquet --model {MODEL} --bank new.bank --device cpu -o {{x}}.bank
reconstruct {BANK} --id nobody
reconstruct {BANK} --steps 1 -o {{x}}.bank
reconstruct {BANK} --steps 1 -o mine.csv
reconstruct {BANK} --mode as-published --seeds 2
reconstruct {BANK} --precision bf16 --device cpu
perceptual {{x}} nowhere
perceptual {{x}} {{x}}/c0/00.png
perceptual {{x}} {{x}}/c0 -o new/t.csv
perceptual {{x}} {{x}} -o new/t.csv
perceptual {{x}} {{x}} --trunk alex={{root}}/garbage.pth --net alex -o new/t.csv
perceptual {{x}} {{x}} --trunk alex={{root}}/good.pth --net alex -o new/t.csv
perceptual {{x}} {{x}} --trunk vgg16={{root}}/good.pth -o new/t.csv
perceptual {{x}} {{x}} --side 16 -o new/t.csv
perceptual {{x}} {{x}} --own-size --side 64 -o new/t.csv
perceptual {{x}} {{x}} --depth deep -o new/t.csv
perceptual {{x}} {{x}} -o new/t.png
perceptual {{x}} {{x}} -o mine.csv
perceptual {{x}} {{x}} -o {{x}}.bank/t.csv
{VIEWS} -o new/v.png
{VIEWS} --transform rotation -o mine.png
{VIEWS} --transform rotation --figure new/f.jpg
{VIEWS} --transform rotation -o new/a.png --figure new/../new/a.png
{VIEWS} --transform rotation --shrinkage none -o new/v.png
{VIEWS} --transform rotation --images 999 -o new/v.png
{VIEWS} --transform rotation --root {{root}}/work -o new/v.png
{VIEWS} --transform rotation --root {{root}}/changed -o new/v.png
{VIEWS} --transform rotation --transform turn -o new/v.png
{VIEWS} --multi-view
invariance {{root}}/grey.bank --model {MODEL} --views 4 --images 2 --transform rotation --transform hue
models show nothing
models fetch nothing
models fetch moco-v2 --from-file {{root}}/garbage.pth
models fetch moco-v2 --from-file absent.pth
models fetch tiny --from-file {{root}}/garbage.pth
models fetch tiny --from-file {{root}}/good.pth
models convert tiny
models convert tiny --from-file {{root}}/good.pth -o new/w.safetensors
models convert tiny --from-file {{root}}/good.pth -o new/w.pth
models convert tiny --from-file {{root}}/good.pth -o mine.safetensors
models convert tiny --from-file {{root}}/good.pth -o {{x}}.bank/embank.safetensors --force
datasets show nothing
quickstart --dir mine.csv
study run absent.yaml
study run typo.yaml
study run out.yaml
study run x.yaml --dir y
study run x.yaml --dir mine.csv
study run x.yaml --dir {{x}}.bank/study
study run x.yaml --workers 1 --scheduler tcp://127.0.0.1:9
study status absent.yaml
study status y
quickstart --dir {{x}}.bank
quickstart --dir into-bank/quick
bench nothing
report absent.bank -o new/r.html
report {{root}}/work -o new/r.html
report {{x}}.bank -o new/r.pdf
report {{x}}.bank -o {{x}}.bank/r.html
report {{x}}.bank -o mine.html
report {{x}}.bank -o new/r.html --tables {{x}}.bank/tables
report {{x}}.bank -o new/r.html --tables mine.csv
report {{x}}.bank -o new/r.html --against nothing
"""
COMMANDS = [line for line in CASES.splitlines() if line]


def test_there_are_enough_refusals_of_every_command_that_can_be_refused() -> None:
    assert len(set(COMMANDS)) == len(COMMANDS) >= 80
    groups = {"manifest", "bank", "records", "models", "datasets", "study"}
    seen = {" ".join(line.split()[: 2 if line.split()[0] in groups else 1]) for line in COMMANDS}
    # `doctor` and the two lists take nothing that could be refused.
    own = {"embed", "fewshot", "knn", "probe", "search", "saliency", "invariance", "quickstart", "bench"}
    own |= {"compare", "finetune", "perceptual", "reconstruct", "report"}
    own |= {f"study {verb}" for verb in ("run", "status")}
    of_banks = {f"bank {verb}" for verb in ("ls", "show", "verify", "repair", "export", "relabel", "audit")}
    of_banks.add("bank scatter")
    of_records = {f"records {verb}" for verb in ("ls", "show", "export")}
    of_manifests = {f"manifest {verb}" for verb in ("folder", "table", "build", "check")}
    of_models = {f"models {verb}" for verb in ("show", "fetch", "convert")}
    assert seen == own | of_banks | of_records | of_manifests | of_models | {"datasets show"}


@pytest.mark.parametrize(
    "line",
    # Workers take seconds to start.
    [pytest.param(line, marks=[pytest.mark.slow] if "--workers" in line else []) for line in COMMANDS],
)
def test_a_refusal_changes_nothing(line: str, root: Path) -> None:
    words = line.format(root=root, x=root / "x").split()
    before = digests(root)
    with contextlib.chdir(root / "work"):
        ran = embank(*words)
    assert ran.code == 2, ran.out + ran.err
    assert "Traceback" not in ran.err
    after = digests(root)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert not changed, sorted(changed)
