"""The record of an evaluation that opens images, which need not be a bank's."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

import numpy as np

from engine.evals.common.image_draw import Draw
from engine.evals.common.image_inputs import Images
from engine.evals.common.record import Outcome, Part, Used, record_about
from engine.runtime import Runtime
from stores.bank.records import keep
from stores.json_types import Json, JsonObject
from stores.parquet import Texts


class DrawOptions(Draw, Protocol):
    """Options of an evaluation of some images, a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def keep_image_record(
    kind: str,
    report: MutableMapping[str, Json],
    images: Images,
    rows: Sequence[int],
    options: DrawOptions,
    runtime: Runtime,
    outcome: Outcome,
    more_used: Mapping[str, Json],
) -> None:
    """Write the record of a result, in the bank or in the folder of what was made of the images.

    Args:
        kind: of the evaluation.
        report: what the command prints; it gets the `validity` of the record, and says so where no record
            could be kept (`stores.bank.records.keep`).
        rows: of the images that were opened.
        more_used: members of `used` that this evaluation has beyond those of all.
    """
    manifest = images.manifest
    used = Used(
        feature=images.feature,
        title=images.title,
        key=images.key,
        manifest_digest=manifest.digest,
        image_digest=manifest.image_digest,
        label=None,
        splits={"images": Part.of(np.array(rows, np.intp), len(manifest))},
        device=runtime.device,
        backend="array",
        threads=runtime.threads,
        seed=options.seed,
    )
    settings: JsonObject = {
        **asdict(options),
        "ids": list(options.ids),
        "model": images.title,
        "precision": runtime.precision,
    }
    ids = manifest.image_ids
    record = record_about(
        kind, lambda: Texts.of(ids), images.manifest_file, settings, used, outcome,
        {**more_used, "weights_source": images.spec.weights_source},
    )  # fmt: skip
    keep(record, images.home, report)
