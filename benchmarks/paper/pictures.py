"""Pictures that a study keeps: occlusion maps over their images, and reconstructions beside their originals.

Nothing is computed again: the maps and reconstructions are those that the banks keep, found by the settings
in their records and by the SHA-256 of the image's file; originals are rendered from the image files.
"""

import hashlib
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.ours import slugs_of
from engine.decode.formats.sniff import sniff
from engine.decode.pillow import render
from engine.embed.provenance import Provenance
from engine.embed.restore import images_of
from engine.errors import BadImage, Refused
from engine.evals.reconstruction.store import Store
from engine.evals.saliency.maps import MapFolder
from engine.recipes import Recipe
from engine.report.json_parts import objects
from engine.report.page.inputs import Source
from engine.report.record_values import at, number, text
from stores.backends.location import Place
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry
from stores.json_types import Json, JsonObject

Pixels = NDArray[np.uint8]
Kind = Literal["saliency", "reconstruct"]

#: Settings that a kept map, or a kept reconstruction, depends on; names as in records.
_SETTINGS: Mapping[Kind, tuple[str, ...]] = {
    "saliency": (
        *("model", "weights", "architecture", "layer", "recipe", "precision", "decoder"),
        *("size", "stride", "fill", "batch_norm"),
    ),
    "reconstruct": (
        *("version", "model", "weights", "architecture", "layer", "map", "recipe", "decoder", "precision"),
        *("updates", "lr"),
    ),
}
#: Where an item of a record says what is kept.
_KEPT: Mapping[Kind, str] = {"saliency": "map", "reconstruct": "kept"}
_WHAT: Mapping[Kind, str] = {"saliency": "occlusion map", "reconstruct": "reconstruction"}
#: Opacity of the colours over an image, in the paper's figures.
ALPHA = 0.6


