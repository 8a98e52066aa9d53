"""The kinds of evaluation: their options in a study file, and the commands that make their cells again."""

import re
from dataclasses import dataclass
from typing import Literal

#: What an option takes: one value, a list of them, or true or false.
Type = Literal["text", "integer", "number", "switch", "texts", "integers", "numbers"]

#: Names of `engine.kernels.transforms.TRANSFORMS`, which imports torch.
TRANSFORMS = (
    "rotation",
    "translation",
    "scale",
    "shear",
    "resized_crop",
    "h_flip",
    "v_flip",
    "deform",
    "grayscale",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "blur",
    "sharpness",
    "invert",
    "equalize",
    "posterize",
)


@dataclass(frozen=True)
class Option:
    """An option of a kind.

    Attributes:
        name: in a study file.
        type: of its value.
        help: what it is, in one line.
        flag: on the command line; "" for the name with dashes.
        off: flag of `false`; "" where only `true` is written.
        comma: whether a list is one word with commas, and not a flag for each value.
    """

    name: str
    type: Type
    help: str
    flag: str = ""
    off: str = ""
    comma: bool = False

    @property
    def written(self) -> str:
        """The flag on the command line."""
        return self.flag or f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Kind:
    """A kind of evaluation.

    Attributes:
        name: one of `engine.study.study.KINDS`.
        words: command that makes a cell.
        options: in the order of the documentation.
        modes: whether there is an `as-published` mode.
        seeds: whether there is a seed.
        controls: whether controls can be made.
        labels: whether the data set's label columns are options of it (`--label`).
        classifies: needs labelled images.
        opens_images: needs the images' files, or trains on them.
        splits: needs a train and a test part.
        strata: whether tests in strata can be made.
        metrics: that comparisons can be of, the usual one first; empty where models cannot be compared.
        part: option of which each value is a cell of its own; "" for none.
    """

    name: str
    words: tuple[str, ...]
    options: tuple[Option, ...]
    modes: bool = True
    seeds: bool = True
    controls: bool = False
    labels: bool = False
    classifies: bool = False
    opens_images: bool = False
    splits: bool = False
    strata: bool = False
    metrics: tuple[str, ...] = ()
    part: str = ""

    def option(self, name: str) -> Option | None:
        """Return the option of this name; None if there is none."""
        return next((option for option in self.options if option.name == name), None)

    def as_in_file(self, advice: str) -> str:
        """Return advice to users of the command line with options as a study file has them.

        Commands, which stand between backticks, stay as they are.
        """
        names = {"--mode": "modes", "--seed": "seeds", "--strata": "strata", "--label": "label"}
        names |= {option.off: f"{option.name}: false" for option in self.options}
        names |= {option.written: option.name for option in self.options}
        return re.sub(r"`[^`]*`|--[a-z][a-z-]*", lambda match: names.get(match[0], match[0]), advice)


_GROUP_DISJOINT = Option(
    "group_disjoint",
    "switch",
    "keep images of a patient apart; so where patients are known",
    off="--no-group-disjoint",
)
_TRAIN = Option("train_split", "text", "split to train on; `train`")
_VAL = Option("val_split", "text", "split to validate on; `val`")
_TEST = Option("test_split", "text", "split to test on; `test`")
_BOOTSTRAP = Option("bootstrap", "integer", "resamples of the patients for intervals; 0 for none")
_IMAGES = Option("images", "integer", "how many, drawn by the seed")
_IDS = Option("ids", "texts", "these images instead", flag="--id")
_BATCH_NORM = Option("batch_norm", "text", "`eval`, or `train` (as-published only)")
_REGULARISATION = Option(
    "regularisation",
    "text",
    "of the covariance: `ledoit-wolf`, `ridge=VALUE`, `components=COUNT` or `none`",
    flag="--shrinkage",
)
_ARITHMETIC = Option("arithmetic", "text", "of the products: `float64` or `float32`", flag="--products")
_LEARNING = (
    Option("multi_label", "switch", "the label columns are findings, learned in one run"),
    Option("uncertain", "text", "what uncertain findings become: `ignore`, `zeros` or `ones`"),
    Option("blank", "text", "what empty findings become: `ignore` or `zeros`"),
    _TRAIN,
    _VAL,
    _TEST,
    Option("val_fraction", "number", "share of the train patients to validate on without a split; 0.2"),
    Option("holdout", "switch", "hold out a fifth of the train patients; for sets without a test split"),
    Option("select", "text", "score that decides: `accuracy`, `mean-per-class`, `auroc` or `log-loss`"),
    Option("class_weight", "text", "`none` or `balanced`"),
    _BOOTSTRAP,
)

