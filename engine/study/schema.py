"""The keys of a study file, with what they take: the reader's rules, and the reference's text."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.study.kinds import Option


@dataclass(frozen=True)
class Key:
    """A key of a study file.

    Attributes:
        name: as it is written.
        takes: what stands after it.
        help: what it says, in one line.
    """

    name: str
    takes: str
    help: str


def names(keys: Sequence[Key]) -> list[str]:
    """Return the names of keys."""
    return [key.name for key in keys]


STUDY = (
    Key("study", "name", "names the study and its folder; needed"),
    Key("title", "text", "title of the report; the name by default"),
    Key("datasets", "mapping or list", "the data sets by name; needed"),
    Key("models", "list", "the models: slugs, or mappings; needed"),
    Key("evaluations", "mapping or list", "the evaluations by name; needed"),
    Key("embed", "mapping", "how images are embedded"),
    Key("modes", "list", "`default`, `as-published` or both, for evaluations that have modes; `default`"),
    Key("seeds", "list of whole numbers", "a cell for each, for evaluations that have seeds; 0"),
    Key("controls", "true or false", "whether controls are made; true"),
    Key("comparisons", "true or false", "whether models are compared in pairs; true"),
    Key("strata", "list of texts", "columns in whose strata probes are tested, e.g. `age:40,60`"),
)

DATASET = (
    Key("builtin", "name", "one of `embank datasets list`; the data set's own name by default"),
    Key("folder", "path", "of the data set's files as downloaded; sets that embank writes itself need none"),
    Key("build", "mapping", "options of `embank manifest build -O`"),
    Key("manifest", "path", "a manifest, in place of `builtin`"),
    Key("root", "path", "folder that the manifest's files are relative to"),
    Key("bank", "path", "an existing bank, in place of `builtin`; it is evaluated where it is"),
    Key("label", "list of texts", "columns to learn; `label`"),
    Key("strata", "list of texts", "in place of the study's"),
    Key("domain", "text", "what per-domain means call it, e.g. `in` or `out`"),
    Key("options", "mapping", "kind of evaluation -> options in place of the evaluation's"),
)

MODEL = (
    Key("model", "slug", "as `embank models list` has it; needed"),
    Key("name", "text", "of its features, and in the report; the slug by default"),
    Key("weights", "path", "a file, in place of the published weights"),
    Key("recipe", "name or path", "preprocessing, in place of that of the weights"),
    Key("group", "text", "what per-group means call it, e.g. `self-supervised`"),
)

EVALUATION = (
    Key("kind", "word", "the kind, where the evaluation's name is another"),
    Key("datasets", "list of names", "for these only; all"),
    Key("models", "list of names", "for these only; all"),
    Key("modes", "list", "in place of the study's"),
    Key("seeds", "list of whole numbers", "in place of the study's"),
    Key("controls", "true or false", "in place of the study's"),
    Key("compare", "true or false", "in place of the study's `comparisons`"),
    Key("metric", "word", "that models are compared by"),
)

#: Options of embedding: those of `embank embed` that can change features or what is stored.
EMBED = (
    Option("side", "integer", "side of every model's input in pixels; that of the weights' preprocessing"),
    Option("dtype", "text", "of stored embeddings: `float16` or `float32`"),
    Option("precision", "text", "in which the backbone computes: `auto`, `fp32`, `bf16` or `fp16`"),
    Option("decoder", "text", "`auto`, `dali`, `turbo` or `reference`"),
    Option("dct", "switch", "let the JPEG decoder scale"),
    Option("batch_size", "integer", "images a forward pass"),
    Option("chunk_rows", "integer", "rows a chunk of a new bank"),
    Option("max_pixels", "integer", "largest image decoded"),
    Option("max_failed", "number", "largest share of images that may fail; 0.01"),
    Option("certify", "switch", "measure the runs against Pillow and the plain model in fp32"),
    Option("seed", "integer", "of the weights of `random/NAME`"),
)
#: Words of the options of embedding.
EMBED_WORDS = {
    "dtype": ("float16", "float32"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "decoder": ("auto", "dali", "turbo", "reference"),
}
#: Limits of the whole numbers of embedding.
EMBED_LIMITS = {
    "side": (1, 8192),
    "batch_size": (1, 65_536),
    "chunk_rows": (1, 1 << 20),
    "max_pixels": (1, 1 << 40),
    "seed": (0, 2**63 - 1),
}
