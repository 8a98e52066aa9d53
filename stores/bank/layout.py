"""Paths in a bank, and the zarr metadata that describe its arrays, byte for byte.

The metadata documents are written here, not by the zarr library, so that their bytes do not depend on its
version; the tests hold them against zarr's own. Zarr v3: codecs `bytes` (little-endian) and `crc32c`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stores.backends.location import Place
from stores.bank.keys import CONTENT_BYTES, FEATURE_NAME, FEATURE_VERSIONS, FeatureKey
from stores.json_types import JsonObject

RUN_DOCUMENT = "embank.json"
MANIFEST = "manifest.parquet"
ZARR = "zarr.json"
SIDE = ".embank"
COLUMNS = ("label", "split", "group")
VOCABULARIES = "columns.json"
#: The arrays of a feature by the version of its layout, in the order in which a chunk's files are written.
ARRAYS_OF = {1: ("embedding", "norm", "status"), 2: ("embedding", "norm", "status", "content")}
#: All arrays that a feature of any version may have.
ARRAYS = ARRAYS_OF[FEATURE_VERSIONS[-1]]
#: Arrays of two dimensions: their chunk files have a column index.
_MATRICES = ("embedding", "content")
#: Bytes of the crc32c that ends every chunk file.
CHECKSUM = 4
_SMALLEST, _LARGEST, _CHUNKS = 64, 16384, 64


def default_chunk_rows(rows: int) -> int:
    """Choose the rows a chunk for a bank of `rows`: about 64 chunks, a power of two from 64 to 16,384."""
    wanted = max(1, -(-rows // _CHUNKS))
    return min(max(1 << (wanted - 1).bit_length(), _SMALLEST), _LARGEST)


@dataclass(frozen=True)
class Grid:
    """Division of rows into chunks.

    Attributes:
        rows: of the bank.
        chunk_rows: rows a chunk; the last one is padded in its file.
    """

    rows: int
    chunk_rows: int

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_rows)

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first row of a chunk and the row after its last. Raises IndexError outside the grid."""
        if not 0 <= index < self.chunks:
            raise IndexError(f"chunk {index} of {self.chunks}")
        return index * self.chunk_rows, min((index + 1) * self.chunk_rows, self.rows)


@dataclass(frozen=True)
class FeatureLayout:
    """Paths and metadata of one feature. Relative paths are relative to the bank, with `/`.

    Attributes:
        version: of the layout, one of `FEATURE_VERSIONS`.
        image_set: SHA-256 of the table of contents that the feature was made from, if it is not of the images
            that the bank saw first (`stores.bank.contents`).
    """

    root: Place
    key: FeatureKey
    dim: int
    grid: Grid
    version: int = FEATURE_VERSIONS[-1]
    image_set: str = ""

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays, in the order in which a chunk's files are written."""
        return ARRAYS_OF[self.version]

    @property
    def has_contents(self) -> bool:
        """True if the feature keeps what each row was made from."""
        return "content" in self.arrays

    @property
    def side(self) -> Place:
        return self.root / SIDE / self.name

    def chunk_file(self, array: str, index: int) -> str:
        """Return the relative path of one array's chunk file."""
        return chunk_file(self.name, array, index)

    def marker(self, index: int) -> str:
        """Return the relative path of a chunk's marker."""
        return marker_file(self.name, index)

    def metadata(self) -> dict[str, JsonObject]:
        """Make the zarr metadata by node of the feature: `` (the group, not consolidated) and the arrays."""
        rows, chunk = self.grid.rows, self.grid.chunk_rows
        group: JsonObject = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"model": self.key.model, "feature_key": self.key.digest},
        }
        flags = {"flag_values": [0, 1, 2], "flag_meanings": "pending ok failed"}
        note = {"long_name": "L2 norm of the embedding before rounding"}
        content = {"long_name": "SHA-256 of the image file; zeros where it was not read"}
        nodes: dict[str, JsonObject] = {
            "": group,
            "embedding": _array(
                [rows, self.dim], [chunk, self.dim], self.key.dtype, ["image", "feature"], {}
            ),
            "norm": _array([rows], [chunk], "float32", ["image"], note),
            "status": _array([rows], [chunk], "uint8", ["image"], flags),
            "content": _array(
                [rows, CONTENT_BYTES], [chunk, CONTENT_BYTES], "uint8", ["image", "byte"], content
            ),
        }
        return {name: node for name, node in nodes.items() if name in ("", *self.arrays)}

    def metadata_files(self) -> dict[str, bytes]:
        """Encode every zarr.json of the feature, by relative path."""
        nodes = self.metadata()
        arrays = {name: nodes[name] for name in self.arrays}
        documents = {
            f"{self.name}/{ZARR}": encode_metadata(
                {**nodes[""], "consolidated_metadata": _consolidated(arrays)}
            )
        }
        documents.update(
            {f"{self.name}/{array}/{ZARR}": encode_metadata(node) for array, node in arrays.items()}
        )
        return documents

    @property
    def sealed_count(self) -> int:
        """Number of files that a seal covers."""
        return (len(self.arrays) + 1) * self.grid.chunks + len(self.arrays) + 2

    def sealed_files(self) -> set[str]:
        """List the relative paths of all files that a seal covers."""
        chunks = range(self.grid.chunks)
        paths = {self.chunk_file(array, index) for array in self.arrays for index in chunks}
        paths.update(map(self.marker, chunks))
        paths.update(f"{self.name}/{node}/{ZARR}" for node in self.arrays)
        return paths | {f"{self.name}/{ZARR}", f"{SIDE}/{self.name}/key.json"}

    def key_document(self) -> JsonObject:
        """Make the body of key.json: the key, and what else the metadata follow from."""
        body: JsonObject = {
            "schema": self.version,
            "key": self.key.to_dict(),
            "digest": self.key.digest,
            "dim": self.dim,
            "rows": self.grid.rows,
            "chunk_rows": self.grid.chunk_rows,
        }
        return {**body, "image_set": self.image_set} if self.image_set else body

    def payload(self, array: str) -> int:
        """Return the bytes of one chunk of an array, without the checksum."""
        row = {
            "embedding": self.dim * itemsize(self.key.dtype),
            "norm": 4,
            "status": 1,
            "content": CONTENT_BYTES,
        }
        return self.grid.chunk_rows * row[array]


