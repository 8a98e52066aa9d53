"""The encoder and the images of a bank's feature are restored in one place, `engine.embed.restore`.

Copies of it have drifted before, and lost the limits of the feature's run. So the rooms that read features
may not make encoders, decoders or image sources by themselves, nor read provenance.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Functions and classes that make again what a feature was made with -> where they are defined.
MAKERS = {
    "load": "engine.models",
    "make_decoder": "engine.decode",
    "decoder_name": "engine.decode",
    "decoder_of": "engine.embed",
    "image_source": "engine.embed",
    "feature_key": "engine.embed",
    "EmbedOptions": "engine.embed",
    "ImageSource": "engine.decode",
    "Limits": "engine.decode",
    "Provenance": "engine.embed",
}
#: What only whoever makes a new feature, or reads files that are no feature's, needs: the commands of these.
COMMANDS = ("EmbedOptions", "Limits", "ImageSource", "Provenance")
#: Not the encoder, but a network of its own for windows of an image; its model comes from `spec_of`. And
#: images that are trained and tested on, or compared with one another, which no feature is compared with.
ACCEPTED = {
    ("engine/evals/perceptual/images.py", "ImageSource"),
    ("engine/evals/saliency/occluder.py", "load"),
    ("engine/evals/finetune/examine.py", "make_decoder"),
    ("engine/evals/finetune/evaluate.py", "decoder_name"),
}


def copies(source: str, makers: frozenset[str] = frozenset(MAKERS)) -> set[str]:
    """Makers that a module calls, by whatever way it imported them; and `provenance()` of a bank."""
    tree = ast.parse(source)
    modules, names = dict[str, str](), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    called = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        path = ast.unparse(node.func)
        if path.endswith(".provenance"):
            called.add("provenance")
        first, _, rest = path.partition(".")
        whole = ".".join(filter(None, [names.get(first) or modules.get(first) or first, rest]))
        for maker in makers:
            parts = whole.split(".")
            if maker in parts[-2:] and whole.startswith(f"{MAKERS[maker]}."):
                called.add(maker)
    return called


def _sources(*rooms: str) -> list[str]:
    paths = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("room", ["engine/evals", "engine/report"])
def test_evaluations_and_reports_have_no_copy(room: str) -> None:
    files = _sources(room)
    assert len(files) > 5
    found = {(file, maker) for file in files for maker in copies((ROOT / file).read_text())}
    assert found <= ACCEPTED


def test_commands_have_no_copy() -> None:
    files = ["cli.py", *_sources("engine/commands", "engine/study")]
    makers = frozenset(MAKERS) - set(COMMANDS)
    assert {file: copies((ROOT / file).read_text(), makers) - {"provenance"} for file in files} == {
        file: set() for file in files
    }


@pytest.mark.parametrize(
    ("source", "maker"),
    [
        ("from engine.models import load\nload(spec, runtime)", "load"),
        ("def f():\n    from engine import models\n    models.load(spec, runtime)", "load"),
        ("from engine.models.forward import encoder as e\ne.load(spec, runtime)", "load"),
        ("import engine.models\nengine.models.load(spec, runtime)", "load"),
        ("from engine.decode import make_decoder as m\nm('dali', recipe)", "make_decoder"),
        ("from engine.decode.source import ImageSource\nImageSource(root, uris)", "ImageSource"),
        ("from engine.embed.provenance import Provenance\nProvenance.of(bank, name)", "Provenance"),
        ("bank.provenance(name)['root']", "provenance"),
    ],
)
def test_copies_are_seen(source: str, maker: str) -> None:
    assert copies(source) == {maker}


def test_other_functions_of_these_names_are_no_copies() -> None:
    assert copies("import json\njson.load(file)\ndef load(x): ...\nload(1)") == set()
    assert copies("from engine.embed.restore import restore\nrestore(bank, name).encoder()") == set()
