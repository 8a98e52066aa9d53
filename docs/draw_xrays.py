"""Draw a small set of pictures that look a little like chest X-rays, for trying embank without data.

    python docs/draw_xrays.py xrays

writes 96 grey PNG files of 160 x 160 pixels, in a folder for each of three classes: `normal`, `effusion` (one
lung is white at its base) and `nodule` (a round spot in one lung). Each of 48 patients has two pictures, and
the file name begins with the patient: `effusion/p001_1.png`. Beside the folder it writes `xrays.csv`.
They are drawings: numbers made from them say that the software works, and nothing about medicine.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("normal", "effusion", "nodule")
PATIENTS = 16  # a class
SIDE = 160


def chest(label: str, anatomy: np.random.Generator, shot: np.random.Generator) -> np.ndarray:
    """Draw one picture: uint8 [SIDE, SIDE]. `anatomy` is the patient's, `shot` the picture's."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    wide, high, tilt = anatomy.uniform(0.26, 0.36), anatomy.uniform(0.55, 0.7), anatomy.uniform(-0.1, 0.1)
    side, low, size = anatomy.choice([-1, 1]), anatomy.uniform(0.15, 0.4), anatomy.uniform(0.06, 0.1)
    spot_x, spot_y = anatomy.uniform(-0.12, 0.12), anatomy.uniform(-0.3, 0.25)
    picture = 0.75 - 0.25 * (x**2 + y**2)
    for lung in (-1, 1):
        inside = ((x - lung * 0.42 - tilt * y) / wide) ** 2 + ((y + 0.05) / high) ** 2
        picture -= 0.45 / (1 + np.exp(12 * (inside - 1)))
    picture += 0.12 * np.exp(-((x / 0.1) ** 2)) + 0.2 * np.exp(
        -(((x - 0.12) / 0.25) ** 2) - ((y - 0.3) / 0.3) ** 2
    )
    picture += 0.04 * np.sin(22 * (y + 0.3 * x**2)) * (abs(x) < 0.8)
    if label == "effusion":
        picture += 0.26 / (1 + np.exp(-18 * (y - low))) * np.exp(-(((x - side * 0.45) / 0.3) ** 4))
    if label == "nodule":
        distance = (x - side * 0.42 - spot_x) ** 2 + (y - spot_y) ** 2
        picture += 0.24 * np.exp(-((distance / size**2) ** 2))
    picture = (
        picture * shot.uniform(0.85, 1.1) + shot.normal(0, 0.05, picture.shape) + shot.uniform(-0.05, 0.05)
    )
    return np.uint8(np.clip(picture, 0, 1) * 255)


def main(folder: Path) -> None:
    """Write all pictures below `folder`, and `FOLDER.csv` with a row for each."""
    rows = []
    for number in range(PATIENTS * len(CLASSES)):
        label = CLASSES[number % len(CLASSES)]
        for shot in (1, 2):
            name = f"{label}/p{number:03d}_{shot}.png"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            anatomy = np.random.default_rng(number)
            Image.fromarray(chest(label, anatomy, np.random.default_rng((number, shot)))).save(path)
            rows.append({"path": name, "finding": label, "patient": f"p{number:03d}"})
    with folder.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    print(f"{len(rows)} pictures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
