"""Parity certificates: what the fast path costs against Pillow's pixels and the plain model in float32."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.report.page.blocks import Column, DataTable, Paragraph, Section, Value
from engine.report.page.evidence import UsedFeature, used_features
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.values import number_value
from engine.report.record_values import at, number, text

_COLUMNS = (
    Column("data set"),
    Column("model"),
    Column("images", numeric=True, hint="measured, evenly spaced over the data set"),
    Column("made with", hint="decoder, and number format in which the backbone computed"),
    Column("mean", numeric=True, hint="absolute difference of the pixels, levels of 255", group="pixels"),
    Column("largest", numeric=True, hint="absolute difference of the pixels, levels of 255", group="pixels"),
    Column("1 − cosine", numeric=True, hint="of the worst image to the truth", group="embeddings"),
    Column("centred", numeric=True, hint="1 − cosine after subtracting the mean", group="embeddings"),
    Column(
        "relative error",
        numeric=True,
        hint="length of the difference over the length of the truth, of the worst image",
        group="embeddings",
    ),
)
_CAPTION = (
    "Each certificate compares the run's own features with those of Pillow's pixels through the plain model "
    "in float32, on a sample of the data set's images; 0 is perfect."
)


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section of certificates; empty where no record is about features of a bank."""
    features = tuple(used_features(page))
    certified = [one for one in features if _certificate(one) is not None]
    if not features:
        return ()
    blocks: list[DataTable | Paragraph] = []
    if certified:
        rows = tuple(_row(one) for one in certified)
        blocks.append(DataTable("table-certificates", _CAPTION, _COLUMNS, rows))
    lacking = [f"{one.model} on {one.source.name}" for one in features if _certificate(one) is None]
    if lacking:
        named = ", ".join(lacking[:6]) + (f" and {len(lacking) - 6} more" if len(lacking) > 6 else "")
        blocks.append(
            Paragraph(
                f"Without a certificate: {named}. `embank embed` with --certify measures it.", tone="note"
            )
        )
    broken = [one for one in features if one.reason]
    blocks += [Paragraph(f"{one.source.name}: {one.reason}", tone="error") for one in broken]
    return (Section("certificates", "Certificates of parity", tuple(blocks)),)


def _certificate(one: UsedFeature) -> Mapping[str, Any] | None:
    return one.description["certificate"] if one.description is not None else None


def _row(one: UsedFeature) -> tuple[Value, ...]:
    body = dict(_certificate(one) or {})
    passed = at(body, "pixels.passed")
    return (
        Value(one.source.name),
        Value(one.model),
        _number(number(body.get("n")), "{:,.0f}"),
        Value(", ".join(filter(None, (text(body.get("decoder")), text(body.get("precision")))))),
        _number(number(at(body, "pixels.mean")), "{:.3g}"),
        Value(
            f"{number(at(body, 'pixels.max')):.0f}",
            number(at(body, "pixels.max")),
            tone="warning" if passed is False else None,
            reason="beyond the bounds that decoders are held to" if passed is False else "",
        ),
        _number(1 - number(at(body, "embedding.min_cosine")), "{:.1e}", tone_above=1e-3),
        _number(1 - number(at(body, "embedding.min_centred_cosine")), "{:.1e}", tone_above=1e-2),
        _number(number(at(body, "embedding.max_relative_error")), "{:.2g}"),
    )


def _number(value: float, form: str, tone_above: float | None = None) -> Value:
    shown = number_value(value, form, "no image of the sample gives a number")
    return replace(shown, tone="warning") if tone_above is not None and value > tone_above else shown
