"""Galleries of a small bank: what is shown equals what the evaluations made, and only on request."""

import io
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.report.page.assemble import report_html
from engine.report.page.blocks import Block, DataTable, Details, Gallery, Picture, Section
from engine.report.page.evidence import evidence_of
from engine.report.page.inputs import PageInput, PageOptions, Source
from engine.report.page.predictions import mistakes_of
from engine.report.page.sections import (
    cells,
    certificates,
    failures,
    invariance_gallery,
    neighbours,
    reconstruction_gallery,
    saliency_gallery,
    worst_errors,
)
from stores.backends.location import place
from stores.bank.predictions import read_predictions_of
from stores.bank.record_index import read_index
from stores.manifest.manifest import Manifest
from tests.command import embank

pytestmark = pytest.mark.slow

MODEL = "random/squeezenet1_1"

SHOWN = PageOptions(thumbnails=True)
MODULES = (
    saliency_gallery, reconstruction_gallery, invariance_gallery, worst_errors, neighbours, certificates,
    failures, cells,
)  # fmt: skip


def _make_images(root: Path, count: int) -> None:
    """Write smooth pictures, which a JPEG keeps, of two classes that nothing tells apart."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = root / "images" / f"c{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (3, 3, 3), np.uint8))
        image, exif = coarse.resize((40, 40), Image.Resampling.BICUBIC), Image.Exif()
        exif[0x010E] = "Doe, Jane"
        image.save(path, exif=exif)
    frame = Manifest.from_folder(root / "images").frame
    frame["split"] = [("train", "train", "val", "test")[i // 2 % 4] for i in range(len(frame))]
    Manifest.from_frame(frame, root / "images").write(root / "m.parquet")
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("galleries")
    _make_images(root, 32)
    bank = root / "bank"
    words = ("--model", MODEL, "--recipe", root / "recipe.json", "--device", "cpu", "--threads", 1)
    commands: tuple[tuple[object, ...], ...] = (
        ("embed", root / "m.parquet", "--bank", bank, *words, "--certify"),
        ("saliency", bank, "--model", MODEL, "--size", 8, "--stride", 8, "--images", 2),
        ("reconstruct", bank, "--model", MODEL, "--steps", 2, "--seeds", 1, "--images", 1),
        ("invariance", bank, "--model", MODEL, "--transform", "h_flip", "--images", 8),
        ("knn", bank, "--model", MODEL, "--k", 3),
        ("bank", "audit", bank, "--model", MODEL, "--threshold", 0.1),
    )
    for command in commands:
        ran = embank(*command)
        assert ran.code == 0, ran.err
    return root


def _page(study: Path) -> PageInput:
    bank = place(study / "bank")
    entries = tuple(entry for entry in read_index(bank) if entry.record and entry.record.kind != "embed")
    return PageInput("page", (Source("set", bank, entries),))


def _blocks(sections: Iterable[Section]) -> Iterator[Block]:
    def inner(blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            yield block
            if isinstance(block, Details):
                yield from inner(block.blocks)

    for section in sections:
        yield from inner(section.blocks)


def _pictures(sections: Iterable[Section]) -> list[Picture]:
    return [one for block in _blocks(sections) if isinstance(block, Gallery) for one in block.pictures]


def _pixels(picture: Picture) -> np.ndarray:
    image = Image.open(io.BytesIO(picture.data))
    assert (image.width, image.height) == (picture.width, picture.height)
    return np.asarray(image.convert("RGB")).astype(float)


def _fitted(pixels: np.ndarray, side: int = 112) -> np.ndarray:
    """Enlarge as a plain viewer would."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)).astype(float)


def test_without_thumbnails_there_is_no_picture_and_no_image_id(study: Path) -> None:
    data = report_html(_page(study), PageOptions()).decode()
    assert "data:image/" not in data and "--thumbnails" in data
    assert "c0/0" not in data and "c1/0" not in data


