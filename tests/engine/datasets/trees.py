"""Small trees in the layouts that the data sets have when unpacked, with tiny real images."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,"
    "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CHEXPERT_HEADER = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS}"
CHESTX_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def package_table(name: str) -> Path:
    """A label table that torchxrayvision ships; the package is not imported, for it would load its models."""
    spec = importlib.util.find_spec("torchxrayvision")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data" / name


def image(path: Path, *, bits: int = 8, seed: int = 0) -> None:
    """A picture of noise, 12 x 10, in the format of the suffix; grey with 16 bits, else RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    if bits == 8:
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
    else:
        Image.fromarray(rng.integers(0, 2**bits, (10, 12), np.uint16)).save(path)


def lines(path: Path, rows: Iterable[str], newline: str = "\n") -> Path:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(row + newline for row in rows).encode())
    return path


def chexpert_row(
    patient: int, study: int, view: str, effusion: str = "", prefix: str = "CheXpert-v1.0-small/train"
) -> str:
    """A row of CheXpert's table: only the pleural effusion is filled in."""
    side = "Frontal,AP" if view.endswith("frontal") else "Lateral,"
    cells = [""] * 14
    cells[10] = effusion
    return f"{prefix}/patient{patient:05d}/study{study}/{view}.jpg,Female,60,{side}," + ",".join(cells)


def chexpert(root: Path, rows: list[str], folder: str = "CheXpert-v1.0-small", images: bool = True) -> Path:
    """CheXpert as one archive: the table in it, an image for each row."""
    lines(root / folder / "train.csv", [CHEXPERT_HEADER, *rows])
    for at, row in enumerate(rows if images else []):
        image(root / folder / "train" / row.split(",")[0].partition("/train/")[2], seed=at)
    return root


def chestx(
    root: Path, rows: list[str], *, comma: bool = False, table: str = "Data_Entry_2017_v2020.csv"
) -> Path:
    """ChestX-ray14: rows are `00000001_000.png,A|B,0,1`; the other columns are filled in."""
    end = "," if comma else ""
    full = [f"{row},058,M,PA,2682,2749,0.143,0.143{end}" for row in rows]
    lines(root / table, [CHESTX_HEADER + end, *full])
    for at, row in enumerate(rows):
        image(root / "images" / row.split(",")[0], seed=at)
    return root


def tuberculosis(root: Path, folder: str, stems: list[str], bits: int = 8) -> Path:
    """Shenzhen or Montgomery: only images."""
    for at, stem in enumerate(stems):
        image(root / folder / f"{stem}.png", bits=bits, seed=at)
    return root


def bach(root: Path, rows: list[str], photos: str = "ICIAR2018_BACH_Challenge/Photos") -> Path:
    """BACH: rows are `iv001.tif,Invasive`."""
    lines(root / photos / "microscopy_ground_truth.csv", rows)
    for at, row in enumerate(rows):
        name, label = row.split(",")
        image(root / photos / label / name, seed=at)
    return root


def eyepacs(root: Path, part: str, table: str, rows: list[str], header: str = "image,level") -> Path:
    """One of EyePACS' two files: rows are `10_left,0`."""
    lines(root / table, [header, *rows])
    for at, row in enumerate(rows):
        image(root / part / f"{row.split(',')[0]}.jpeg", seed=at)
    return root
