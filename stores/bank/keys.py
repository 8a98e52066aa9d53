"""The basic terms of a bank: the feature key, the status values, the result of one chunk."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from stores.bank import documents
from stores.errors import BankError
from stores.json_types import JsonObject

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Version of the documents of banks, keys and records. A migration writes a new bank.
SCHEMA_VERSION = 1
#: Versions of a feature's layout: the second keeps what each row was made from, and rows not embedded yet.
FEATURE_VERSIONS = (1, 2)
#: Bytes of a SHA-256, by which the content of an image file is known.
CONTENT_BYTES = 32
STATUS_PENDING, STATUS_OK, STATUS_FAILED = 0, 1, 2
DTYPES = ("float16", "float32")
#: A feature's name: the slug with plain characters, and the first 12 hex digits of the key's digest.
FEATURE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.[0-9a-f]{12}")


@dataclass(frozen=True)
class FeatureKey:
    """Everything that an embedding's bits depend on. Same digest: reuse; any difference: another array.

    Attributes:
        model: slug, for people; not part of the digest.
        weights: SHA-256 of the weights.
        architecture: its name, with whatever options shape it.
        recipe: digest of the preprocessing.
        precision: of the arithmetic, e.g. `fp32`, `bf16`.
        decoder: name of the decoder; two with one name give the same pixels.
        layer: which activation is the feature.
        images: the manifest's image digest.
        dtype: of the stored array, `float16` or `float32`.
        schema: version of the layout on disk.
    """

    model: str
    weights: str
    architecture: str
    recipe: str
    precision: str
    decoder: str
    layer: str
    images: str
    dtype: str = "float16"
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BankError(
                f"dtype {self.dtype!r}", f"Embeddings are stored as one of {', '.join(DTYPES)}", "choose one"
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the canonical JSON of all fields but `model`."""
        body = self.to_dict()
        del body["model"]
        return hashlib.sha256(documents.canonical(body)).hexdigest()

    @cached_property
    def name(self) -> str:
        """Name of the feature's group in the bank, e.g. `torchvision-resnet18.0123456789ab`."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.model).lstrip(".-") or "model"
        return f"{slug[:100]}.{self.digest[:12]}"

    def to_dict(self) -> JsonObject:
        """Return all fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "FeatureKey":
        """Read the key that `to_dict` wrote. Raises BankError if fields are missing or unknown."""
        if set(body) != {field.name for field in fields(cls)}:
            raise BankError(
                f"a feature key with the fields {', '.join(sorted(body))}",
                "Its fields are those of schema version " + str(SCHEMA_VERSION),
                "open the bank with the version of embank that wrote it",
            )
        return cls(**body)


class FailedRow(TypedDict):
    """A `Failure` as a marker has it."""

    row: int
    code: str
    detail: str
    pending: NotRequired[bool]


@dataclass(frozen=True)
class Failure:
    """Why a row has no embedding.

    Attributes:
        row: manifest row.
        code: short stable word, e.g. `truncated`.
        detail: one line.
        pending: the machine or a setting stood in the way, not the image: the row is not embedded yet.
    """

    row: int
    code: str
    detail: str
    pending: bool = False

    @property
    def as_dict(self) -> FailedRow:
        """The fields as JSON values; `pending` only where it is true."""
        body = FailedRow(row=self.row, code=self.code, detail=self.detail)
        if self.pending:
            body["pending"] = True
        return body


@dataclass(frozen=True)
class ChunkResult:
    """The embeddings of one chunk, in row order.

    Attributes:
        index: of the chunk.
        embedding: float32 [n, d] for the n rows of the chunk; values of failed rows are ignored.
        ok: bool [n]; False where the row failed.
        failures: exactly one for each row that is not ok.
        content: uint8 [n, 32], the SHA-256 of each image file's bytes; zeros where they were not read. None
            is zeros everywhere.
    """

    index: int
    embedding: "npt.NDArray[np.float32]"
    ok: "npt.NDArray[np.bool_]"
    failures: tuple[Failure, ...] = ()
    content: "npt.NDArray[np.uint8] | None" = None


def check_schema(version: object, path: object, versions: tuple[int, ...] = (SCHEMA_VERSION,)) -> None:
    """Refuse any schema version but `versions`, newer or older. Raises BankError."""
    if version in versions and type(version) is int:
        return
    newer = isinstance(version, int) and version > versions[-1]
    raise BankError(
        f"{path} has schema version {version!r}",
        f"This embank reads version {' and '.join(map(str, versions))} only",
        "install a newer embank" if newer else "embed again into a new bank",
    )
