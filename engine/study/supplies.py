"""What a study needs from outside before it can run: images and weights that are not on this machine yet."""

from engine import datasets
from engine.models.catalog import lookup
from engine.models.checkpoints.checkpoint_cache import Published
from engine.study.feasible import Why
from engine.study.passes import Images
from engine.study.study import Model


def blocked_by_images(images: Images) -> Why | None:
    """Return what is missing of a data set's files; None if they seem to be there.

    Files below a folder are looked at when the manifest is made.
    """
    data = images.images.data
    if data.bank is not None:
        if images.there:
            return None
        return Why(f"{data.bank} is no bank", "make it with `embank embed`, or name another in the study")
    if data.manifest is not None:
        if data.manifest.is_file():
            return None
        return Why(
            f"{data.manifest} is not there",
            "make it with `embank manifest folder` or `embank manifest table`",
        )
    assert data.builtin is not None
    if datasets.load(data.builtin).facts.embedded or (data.folder is not None and data.folder.is_dir()):
        return None
    return Why(
        f"{data.folder} is not there",
        f"download the data set as `embank datasets show {data.builtin}` says",
    )


def blocked_by_weights(model: Model) -> Why | None:
    """Return what is missing of a model's weights; None if they are here, or are fetched on first use."""
    if model.weights is not None:
        if model.weights.exists():
            return None
        return Why(
            f"{model.weights} is not there", "put the weights there, or name another file in the study"
        )
    source = lookup.find(model.slug).row.source
    present = source.present()
    if present in ("yes", "on first use"):
        return None
    if isinstance(source, Published):
        slug = model.slug.partition("+")[0]
        command = "fetch" if present == "no" else "convert"
        return Why(f"The weights of {slug} are not here", f"run `embank models {command} {slug}`")
    return Why(f"{model.slug} has no weights here ({source.label})", "name a file with weights: in the study")


def lpips_lacks() -> tuple[Why, ...]:
    """Return the weights that LPIPS of reconstructions lacks here; without them its values are NaN."""
    slugs = ("supervised-alexnet", "supervised-squeezenet", "supervised-vgg16")
    whys = (blocked_by_weights(Model(slug, slug)) for slug in slugs)
    return tuple(why for why in whys if why is not None)