def test_pictures_have_no_metadata(study: Path) -> None:
    every = [one for module in MODULES for one in _pictures(module.sections(_page(study), SHOWN))]
    assert len(every) > 12
    for picture in every:
        image = Image.open(io.BytesIO(picture.data))
        assert not image.getexif() and not set(image.info) - {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
        }
        assert b"Doe" not in picture.data and len(picture.data) < 8000 and max(image.size) <= 128
        assert picture.alt and picture.title


def test_maps_are_laid_over_the_images_they_are_of(study: Path) -> None:
    """The first pixel-exact step written out: viridis, at most 60 % opaque, over the image at its place."""
    page = _page(study)
    pictures = _pictures(saliency_gallery.sections(page, SHOWN))
    (cell,) = evidence_of(page, "saliency")
    items = cell.record.metrics["items"]
    assert len(pictures) == 2 * len(items)
    for item, (original, overlay) in zip(items, zip(pictures[::2], pictures[1::2], strict=True), strict=True):
        assert f"{item['attentive_diffusion']:.3f}" in overlay.title
        # At 32 px the recipe shows an image of 40 px at short side 46, of which the inner 32 are mapped.
        full = Image.open(study / "images" / item["image_id"]).convert("RGB").resize((46, 46), Image.BICUBIC)
        inner = np.asarray(full)[7:39, 7:39]
        assert np.abs(_pixels(original) - _fitted(inner)).mean() < 12
        head, _, body = (study / "bank" / item["map"]).read_bytes().partition(b"\n")
        arrays = json.loads(head)["arrays"]
        assert arrays["map"]["shape"] == [32, 32] and sorted(arrays) == ["error", "map"]
        map = np.frombuffer(body, "<f8")[arrays["error"]["shape"][0] :].reshape(32, 32)
        share = (map - map.min()) / (map.max() - map.min())
        from matplotlib import colormaps

        wanted = (1 - 0.6 * share[..., None]) * inner + 0.6 * share[..., None] * colormaps["viridis"](share)[
            ..., :3
        ] * 255
        assert np.abs(_pixels(overlay) - _fitted(wanted.astype(np.uint8))).mean() < 12


def test_the_errors_are_those_of_the_predictions(study: Path) -> None:
    page = _page(study)
    (cell,) = evidence_of(page, "knn")
    table = read_predictions_of(cell.source.bank, cell.entry).to_pandas()
    scores = table[[name for name in table if name.startswith("score.")]].max(axis=1)
    wrong = (
        table[table.truth != table.predicted]
        .assign(sure=scores)
        .sort_values(["sure", "row"], ascending=[False, True])
    )
    mistakes = mistakes_of(cell, 3)
    assert (mistakes.predictions, mistakes.errors) == (len(table), len(wrong))
    assert mistakes.confident == (wrong.sure >= 0.9).sum()
    assert [one.row for one in mistakes.worst] == wrong.row.tolist()[:3]
    for picture, (_, row) in zip(
        _pictures(worst_errors.sections(page, SHOWN)), wrong.iterrows(), strict=False
    ):
        assert row.image_id in picture.title
        file = np.asarray(Image.open(study / "images" / row.image_id).convert("RGB"))
        assert np.abs(_pixels(picture) - _fitted(file)).mean() < 12


def test_views_are_flips_and_reconstructions_are_the_kept_ones(study: Path) -> None:
    page = _page(study)
    image, view = _pictures(invariance_gallery.sections(page, SHOWN))
    assert np.abs(_pixels(image)[:, ::-1] - _pixels(view)).mean() < 8
    _, made = _pictures(reconstruction_gallery.sections(page, SHOWN))
    (cell,) = evidence_of(page, "reconstruct")
    (item,) = cell.record.metrics["items"]
    data = (study / "bank" / item["kept"]).read_bytes()
    head, _, body = data.partition(b"\n")
    assert json.loads(head)["arrays"]["image"]["shape"] == [32, 32, 3]
    kept = np.frombuffer(body[: 32 * 32 * 3], np.uint8).reshape(32, 32, 3)
    assert np.abs(_pixels(made) - _fitted(kept)).mean() < 12


