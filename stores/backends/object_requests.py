"""Every request to an object store, by obstore.

Absence is None or False; every other answer than the object is an error: a `BankError` where asking again
would not help (credentials, no such bucket), else, after retries, a `MachineFault`; so is no answer in time
(`stores.backends.deadlines`).
"""

import functools
import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from stores.backends import deadlines
from stores.backends.base import too_large
from stores.backends.location import ObjectPath
from stores.errors import BankError, EmbankError, MachineFault

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

T = TypeVar("T")

#: Number of concurrent requests: each waits for the network most of its time.
THREADS = 16
#: Answers of 5xx, and what never arrived, are asked for again by the library, for half of the time that there
#: is, so that its last pause ends in time ...
RETRIES: dict[str, Any] = {"max_retries": 8}
#: ... and, after so many seconds, what it does not repeat itself: our requests may all be made twice.
PAUSES = (0.5, 2.0)
#: `stores.backends.deadlines` ends a request long before the library's `timeout`. A connection is not used
#: again after so long a pause that something on the way may have forgotten it.
_CLIENT = {"timeout": "15 min", "connect_timeout": "10 s", "pool_idle_timeout": "20 s"}
_CLIENT_SETTINGS = (
    *_CLIENT, "allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate",
    "proxy_excludes", "user_agent",
)  # fmt: skip
#: Of threads that import the library at once, one may be given a half of it: its modules import each other.
_importing = threading.Lock()
_PREFIXES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_CREDENTIALS = re.compile(r"credential|169\.254\.|metadata\.google|ExpiredToken", re.IGNORECASE)


@dataclass(frozen=True)
class State:
    """State of an object; `modified` is seconds since 1970 by the store's own clock."""

    st_size: int
    modified: float
    version: "UpdateVersion"


@functools.lru_cache
def bucket_of(scheme: str, bucket: str) -> "ObjectStore":
    """Make a client for a bucket; credentials and endpoint by `AWS_*`, `GOOGLE_*` or `AZURE_*` variables."""
    try:
        with _importing:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
    except ImportError as error:
        raise BankError(
            f"{scheme}://{bucket} is in an object store", "That takes the package obstore",
            "install embank[s3]",
        ) from error  # fmt: skip
    # Options given here would hide those of the environment, so they are handed on.
    stated = {name: os.environ.get(f"{_PREFIXES[scheme]}_{name.upper()}") for name in _CLIENT_SETTINGS}
    client: Any = {**_CLIENT, **{name: value for name, value in stated.items() if value}}
    url = f"{scheme}://{bucket}"
    limit = timedelta(seconds=deadlines.timeout())
    backoff = {"init_backoff": min(timedelta(seconds=0.1), limit / 4), "max_backoff": limit / 4, "base": 2}
    retries: Any = {"retry_timeout": limit / 2, "backoff": backoff, **RETRIES}
    try:
        return from_url(url, client_options=client, retry_config=retries)
    except BaseError as error:
        raise BankError(
            f"{url} cannot be opened: {_first_line(error)}",
            "The environment says where a bucket is and who may use it",
            _credentials(scheme),
        ) from error


def _credentials(scheme: str) -> str:
    names = {
        "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
    }[scheme]
    return f"check the credentials, their rights here, and this machine's clock ({names})"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def translate(error: BaseException, path: ObjectPath) -> EmbankError:
    """Return the user's view of what a store answered about `path`, or that it did not."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    number = int(status[1]) if status else 0
    reason = " ".join(filter(None, [status and status[1], code and code[1]])) or _first_line(error)
    if number in (401, 403) or _NO_CREDENTIALS.search(text):
        return BankError(f"{path}: not allowed ({reason})", "The store must let this user in",
                         _credentials(path.scheme))  # fmt: skip
    if number == 404:
        return BankError(f"{path}: {reason}", "The bucket must exist", "check its name, or create it")
    if 300 <= number < 500 and number not in (408, 429):
        return BankError(
            f"{path}: the store refuses ({reason})",
            "It must be the bucket's own endpoint and region, with conditional writes",
            "check endpoint and region (AWS_ENDPOINT_URL, AWS_REGION)",
        )
    return MachineFault(
        f"{path}: the store does not answer as it should ({reason})",
        "It must take and give back what the bank stores",
        "run the same command again once it is well; committed chunks are kept",
    )


class _Unmet(Exception):
    """The condition of a request does not hold."""


def _silent(path: ObjectPath, seconds: float) -> MachineFault:
    return MachineFault(
        f"{path}: the store does not answer (nothing for {seconds:.3g} s)",
        f"A request has {deadlines.timeout():g} s for its answer, and longer for what is large",
        "check the network and the endpoint (AWS_ENDPOINT_URL), then run the same command again (committed "
        f"chunks are kept); if the store needs longer, set {deadlines.TIMEOUT_VARIABLE} to more seconds",
    )


def _ask(
    path: ObjectPath, request: Callable[["ObjectStore", str, deadlines.Deadline], T], sent: int = 0
) -> T:
    """Make a request that carries so many bytes. Raises EmbankError, `_Unmet`, or FileNotFoundError."""
    deadline = deadlines.Deadline(deadlines.timeout(), sent)
    store = bucket_of(path.scheme, path.bucket)
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    fault: EmbankError | None = None
    for pause in (*PAUSES, None):
        try:
            return deadlines.run(lambda: request(store, path.key, deadline), deadline)
        except deadlines.Silent as error:
            raise fault or _silent(path, deadline.seconds) from error
        except (AlreadyExistsError, PreconditionError) as error:
            raise _Unmet from error
        except BaseError as error:
            fault = translate(error, path)
            if pause is None or not isinstance(fault, MachineFault) or _STATUS.search(str(error)):
                raise fault from error
            deadlines.sleep(pause)
    raise AssertionError


def read_state(path: ObjectPath, most: int | None = None) -> tuple[bytes, State] | None:
    """Read an object's bytes and state, of the same moment; None where there is none.

    Args:
        most: bytes that it may have, or BankError is raised before they are fetched.
    """

    def get(store: "ObjectStore", key: str, deadline: deadlines.Deadline) -> tuple[bytes, State]:
        answer = store.get(key)
        if most is not None and answer.meta["size"] > most:
            raise too_large(path, answer.meta["size"], most)
        if answer.meta["size"] <= deadlines.BLOCK:
            return bytes(answer.bytes()), _state(answer.meta)
        return b"".join(deadline.watch(answer.stream(min_chunk_size=deadlines.BLOCK))), _state(answer.meta)

    try:
        return _ask(path, get)
    except FileNotFoundError:
        return None


def _state(meta: Any) -> State:
    version: Any = {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}
    return State(meta["size"], meta["last_modified"].timestamp(), version)


def read_if_there(path: ObjectPath, most: int | None = None) -> bytes | None:
    """Read an object; None where there is none. Raises BankError for more than `most`."""
    answer = read_state(path, most)
    return None if answer is None else answer[0]


def read_range(path: ObjectPath, start: int, length: int) -> bytes | None:
    """Read up to `length` bytes from `start`, which lies inside the object; None where there is none."""
    try:
        return _ask(path, lambda store, key, _: bytes(store.get_range(key, start=start, length=length)))
    except FileNotFoundError:
        return None


def stat_if_there(path: ObjectPath) -> State | None:
    """Return an object's state, or None where there is no such object."""
    try:
        return _ask(path, lambda store, key, _: _state(store.head(key)))
    except FileNotFoundError:
        return None