_ALL = (
    Kind(
        "fewshot",
        ("fewshot",),
        (
            Option("n_way", "integer", "classes an episode; 5, or all if they are fewer"),
            Option("n_shot", "integer", "support images a class; 20"),
            Option("n_query", "integer", "query images a class; 15"),
            Option("episodes", "integer", "how many; 600"),
            Option("distance", "text", "`sqeuclidean`, `cosine` or `centred`"),
            _GROUP_DISJOINT,
            Option("cap", "integer", "most images of a class; all"),
            Option("split", "text", "images of this split only; all"),
            _BOOTSTRAP,
        ),
        controls=True,
        classifies=True,
        metrics=("accuracy",),
    ),
    Kind(
        "knn",
        ("knn",),
        (
            Option("k", "integers", "numbers of neighbours, of which the first is the headline", flag="-k"),
            Option("distance", "text", "`cosine` or `euclidean`"),
            Option("weights", "text", "of the votes: `uniform` or `temperature`"),
            Option("temperature", "number", "T of the weights exp(similarity / T); 0.07"),
            Option("leave_one_out", "switch", "classify every image by all others"),
            _GROUP_DISJOINT,
            _TRAIN,
            _TEST,
        ),
        modes=False,
        seeds=False,
        controls=True,
        classifies=True,
        splits=True,
        metrics=("accuracy", "mean_per_class_accuracy", "auroc", "average_precision"),
    ),
    Kind(
        "probe",
        ("probe",),
        (
            *_LEARNING,
            Option("c_min", "number", "smallest inverse regularisation C; 1e-5"),
            Option("c_max", "number", "largest inverse regularisation C; 1e6"),
            Option("values", "integer", "values of C tried; 45"),
            Option("standardise", "switch", "by the rows fitted; true", off="--no-standardise"),
            Option("low_shot", "integers", "also train on these numbers of images per class", comma=True),
            Option("low_shot_draws", "integer", "draws of `low_shot`; 5", flag="--seeds"),
            Option("specificity", "number", "at which sensitivity is reported; 0.95"),
            Option("threshold", "text", "`youden` or `specificity`", flag="--threshold-rule"),
            Option("folds", "integer", "cross-validate instead"),
            Option("repeats", "integer", "of `folds`; 1"),
        ),
        controls=True,
        labels=True,
        classifies=True,
        splits=True,
        strata=True,
        metrics=("mean_per_class_accuracy", "accuracy", "auroc", "average_precision", "log_loss"),
        part="label",
    ),
    Kind(
        "finetune",
        ("finetune",),
        (
            *_LEARNING,
            Option("steps", "integer", "updates of the weights, at most; 5000"),
            Option("batch_size", "integer", "images of an update; 64, and 16 for DenseNets"),
            Option("lr", "number", "learning rate of the first update; 0.01"),
            Option("momentum", "number", "Nesterov's; 0.9"),
            Option("weight_decay", "number", "of all parameters; 1e-8"),
            Option("schedule", "text", "`cosine` or `constant`"),
            Option("validate_every", "integer", "updates between two validations; 200"),
            Option("patience", "integer", "validations below the best one after which training stops; 3"),
            Option("accumulate", "integer", "parts that a batch is cut into; 1"),
        ),
        labels=True,
        classifies=True,
        opens_images=True,
        splits=True,
        part="label",
    ),
    Kind(
        "invariance",
        ("invariance",),
        (
            Option("transforms", "texts", "a cell for each; `all` for the study's 18", flag="--transform"),
            _IMAGES,
            Option("views", "integer", "of each image, where a transform does not fix it; 256"),
            _REGULARISATION,
            _ARITHMETIC,
            _BATCH_NORM,
        ),
        opens_images=True,
        part="transforms",
    ),
    Kind(
        "multiview",
        ("invariance", "--multi-view"),
        (
            Option("pair", "texts", "two values of the column `view`; the only two", comma=True),
            Option("images", "integer", "pairs drawn by the seed; all"),
            Option("same_label", "switch", "pairs of one label only"),
            _REGULARISATION,
            _ARITHMETIC,
        ),
        modes=False,
    ),
    Kind(
        "saliency",
        ("saliency",),
        (
            _IMAGES,
            _IDS,
            Option("size", "integer", "side of the square in pixels; 10"),
            Option("stride", "integer", "step of the square in pixels; 8 on the CPU, 1 on a GPU"),
            Option("fill", "text", "`0` after normalisation, `mean`, or `R,G,B`"),
            _BATCH_NORM,
        ),
        opens_images=True,
    ),
    Kind(
        "reconstruct",
        ("reconstruct",),
        (
            _IMAGES,
            _IDS,
            Option("steps", "integer", "updates of a network; 3000"),
            Option("networks", "integer", "for each image, of different seeds; 3", flag="--seeds"),
            Option("lr", "number", "learning rate; 0.001"),
        ),
        opens_images=True,
    ),
    Kind(
        "audit",
        ("bank", "audit"),
        (
            Option("threshold", "number", "least cosine similarity of near-duplicates; 0.99"),
            Option("max_pairs", "integer", "most pairs listed; 10000"),
        ),
        modes=False,
        seeds=False,
    ),
)

#: Name -> kind.
KINDS_BY_NAME = {kind.name: kind for kind in _ALL}