def test_missing_changed_and_damaged_files_become_placeholders(study: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(study, copied)
    page = _page(copied)
    (knn,), (saliency,) = evidence_of(page, "knn"), evidence_of(page, "saliency")
    worst = mistakes_of(knn, 2).worst
    # The provenance names the folder of the original; there a file goes and another changes.
    originals = study / "images"
    gone, changed = (originals / one.image_id for one in worst)
    before = gone.read_bytes(), changed.read_bytes()
    try:
        gone.unlink()
        Image.new("RGB", (40, 40)).save(changed)
        pictures = _pictures(worst_errors.sections(page, SHOWN))
        assert [one.alt for one in pictures[:2]] == [
            "No picture: missing",
            "No picture: the file has changed",
        ]
        assert all(one.mime == "image/png" for one in pictures[:2])
    finally:
        gone.write_bytes(before[0]), changed.write_bytes(before[1])
    first, second = (copied / "bank" / item["map"] for item in saliency.record.metrics["items"])
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    alts = [one.alt for one in _pictures(saliency_gallery.sections(page, SHOWN)) if "No picture" in one.alt]
    assert {"No picture: the file is gone", "No picture: the file is damaged"} <= set(alts)


@pytest.mark.parametrize(
    "word", ["../../secret.arrays", "/etc/passwd", ".embank/saliency/../x.arrays", "", None]
)
def test_a_record_leads_nowhere_outside_its_bank(word: str | None, study: Path) -> None:
    page = _page(study)
    (cell,) = evidence_of(page, "saliency")
    items = [{**item, "map": word} for item in cell.record.metrics["items"]]
    record = replace(cell.record, metrics={**cell.record.metrics, "items": items})
    source = replace(page.sources[0], entries=(replace(cell.entry, record=record),))
    pictures = _pictures(saliency_gallery.sections(replace(page, sources=(source,)), SHOWN))
    assert {one.alt for one in pictures} == {"No picture: none was kept"}


def test_pages_are_cut_to_their_bytes(study: Path) -> None:
    page = _page(study)
    whole = report_html(page, SHOWN)
    plain = report_html(page, PageOptions())
    cut = report_html(page, PageOptions(thumbnails=True, max_bytes=100_000))
    assert len(plain) < len(cut) < len(whole) and b"are left out, evenly" in cut
    assert report_html(page, SHOWN) == whole


def test_certificates_failures_and_cells(study: Path) -> None:
    page = _page(study)
    (table,) = [one for one in _blocks(certificates.sections(page, SHOWN)) if isinstance(one, DataTable)]
    body = json.loads(next((study / "bank" / ".embank").glob("*/certificate.json")).read_text())
    (row,) = table.rows
    numbers = [value.number for value in row if value.number is not None]
    assert numbers[0] == body["n"] and numbers[2] == body["pixels"]["max"]
    assert numbers[3] == pytest.approx(1 - body["embedding"]["min_cosine"])
    texts = [getattr(one, "text", "") for one in _blocks(failures.sections(page, SHOWN))]
    assert "No row failed, and no cell lacks a number." in texts
    tables = [one for one in _blocks(cells.sections(page, SHOWN)) if isinstance(one, DataTable)]
    assert len(tables[0].rows) == len(page.sources[0].entries)
    ids = {value.text for row in tables[0].rows for value in row}
    assert {entry.id for entry in page.sources[0].entries} <= ids
    without = [
        one for one in _blocks(cells.sections(page, PageOptions(timings=False))) if isinstance(one, DataTable)
    ]
    assert not {entry.id for entry in page.sources[0].entries} & {
        v.text for row in without[0].rows for v in row
    }
    bank = study / "bank"
    commands = {page.sources[0].entries[0].id: f"embank finetune {bank}/manifest.parquet --bank '{bank}'"}
    data = report_html(replace(page, commands=commands), SHOWN).decode()
    assert str(study) not in data and "embank finetune bank/manifest.parquet --bank bank" in data
