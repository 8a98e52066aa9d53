"""Images without a map stay in the table, with a reason; the mean is of the others."""

import io
import math

import numpy as np
import pandas as pd

from engine.evals.saliency.options import SaliencyOptions
from engine.evals.saliency.result import Item, SaliencyResult, Setting
from engine.kernels.occlusion import Squares
from stores.parquet import Texts


def _result(*items: Item) -> SaliencyResult:
    squares = Squares(34, 10, 5)
    setting = Setting("model", "0" * 64, SaliencyOptions(stride=5), squares, "fp32", "cpu", "1" * 64)
    return SaliencyResult(items, None, setting)


def test_an_image_without_a_map_has_a_row_and_a_reason() -> None:
    result = _result(
        Item("b", 1, 5, 0.25, 0.1, 0.2),
        Item("a", 0, 5, reason="too_small", detail="8 x 8"),
        Item("c", 2, 5, 0.5),
    )
    ((name, table),) = result.predictions().tables.items()
    frame = pd.read_parquet(io.BytesIO(table.to_parquet(lambda: Texts.of("abc"))))
    assert name == "" and frame["image_id"].tolist() == ["b", "a", "c"]
    np.testing.assert_array_equal(frame["attentive_diffusion"], [0.25, np.nan, 0.5])
    assert frame["reason"].tolist() == ["", "too_small", ""]
    assert result.mean == frame["attentive_diffusion"].mean() == 0.375
    assert result.failures == {"too_small": 1} and result.metrics()["attentive_diffusion"].value == 0.375
    assert result.report["items"][1] == {
        "image_id": "a", "row": 0, "stride": 5, "attentive_diffusion": result.items[1].diffusion,
        "reason": "too_small", "detail": "8 x 8",
    }  # fmt: skip


def test_no_map_at_all_is_undefined_with_a_reason() -> None:
    result = _result(Item("a", 0, 5, reason="empty"))
    assert math.isnan(result.mean) and result.metrics()["attentive_diffusion"].reason
    assert math.isnan(result.report["mean"]) and result.report["interval"]["reason"]
