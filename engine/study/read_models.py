"""The models of a study file."""

from pathlib import Path

from engine.errors import ModelError, Refused
from engine.models.backbones import architecture_cache
from engine.models.catalog import lookup
from engine.models.catalog.families import ROWS
from engine.recipes import RECIPES
from engine.study import schema
from engine.study.estimate import ARCHITECTURES
from engine.study.place import inside
from engine.study.study import Model
from engine.study.values import Value, suggestion
from stores.bank.names import valid


def read_models(value: Value, root: Path) -> tuple[Model, ...]:
    """Read the models; none is loaded or fetched.

    Raises:
        Refused: unknown slugs, names that features cannot have, or the same model twice.
    """
    models: dict[str, Model] = {}
    same: dict[tuple[object, ...], Model] = {}
    for item in value.items():
        model = _model(item, root)
        if (other := models.setdefault(model.name, model)) is not model:
            raise item.refused(f"Line {other.line} has a model of this name", "give one of them another name")
        identity = (model.slug, model.weights, model.recipe)
        if (other := same.setdefault(identity, model)) is not model:
            raise item.refused(f"Line {other.line} is the same model", "remove one of them")
    if not models:
        raise value.refused("It names at least one", "add a slug (`embank models list`)")
    return tuple(models.values())


def _model(item: Value, root: Path) -> Model:
    if item.node.kind != "mapping":
        slug = _slug(item)
        return Model(slug, slug, line=item.line)
    values = item.members(schema.names(schema.MODEL))
    if "model" not in values:
        raise item.refused("It names a model", "add model: SLUG (`embank models list`)", "")
    slug = _slug(values["model"])
    weights = inside(values["weights"], root) if "weights" in values else None
    if weights is not None and not lookup.find(slug).row.takes_file:
        raise values["weights"].refused(
            "The weights of this model are drawn, not read", "use torchvision/NAME"
        )
    return Model(
        name=_name(values["name"], slug) if "name" in values else slug,
        slug=slug,
        weights=weights,
        recipe=_recipe(values["recipe"], root) if "recipe" in values else None,
        group=values["group"].text() if "group" in values else "",
        line=item.line,
    )


def _slug(value: Value) -> str:
    """Return a slug that `engine.models.resolve` accepts."""
    slug = value.text()
    _refuse_misspelt(slug, value)
    try:
        entry = lookup.find(slug)
        known = entry.architecture.partition("+")[0] in ARCHITECTURES
        if entry.row.slug.endswith("/NAME") and not known:  # a name of a library's, which its own list has
            architecture_cache.layer(entry.architecture)
    except ModelError as error:
        rule = error.rule if len(error.rule) < 200 else "It is a slug of `embank models list`"
        raise value.refused(rule, error.remedy) from error
    except (ValueError, OSError) as error:  # a name that the library or the cache cannot take
        raise value.refused("It is a slug of `embank models list`", "choose one") from error
    return slug


def _refuse_misspelt(slug: str, value: Value) -> None:
    """Refuse a slug that is nearly one of the catalogue's; looking up the libraries' names takes seconds."""
    plain = slug.partition("+")[0]
    if any(row.name_in(plain) is not None for row in ROWS):
        return
    if hint := suggestion(plain, (row.slug for row in ROWS if not row.slug.endswith("/NAME"))):
        raise value.refused("It is a slug of `embank models list`", hint)


def _name(value: Value, slug: str) -> str:
    """Return a name that features can have; a model's own slug is one."""
    name = value.text()
    try:
        return name if name == slug else valid(name)
    except Refused as error:
        raise value.refused(error.rule, error.remedy) from error


def _recipe(value: Value, root: Path) -> str:
    """Return a named recipe, or the path of one below the root."""
    word = value.text()
    if word in RECIPES:
        return word
    if not word.endswith(".json"):
        raise value.refused(
            f"It is one of {', '.join(RECIPES)}, or a file whose name ends in .json",
            suggestion(word, RECIPES) or "choose one",
        )
    return str(inside(value, root))