@dataclass(frozen=True)
class Candidate:
    """A picture that a record speaks of.

    Attributes:
        kind: `saliency` or `reconstruct`.
        dataset, model: in the paper's names.
        image_id: of the image.
        bank, entry, item: the record, and its line on the image.
    """

    kind: Kind
    dataset: str
    model: str
    image_id: str
    bank: Place
    entry: RecordEntry
    item: JsonObject

    @property
    def used(self) -> Mapping[str, Json]:
        """Inputs and machine of the evaluation, as its record has them."""
        assert self.entry.record is not None
        return self.entry.record.used

    @property
    def command(self) -> str:
        """The command that makes the picture again."""
        words = ["embank", self.kind, str(self.bank), "--model", self.entry.model, "--id", self.image_id]
        mode = text(self.entry.record.asked.get("mode")) if self.entry.record else ""
        return shlex.join([*words, *(["--mode", mode] if mode == "as-published" else [])])


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture, ready to be drawn.

    Attributes:
        dataset, model, image_id: as its candidate's.
        original: uint8 [S, S, 3], the image as the model sees it, not normalised.
        drawn: uint8 [S, S, 3], the map over the image, or the reconstruction.
        caption: its number.
    """

    dataset: str
    model: str
    image_id: str
    original: Pixels
    drawn: Pixels
    caption: str


def shown(
    sources: Iterable[Source],
    kind: Kind,
    mode: str = "default",
    *,
    models: Sequence[str] = (),
    root: Path | None = None,
) -> list[Shown]:
    """Return the pictures of one image of each data set, of each model that has one.

    It is the image that most models have a picture of, the first of several.

    Args:
        sources: banks with their records.
        kind: of the pictures.
        mode: of their evaluation.
        models: only these; none for all.
        root: folder of the images, where they have moved.

    Raises:
        Refused: there is no picture, a kept file is gone, or the images are; with the command that makes it.
        BankError, MachineFault: as reading banks and images raises.
    """
    sources = tuple(sources)
    candidates = [c for c in _candidates(sources, kind, mode) if not models or c.model in models]
    if not candidates:
        raise _nothing(sources, kind, mode, models)
    chosen = []
    for dataset in dict.fromkeys(c.dataset for c in candidates):
        own = [c for c in candidates if c.dataset == dataset]
        image = Counter(c.image_id for c in own).most_common(1)[0][0]
        chosen += list({c.model: c for c in own if c.image_id == image}.values())
    load = _load_map if kind == "saliency" else _load_reconstruction
    return [load(candidate, root) for candidate in chosen]


def _candidates(sources: Iterable[Source], kind: Kind, mode: str) -> Iterator[Candidate]:
    for source in sources:
        slugs = slugs_of(source.bank)
        for entry in source.entries:
            record = entry.record
            if record is None or record.kind != kind or entry.feature not in slugs:
                continue
            if (text(record.asked.get("mode")) or "default") != mode:
                continue
            for item in objects(record.metrics.get("items")):
                image_id = text(item.get("image_id"))
                if text(item.get(_KEPT[kind])) and image_id:
                    model = slugs[entry.feature].removesuffix("+paper")
                    yield Candidate(kind, source.name, model, image_id, source.bank, entry, item)


def _nothing(sources: Sequence[Source], kind: Kind, mode: str, models: Sequence[str]) -> Refused:
    bank = sources[0].bank
    titles = [info.title for info in Bank.open(bank).list()]
    model = next((title for title in (*models, *titles) if title in titles), "MODEL")
    words = ["embank", kind, str(bank), "--model", model, *(["--mode", mode] if mode != "default" else [])]
    of = f" of {' or '.join(models)}" if models else ""
    return Refused(
        f"no {_WHAT[kind]}{of} in mode {mode}",
        "The figure shows pictures that banks keep; it computes none",
        f"make them: `{shlex.join(words)}`",
    )


# --- loading ----------------------------------------------------------------------------------------------


def _load_map(candidate: Candidate, root: Path | None) -> Shown:
    used = candidate.used
    side, size = _whole(used.get("side")), _whole(used.get("size"))
    geometry: Callable[[Recipe], Recipe] = lambda recipe: replace(  # noqa: E731
        recipe, resize="short", size=side, crop=side, interpolation="bicubic"
    )
    digest, pixels = _render(candidate, geometry, root)
    stored = MapFolder(candidate.bank, _settings(candidate)).map_of(digest)
    if stored is None:
        raise _gone(candidate)
    cut = size - 1
    original = pixels[cut : side - cut, cut : side - cut]
    diffusion = number(candidate.item.get("attentive_diffusion"))
    return _shown(candidate, original, jet_over(original, stored.map), f"{diffusion:.3f}")


def _load_reconstruction(candidate: Candidate, root: Path | None) -> Shown:
    published = at(candidate.entry.record.to_dict() if candidate.entry.record else {}, "asked.mode")
    plain = Recipe(normalise="none")
    digest, pixels = _render(candidate, lambda own: plain if published == "as-published" else own, root)
    seed = _whole(candidate.item.get("seed"))
    finished = Store(candidate.bank, _settings(candidate)).finished(digest, seed)
    if finished is None:
        raise _gone(candidate)
    lpips, loss = number(at(candidate.item, "lpips.mean")), number(candidate.item.get("loss"))
    caption = f"LPIPS {lpips:.3f}" if math.isfinite(lpips) else f"loss {loss:.3g}"
    return _shown(candidate, pixels, finished.image, caption)


def _shown(candidate: Candidate, original: Pixels, drawn: Pixels, caption: str) -> Shown:
    return Shown(candidate.dataset, candidate.model, candidate.image_id, original, drawn, caption)


def _whole(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _settings(candidate: Candidate) -> JsonObject:
    return {name: candidate.used[name] for name in _SETTINGS[candidate.kind] if name in candidate.used}


def _render(
    candidate: Candidate, geometry: Callable[[Recipe], Recipe], root: Path | None
) -> tuple[str, Pixels]:
    """Return the SHA-256 of the image's file, and its pixels as the model saw them."""
    bank, feature = Bank.open(candidate.bank), candidate.entry.feature
    recipe = geometry(Provenance.of(bank, feature).recipe)
    if recipe.digest != candidate.used.get("recipe"):
        raise Refused(
            f"record {candidate.entry.id} was made with another preprocessing than the feature's",
            "The image is shown as the model saw it",
            f"make the pictures again: `{candidate.command}`",
        )
    source = images_of(bank, feature, root=root)
    data = source.read(bank.manifest().image_ids.index(candidate.image_id))
    try:
        pixels = render(data, sniff(data, recipe, source.limits), recipe)
    except BadImage as bad:
        raise Refused(
            f"{candidate.image_id} cannot be decoded: {bad.detail}",
            "The figure shows the image itself",
            "put the file back that the bank's rows were made from",
        ) from bad
    return hashlib.sha256(data).hexdigest(), pixels


def _gone(candidate: Candidate) -> Refused:
    return Refused(
        f"the {_WHAT[candidate.kind]} of {candidate.image_id} by {candidate.model} is missing or damaged",
        f"Record {candidate.entry.id} says that {candidate.bank} keeps it",
        f"make it again: `{candidate.command}`",
    )


def jet_over(pixels: Pixels, map: NDArray[np.float64]) -> Pixels:
    """Blend a map's colours into an image as the paper does: `jet` at 60 %, on the map's own scale.

    Args:
        pixels: uint8 [S, S, 3].
        map: float64 [S, S].

    Returns:
        uint8 [S, S, 3].
    """
    from matplotlib import colormaps

    low, high = float(map.min()), float(map.max())
    shares = np.zeros_like(map) if high <= low else (map - low) / (high - low)
    colours = np.asarray(colormaps["jet"](shares))[..., :3] * 255
    blended = (1 - ALPHA) * pixels.astype(np.float64) + ALPHA * colours
    return np.rint(blended).clip(0, 255).astype(np.uint8)
