"""The columns of a manifest as Arrow arrays of text: their names, order, roles and vocabularies."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.errors import ManifestError, PathRefused
from stores.manifest.text import clean
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns that every manifest has, in this order; absent ones are empty. Other columns follow as they came.
COLUMNS = ("image_id", "uri", "label", "split", "group", "study", "view")
#: Columns whose cells may be empty; in manifests of earlier versions an empty cell may read `nan`.
OPTIONAL_COLUMNS = COLUMNS[2:]
_NAN = ("nan", "NaN", "NAN", "Nan")


def text_table(columns: Mapping[str, Sequence[str]]) -> "pa.Table":
    """Make an Arrow table of `large_string` columns.

    Raises:
        PathRefused: a cell is not valid Unicode, as the name of a file may be.
    """
    import pyarrow as pa

    try:
        arrays = {
            name: pa.chunked_array([pa.array(cells, pa.large_string())]) for name, cells in columns.items()
        }
    except UnicodeEncodeError as error:
        raise PathRefused(
            f"File name {shown(str(error.object))} is not UTF-8", "Names are valid Unicode", "rename the file"
        ) from error
    return _table_of(arrays)


def _table_of(columns: "Mapping[str, pa.ChunkedArray]") -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def encode_column(column: "pa.ChunkedArray") -> "tuple[np.ndarray[Any, np.dtype[np.int32]], list[str]]":
    """Turn a text column into codes and a vocabulary.

    Returns:
        (int32 [rows]: index into the vocabulary, -1 where the cell is empty; vocabulary sorted by bytes).
    """
    import pyarrow as pa

    encoded = pa.concat_arrays(column.chunks).dictionary_encode()
    words: list[str] = encoded.dictionary.to_pylist()
    vocabulary = sorted((word for word in words if word), key=str.encode)
    code_of = {word: code for code, word in enumerate(vocabulary)}
    remap = np.array([code_of.get(word, -1) for word in words], dtype=np.int32)
    return remap[encoded.indices.to_numpy()], vocabulary


def plain_uris(uris: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Drop `.` and empty steps from uris, so that two spellings of one path compare equal."""
    import pyarrow.compute as pc

    without_dots = pc.replace_substring_regex(uris, pattern=r"(^|/)(\./+)+", replacement=r"\1")
    return pc.replace_substring_regex(without_dots, pattern="/{2,}", replacement="/")


def assign_roles(table: "pa.Table", roles: Mapping[str, str], source: str) -> "pa.Table":
    """Rename columns to the roles they play in the manifest; one column may play several.

    Args:
        table: text columns under the names of the user's file.
        roles: role (`uri`, `label`, ...) -> name of the column.
        source: the file, for messages.

    Raises:
        ManifestError: a column is missing, or another column already bears the name of the role.
    """
    # The user may have copied the name from a header that held invisible characters.
    roles = {role: name if name in table.column_names else clean(name) for role, name in roles.items()}
    for role, name in roles.items():
        if name not in table.column_names:
            raise missing_column(name, table, source, role)
        if role != name and role in table.column_names:
            raise ManifestError(
                f"{source}: column {shown(name)} is to be `{role}`, and there is a column `{role}` already",
                "A manifest has each column once",
                f"rename the column `{role}` in the file, or leave the option out",
            )
    columns = {role: table[name] for role, name in roles.items()}
    used = set(roles.values())
    columns |= {name: table[name] for name in table.column_names if name not in used and name not in roles}
    return _table_of(columns)


def missing_column(name: str, table: "pa.Table", source: str, role: str | None = None) -> ManifestError:
    """Return the error for an absent column.

    Args:
        name: the absent column.
        table: the columns that are there.
        source: the file, for messages.
        role: what the column was to become; None for the `uri` of a file that is read as a manifest.
    """
    present = ", ".join(map(shown, table.column_names[:20]))
    option = {"image_id": "--id"}.get(role or "", f"--{role}")
    return ManifestError(
        f"{source} has no column {shown(name)}; it has {present}",
        "A manifest has a column `uri`, the path of each image below the root"
        if role in (None, "uri")
        else f"The column that becomes `{role}` is one of the table",
        f"name the column that plays this part with {option} COLUMN"
        if role
        else "make a manifest of the table with `embank manifest table --uri COLUMN`",
    )


def arrange(table: "pa.Table", source: str) -> "pa.Table":
    """Order the columns as a manifest has them: `COLUMNS`, absent ones empty, then digests, then the others.

    `image_id` defaults to the uri. A column of digests without any digest is dropped.

    Raises:
        ManifestError: no rows, or no column `uri`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table.num_rows:
        raise ManifestError(f"{source} has no rows", "A manifest lists images", "add rows")
    if "uri" not in table.column_names:
        raise missing_column("uri", table, source)
    nan = pa.array(_NAN, pa.large_string())
    empty = pa.chunked_array([pa.repeat(pa.scalar("", pa.large_string()), table.num_rows)])
    remaining = {name: table[name] for name in table.column_names}
    columns = {"image_id": remaining.pop("image_id", remaining["uri"]), "uri": remaining.pop("uri")}
    for name in OPTIONAL_COLUMNS:
        column = remaining.pop(name, empty)
        columns[name] = pc.if_else(pc.is_in(column, value_set=nan), "", column)
    digests = pc.utf8_lower(remaining.pop("sha256", empty))
    if pc.any(pc.not_equal(digests, "")).as_py():
        columns["sha256"] = digests
    return _table_of(columns | remaining)