def digest(path: ObjectPath) -> tuple[int, str] | None:
    """Hash an object as it arrives: size in bytes and SHA-256; None where there is no such object."""

    def get(store: "ObjectStore", key: str, deadline: deadlines.Deadline) -> tuple[int, str]:
        state, size = hashlib.sha256(), 0
        for block in deadline.watch(store.get(key).stream(min_chunk_size=deadlines.BLOCK)):
            state.update(block)
            size += len(block)
        return size, state.hexdigest()

    try:
        return _ask(path, get)
    except FileNotFoundError:
        return None


def states(folder: ObjectPath) -> dict[str, State]:
    """List the objects right below a prefix, by name."""
    listing = _ask(folder, lambda store, key, _: store.list_with_delimiter(key))
    return {meta["path"].rpartition("/")[2]: _state(meta) for meta in listing["objects"]}


def names(folder: ObjectPath) -> list[str]:
    """List the sorted names right below a prefix, of objects and of further prefixes."""
    listing = _ask(folder, lambda store, key, _: store.list_with_delimiter(key))
    keys = [*(meta["path"] for meta in listing["objects"]), *listing["common_prefixes"]]
    return sorted(key.rstrip("/").rpartition("/")[2] for key in keys)


def tree(folder: ObjectPath) -> dict[ObjectPath, State]:
    """List every object below a prefix."""

    def objects(store: "ObjectStore", key: str, deadline: deadlines.Deadline) -> list[Any]:
        return [meta for batch in deadline.watch(store.list(key)) for meta in batch]

    metas = _ask(folder, objects)
    return {ObjectPath(folder.scheme, folder.bucket, meta["path"]): _state(meta) for meta in metas}


def create(path: ObjectPath, data: bytes | memoryview) -> bool:
    """Create an object, whole and exclusively. False if something is there already."""
    # Two that race may both be turned away (409): then nothing is there, and it is tried again.
    for pause in (0.1, 0.5, 2.0, None):
        if _put(path, data, "create") is not None:
            return True
        if stat_if_there(path) is not None:
            return False
        if pause is not None:
            deadlines.sleep(pause)
    raise MachineFault(
        f"{path}: can be neither created nor read", "A store holds an object or does not",
        "run the same command again",
    )  # fmt: skip


def replace(path: ObjectPath, data: bytes) -> None:
    """Write an object at `path`, whatever is there."""
    if _put(path, data, "overwrite") is None:
        raise MachineFault(
            f"{path}: cannot be written", "A store takes objects", "run the same command again"
        )


def swap(path: ObjectPath, data: bytes, version: "UpdateVersion") -> bool:
    """Replace an object if it still is of this version. Contents must differ between versions."""
    return _put(path, data, version) is not None


def _put(path: ObjectPath, data: bytes | memoryview, mode: Any) -> Any:
    try:
        return _ask(
            path, lambda store, key, _: store.put(key, data, mode=mode, use_multipart=False), len(data)
        )
    except _Unmet:
        return None
    except FileNotFoundError as error:
        if isinstance(mode, dict):
            return None
        raise translate(error, path) from error


def remove(path: ObjectPath) -> None:
    """Remove an object, if it exists."""
    try:
        _ask(path, lambda store, key, _: store.delete(key))
    except FileNotFoundError:
        return


def move(source: ObjectPath, target: ObjectPath) -> bool:
    """Copy an object, then delete it; False if there was none."""
    try:
        _ask(source, lambda store, key, _: store.copy(key, target.key))
    except FileNotFoundError:
        return False
    remove(source)
    return True