def images_key(image_digest: str, image_set: str = "") -> str:
    """Return the images member of a feature's key: the manifest's digest, with the image set's if any."""
    if not image_set:
        return image_digest
    return hashlib.sha256(f"embank image set 1\n{image_digest}\n{image_set}\n".encode("ascii")).hexdigest()


def itemsize(dtype: str) -> int:
    return {"float16": 2, "float32": 4, "uint8": 1}[dtype]


def chunk_file(feature: str, array: str, index: int) -> str:
    """Return the relative path of a chunk file, by zarr's default chunk key encoding."""
    return f"{feature}/{array}/c/{index}" + ("/0" if array in _MATRICES else "")


def marker_file(feature: str, index: int) -> str:
    return f"{SIDE}/{feature}/markers/{index:06d}.json"


def feature_from_document(root: Place, body: Mapping[str, Any]) -> FeatureLayout:
    """Return the layout that a key document describes."""
    grid = Grid(body["rows"], body["chunk_rows"])
    key = FeatureKey.from_dict(body["key"])
    return FeatureLayout(root, key, body["dim"], grid, body["schema"], body.get("image_set", ""))


def is_feature_name(name: str) -> bool:
    return FEATURE_NAME.fullmatch(name) is not None


def root_metadata(features: list[FeatureLayout]) -> bytes:
    """Make the bank's zarr.json: a group that lists every sealed feature's group and arrays."""
    nodes: dict[str, JsonObject] = {}
    for feature in sorted(features, key=lambda layout: layout.name):
        for node, body in feature.metadata().items():
            nodes[f"{feature.name}/{node}".rstrip("/")] = (
                body if node else {**body, "consolidated_metadata": _consolidated({})}
            )
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    return encode_metadata({**group, "consolidated_metadata": _consolidated(nodes)})


def encode_metadata(node: Mapping[str, Any]) -> bytes:
    return (json.dumps(node, sort_keys=True, indent=1) + "\n").encode("ascii")


def _consolidated(nodes: Mapping[str, JsonObject]) -> JsonObject:
    return {"kind": "inline", "must_understand": False, "metadata": {**nodes}}


def _array(
    shape: list[int], chunk: list[int], dtype: str, dims: list[str], attributes: Mapping[str, Any]
) -> JsonObject:
    small = itemsize(dtype) == 1
    to_bytes: JsonObject = (
        {"name": "bytes"} if small else {"name": "bytes", "configuration": {"endian": "little"}}
    )
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*shape],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*chunk]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if small else "NaN",
        "codecs": [to_bytes, {"name": "crc32c"}],
        "attributes": dict(attributes),
        "dimension_names": [*dims],
        "storage_transformers": [],
    }
