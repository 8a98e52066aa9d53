"""The words that options take, each set once; a command may take some of a set (`options.some_of`)."""

from enum import StrEnum


class Mode(StrEnum):
    default = "default"
    as_published = "as-published"


class Distance(StrEnum):
    sqeuclidean = "sqeuclidean"
    cosine = "cosine"
    centred = "centred"
    euclidean = "euclidean"


class Backend(StrEnum):
    auto = "auto"
    array = "array"
    faiss = "faiss"
    batched = "batched"
    sklearn = "sklearn"
    cuml = "cuml"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Decoder(StrEnum):
    auto = "auto"
    dali = "dali"
    turbo = "turbo"
    reference = "reference"


class StoredType(StrEnum):
    float16 = "float16"
    float32 = "float32"


class ExportFormat(StrEnum):
    npy = "npy"
    parquet = "parquet"


class Votes(StrEnum):
    uniform = "uniform"
    temperature = "temperature"


class Index(StrEnum):
    exact = "exact"
    ivf = "ivf"
    cagra = "cagra"


class Select(StrEnum):
    accuracy = "accuracy"
    mean_per_class = "mean-per-class"
    auroc = "auroc"
    log_loss = "log-loss"


class Threshold(StrEnum):
    youden = "youden"
    specificity = "specificity"


class Plot(StrEnum):
    selection = "selection"
    reliability = "reliability"
    curves = "curves"
    confusion = "confusion"
    strata = "strata"
    low_shot = "low-shot"
    forest = "forest"
    ranking = "ranking"


class Projection(StrEnum):
    pca = "pca"
    umap = "umap"


class ClassWeight(StrEnum):
    none = "none"
    balanced = "balanced"


class Schedule(StrEnum):
    cosine = "cosine"
    constant = "constant"


class Uncertain(StrEnum):
    ignore = "ignore"
    zeros = "zeros"
    ones = "ones"
    soft = "soft"


class Blank(StrEnum):
    ignore = "ignore"
    zeros = "zeros"


class BatchNorm(StrEnum):
    eval = "eval"
    train = "train"


class Products(StrEnum):
    float64 = "float64"
    float32 = "float32"


class Net(StrEnum):
    alex = "alex"
    squeeze = "squeeze"
    vgg = "vgg"


class Evaluation(StrEnum):
    probe = "probe"
    knn = "knn"
    fewshot = "fewshot"


class Metric(StrEnum):
    accuracy = "accuracy"
    mean_per_class = "mean-per-class"
    auroc = "auroc"
    average_precision = "average-precision"
    log_loss = "log-loss"

    @property
    def field(self) -> str:
        """Name in records."""
        return "mean_per_class_accuracy" if self is Metric.mean_per_class else self.name


class Against(StrEnum):
    paper = "paper"
