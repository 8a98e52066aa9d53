"""Targets from columns: against CheXpert's own table, and cells that must be refused."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import ManifestError, Refused
from engine.evals.common.features import Features
from engine.evals.probe.options import Options, Policies
from engine.evals.probe.targets import classes_of, finding_of, targets_of, together
from stores.bank.writer import open_or_create
from stores.manifest.manifest import Manifest
from tests.probe_banks import fill_with
from tests.stores.banks import make_key

ORACLES = json.loads((Path(__file__).parents[3] / "oracles/label_tables.json").read_text())
CELLS = np.array(["1.0", "0.0", "-1.0", "", "1", "0", "-1", "nan", " 1 "])


def coded(cells: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """As a manifest codes a column: -1 where the cell is empty, names sorted by bytes."""
    names = sorted({str(cell) for cell in cells if cell}, key=str.encode)
    return np.array([names.index(cell) if cell else -1 for cell in cells]), names


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("ignore", "ignore", [1, 0, -1, -1, 1, 0, -1, -1, 1]),
        ("zeros", "ignore", [1, 0, 0, -1, 1, 0, 0, -1, 1]),
        ("ones", "zeros", [1, 0, 1, 0, 1, 0, 1, 0, 1]),
        ("ignore", "zeros", [1, 0, -1, 0, 1, 0, -1, 0, 1]),
    ],
)
def test_policies(uncertain: str, blank: str, expected: list[int]) -> None:
    found = finding_of("Edema", *coded(CELLS), Policies(uncertain, blank))
    assert found.codes.tolist() == expected
    assert sum(found.masked.values()) == expected.count(-1)
    assert sum(found.masked.values()) + sum(found.counted.values()) == 4
    assert found.classes == ("negative", "positive")
    counts = found.to_dict()["classes"]
    assert counts == {"negative": expected.count(0), "positive": expected.count(1)}


@pytest.fixture(scope="module")
def chexpert() -> pd.DataFrame:
    """CheXpert's train.csv as text, as torchxrayvision carries it."""
    package = pytest.importorskip("torchxrayvision")
    table = Path(package.__file__).parent / "data" / "chexpert_train.csv.gz"
    with gzip.open(table) as source:
        return pd.read_csv(source, dtype=str, keep_default_na=False)


def test_chexperts_published_counts(chexpert: pd.DataFrame) -> None:
    """Pleural effusion in 223,414 images, as others have counted it."""
    names, codes = np.unique(chexpert["Pleural Effusion"], return_inverse=True)
    assert names[0] == ""
    column = ("Pleural Effusion", codes - 1, list(names[1:]))
    ignored = finding_of(*column, Policies())
    assert ignored.masked == {"uncertain": 11_628, "blank": 90_203}
    assert ignored.to_dict()["classes"] == {"negative": 35_396, "positive": 86_187}
    zeros = finding_of(*column, Policies("zeros", "zeros"))
    assert zeros.to_dict()["classes"] == {"negative": 137_227, "positive": 86_187}
    assert zeros.counted == {"uncertain as 0": 11_628, "blank as 0": 90_203}
    ones = finding_of(*column, Policies("ones", "zeros"))
    assert ones.to_dict()["classes"] == {"negative": 125_599, "positive": 97_815}


def test_five_findings_side_by_side(chexpert: pd.DataFrame) -> None:
    expected = ORACLES["chexpert"]["five_labels_images"]
    targets = []
    for name in expected:
        names, codes = np.unique(chexpert[name], return_inverse=True)
        targets.append(finding_of(name, codes - 1, list(names[1:]), Policies()))
    table = together(targets)
    assert table.dtype == np.int8
    for at, (target, counts) in enumerate(zip(targets, expected.values(), strict=True)):
        assert (table[:, at] == 1).sum() == counts["positive"]
        assert (table[:, at] == 0).sum() == counts["negative"]
        assert target.masked == {"uncertain": counts["uncertain"], "blank": counts["blank"]}


def test_unknown_cells_are_refused_with_value_column_and_count() -> None:
    with pytest.raises(Refused, match=r"'Edema' holds '2' \(2 rows\), 'yes' \(1 rows\)"):
        finding_of("Edema", *coded(np.array(["1", "2", "yes", "2", ""])), Policies())


def test_classes_in_the_order_of_their_names() -> None:
    found = classes_of("kind", *coded(np.array(["b", "", "a", "b", "nan"])))
    assert found.classes == ("a", "b")
    assert found.codes.tolist() == [1, -1, 0, 1, -1]
    assert found.masked == {"blank": 2}


@pytest.mark.parametrize(
    ("cells", "says"), [(["1.0", "-1.0", "0.0"], "uncertain"), (["", "nan"], "no value"), ([""], "no value")]
)
def test_columns_that_are_no_classes(cells: list[str], says: str) -> None:
    with pytest.raises(Refused, match=says):
        classes_of("Edema", *coded(np.array(cells)))


@pytest.mark.parametrize(
    ("policies", "says"),
    [(("soft",), "cut to 0"), (("maybe",), "one of"), (("ones", "ones"), "blank policy")],
)
def test_unknown_policies_are_refused(policies: tuple[str, ...], says: str) -> None:
    with pytest.raises(Refused, match=says):
        Policies(*policies)


def test_columns_of_a_bank(tmp_path: Path) -> None:
    columns = {
        "uri": [f"{row}.png" for row in range(4)],
        "label": ["b", "a", "", "a"],
        "site": ["x", "y", "nan", "x"],
        "Edema": ["1", "0", "-1", ""],
        "Mass": ["1", "", "0", "0"],
    }
    bank = open_or_create(tmp_path / "bank", Manifest.from_columns(columns, tmp_path))
    fill_with(bank, make_key(bank.image_digest, model="some/model"), np.zeros((4, 2), np.float32))
    (label,), (site,) = (
        targets_of(Features.from_bank(bank, label=name), Options()) for name in ("label", "site")
    )
    assert (label.column, label.classes, label.codes.tolist()) == ("label", ("a", "b"), [1, 0, -1, 0])
    assert (site.column, site.classes, site.codes.tolist()) == ("site", ("x", "y"), [0, 1, -1, 0])
    features, policies = Features.from_bank(bank), Policies("ones")
    several = targets_of(features, Options(findings=("Edema", "Mass"), policies=policies))
    assert together(several).tolist() == [[1, 1], [0, -1], [1, 0], [-1, 0]]
    (alone,) = targets_of(Features.from_bank(bank, label="Edema"), Options(policies=policies))
    assert (alone.column, alone.codes.tolist()) == ("Edema", several[0].codes.tolist())
    with pytest.raises(ManifestError, match="no column 'Oedema'"):
        targets_of(features, Options(findings=("Oedema",)))
    with pytest.raises(Refused, match="once"):
        Options(findings=("Edema", "Edema"))
