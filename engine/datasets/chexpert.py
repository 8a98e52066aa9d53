"""CheXpert: 223,414 chest radiographs of 64,540 patients, 14 findings read out of the reports."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.datasets import _chexpert_files, _splits, _tables
from engine.datasets._chexpert_facts import (
    FINDINGS,
    IMAGE_COUNTS,
    PUBLISHED_POOL,
    ROWS,
    TRAIN_ROWS,
    facts,
)
from engine.datasets._protocol import Mode
from engine.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

    from stores.manifest.manifest import Manifest

__all__ = ["expected", "facts", "index"]

_TABLE = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
_PATH = (
    r"^(?:.*/)?(?P<part>train|valid)/(?P<group>patient\d+)/"
    r"(?P<rest>(?P<study>study\d+)/(?P<name>view\d+_(?P<view>frontal|lateral))\.jpg)$"
)
_CELLS = {"1.0": "1", "1": "1", "0.0": "0", "0": "0", "-1.0": "-1", "-1": "-1", "": ""}
#: Draws for uncertain findings (Pham and others 2021, doi:10.1016/j.neucom.2020.03.127, U-Ones+LSR).
_SOFT = (0.55, 0.85)
#: What the study did with uncertain findings, evaluation by evaluation.
_PUBLISHED_POLICY = {"few-shot": "ones", "linear": "zeros"}


def index(
    root: Path,
    mode: Mode = "default",
    *,
    label: str = "Pleural Effusion",
    uncertain: str = "",
    evaluation: str = "linear",
    valid: str = "no",
    files: str = "all",
    seed: str = "0",
) -> "Manifest":
    """List the images that `train.csv` names. See `Dataset.index`; the options are in `facts.options`.

    Extra columns: the 14 findings (`1`, `0`, `-1` uncertain, empty not mentioned), `sex`, `age`,
    `projection`, `pair` (`engine.datasets.view_pairs`), `target` with `uncertain=soft` (probability of the
    finding), `validation` with `as-published`.
    """
    from stores.manifest.manifest import Manifest

    policy = _policy(mode, uncertain, evaluation, valid)
    home = _chexpert_files.find(root)
    frame = _labelled(_rows(home, "train"), label, policy, seed)
    notes: list[str] = []
    if mode == "as-published":
        notes += _splits.part_note(len(frame), ROWS)
        train = TRAIN_ROWS if len(frame) == ROWS else round(len(frame) * TRAIN_ROWS / ROWS)
        frame = _splits.with_validation(_splits.published_split(frame, train))
        if evaluation == "few-shot":
            frame = frame.iloc[: _splits.PUBLISHED_POOL].drop(columns="validation")
    else:
        share = 1 - TRAIN_ROWS / ROWS
        frame = frame.assign(split=_splits.by_group(frame["group"], _splits.seed_of(seed), share))
        if valid != "no":
            frame = _with_valid(frame, _labelled(_rows(home, "valid"), label, policy, seed), valid)
        frame = frame.sort_values("uri")
    frame, left_out = _chexpert_files.keep(frame, root, files == "present")
    manifest = Manifest.from_frame(frame.drop(columns=["part", "rest", "name"]), root)
    return replace(manifest, notes=(*notes, *left_out, *manifest.notes))


def expected(
    mode: Mode,
    *,
    label: str = "Pleural Effusion",
    uncertain: str = "",
    evaluation: str = "linear",
    valid: str = "no",
    files: str = "all",
    seed: str = "0",
) -> Mapping[str, int]:
    """See `Dataset.expected`; empty where `valid.csv` is listed too."""
    if mode == "as-published" and evaluation == "few-shot":
        return PUBLISHED_POOL if label == "Pleural Effusion" else {}
    if valid != "no":
        return {}
    positive, unsure, negative, blank = IMAGE_COUNTS[label]
    policy = _policy(mode, uncertain, evaluation, valid)
    return {
        "positive": positive + unsure * (policy in ("ones", "soft")),
        "negative": negative + blank + unsure * (policy == "zeros"),
        "": unsure * (policy == "ignore"),
    }


def _policy(mode: Mode, uncertain: str, evaluation: str, valid: str) -> str:
    if mode == "default":
        return uncertain or "ignore"
    if uncertain or valid != "no":
        raise Refused(
            f"as-published with uncertain={uncertain!r} and valid={valid!r}",
            "The study counted uncertain as positive in few-shot, else as negative, and left valid.csv out",
            "leave these options out, or use --mode default; -O evaluation=few-shot chooses the rule",
        )
    return _PUBLISHED_POLICY[evaluation]


def _rows(home: _chexpert_files.Home, part: str) -> "pd.DataFrame":
    """One label table in its own order, with everything but the label."""
    path = home.table(f"{part}.csv")
    table = _tables.read(path, _TABLE)
    steps = _tables.extract(table["Path"], _PATH)
    _tables.refuse_rows(
        path,
        ~(steps["part"] == part),
        table["Path"],
        f"A path reads .../{part}/patientNNNNN/studyN/viewN_frontal.jpg, or _lateral",
    )
    _tables.refuse_repeats(path, table["Path"])
    study = part + "/" + steps["group"] + "/" + steps["study"]
    frame = steps.assign(
        image_id=study + "/" + steps["name"],
        uri=home.uris(part, steps),
        study=study,
        sex=table["Sex"],
        age=table["Age"],
        projection=table["AP/PA"],
    )
    frame["pair"] = _pairs(frame)
    findings = {name: table[name].map(_CELLS) for name in FINDINGS}
    for name, cells in findings.items():
        _tables.refuse_rows(
            path, cells.isna(), table[name], f"A cell of {name} is 1, 0, -1 (uncertain) or empty"
        )
    return frame.assign(**findings)


def _pairs(frame: "pd.DataFrame") -> "pd.Series[str]":
    """The partner of each lateral: `view1_frontal` of its study, where there is one."""
    import pandas as pd

    lateral = (frame["view"] == "lateral").to_numpy()
    known = set(frame["image_id"])
    names = frame["study"][lateral] + "/view1_frontal"
    partners = np.full(len(frame), "", dtype=object)
    partners[lateral] = [name if name in known else "" for name in names]
    return pd.Series(partners, index=frame.index)


def _labelled(frame: "pd.DataFrame", label: str, policy: str, seed: str) -> "pd.DataFrame":
    """Add `label`, and `target` for soft labels. What a report does not mention counts as negative."""
    cells = frame[label]
    unsure = (cells == "-1").to_numpy()
    as_what = {"ignore": "", "zeros": "negative", "ones": "positive", "soft": "positive"}[policy]
    names = np.where(cells == "1", "positive", "negative").astype(object)
    frame = frame.assign(label=np.where(unsure, as_what, names))
    if policy != "soft":
        return frame
    target = np.where(cells == "1", "1", "0").astype(object)
    draws = _splits.soft_targets(frame["image_id"][unsure], _splits.seed_of(seed), *_SOFT)
    target[unsure] = [f"{draw:.6f}" for draw in draws]
    return frame.assign(target=target)


def _with_valid(frame: "pd.DataFrame", valid: "pd.DataFrame", split: str) -> "pd.DataFrame":
    import pandas as pd

    return pd.concat([frame, valid.assign(split=split)], ignore_index=True)
