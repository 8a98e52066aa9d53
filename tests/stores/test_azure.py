"""Banks in a container of Azure's: what holds in an S3 bucket holds there, against Microsoft's emulator.

Azurite is no Python package: `npm install azurite`, and its `azurite-blob` on the PATH.
"""

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from stores.backends import leases, object_requests, private
from stores.backends.location import ObjectPath, place
from stores.bank.encode import encode
from stores.errors import BankError

# These are tests of every object store: here they get this module's `root` and `lock`.
from tests.stores.backends.test_leases import (  # noqa: F401
    hasty,
    test_a_holder_elsewhere_is_believed_until_it_falls_silent,
    test_a_living_holder_keeps_it,
    test_eight_that_want_it,
    test_one_at_a_time,
    test_sharers_that_fell_silent_are_put_out,
    test_two_coordinators_of_a_feature,
)
from tests.stores.backends.test_object_store import (  # noqa: F401
    CHUNK,
    DIM,
    disk,
    make_bank,
    prepared,
    test_a_bank_in_a_bucket_has_the_bytes_of_one_on_disk,
    test_a_copied_bank_is_a_bank_both_ways,
    test_a_damaged_document_is_put_back,
    test_a_flipped_bit_is_found_and_mended,
    test_a_missing_object_is_found_and_mended,
    test_a_store_that_overwrites_is_refused,
    test_eight_makers_of_one_bank,
    test_plain_zarr_opens_it,
    test_records_and_descriptions,
    test_what_is_there_is_not_taken_for_an_empty_place,
)
from tests.stores.banks import at_once, chunk_result

AZURITE = shutil.which("azurite-blob")
pytestmark = pytest.mark.skipif(AZURITE is None, reason="no azurite-blob on the PATH")
#: The emulator's account, the same everywhere, and its published key.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an account with an empty container `bucket`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--blobPort", str(port), "--location", str(tmp_path_factory.mktemp("azurite"))]
    assert AZURITE
    process = subprocess.Popen([AZURITE, *words, "--silent", "--disableTelemetry"], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    try:
        create_container(url, "bucket")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def create_container(url: str, name: str) -> None:
    """Ask as Azure's Shared Key says, until the emulator answers."""
    now = formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:{_VERSION}\n{resource}"
    signature = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers = {
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
        "Content-Length": "0",
        "x-ms-date": now,
        "x-ms-version": _VERSION,
    }
    for _ in range(150):
        request = urllib.request.Request(f"{url}/{name}?restype=container", method="PUT", headers=headers)
        try:
            urllib.request.urlopen(request).read()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("Azurite does not answer")


@pytest.fixture(autouse=True)
def environment(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    values = {"ACCOUNT_NAME": ACCOUNT, "ACCOUNT_KEY": KEY, "ENDPOINT": server}
    for name, value in values.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    monkeypatch.setenv(private.CACHE_VARIABLE, "")
    monkeypatch.setattr(leases, "_POLL_SECONDS", 0.05)
    object_requests.bucket_of.cache_clear()
    yield
    object_requests.bucket_of.cache_clear()


@pytest.fixture
def root(request: pytest.FixtureRequest) -> ObjectPath:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    found = place(f"az://bucket/{name}/bank")
    assert isinstance(found, ObjectPath)
    return found


@pytest.fixture
def lock(root: ObjectPath) -> ObjectPath:
    return root / "lock"


def test_eight_committers_of_one_chunk(root: ObjectPath) -> None:
    committer = prepared(root)
    results = [chunk_result(0, 0, CHUNK, DIM, seed=each) for each in range(8)]
    said, errors = at_once([lambda result=result: committer.commit(result) for result in results])
    assert errors == []
    assert sum(map(bool, said)) == 1
    written = [
        {path: bytes(data) for path, data in encode(r, committer.layout).files.items()} for r in results
    ]
    assert {path: object_requests.read_if_there(root / path) for path in written[0]} in written, (
        "a mixed chunk"
    )


def test_moved_and_removed(root: ObjectPath) -> None:
    assert not object_requests.move(root / "a", root / "b")
    assert object_requests.create(root / "a", b"1")
    assert not object_requests.create(root / "a", b"2")
    assert object_requests.move(root / "a", root / "c/b")
    assert object_requests.names(root) == ["c"]
    assert object_requests.digest(root / "c/b") == (1, hashlib.sha256(b"1").hexdigest())
    object_requests.remove(root / "c/b")
    object_requests.remove(root / "c/b")
    assert object_requests.read_if_there(root / "c/b") is None


def test_a_wrong_key_and_no_container(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BankError, match=r"(?s)ContainerNotFound.*create it"):
        make_bank(place("az://nobody/bank"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"another").decode())
    object_requests.bucket_of.cache_clear()
    with pytest.raises(BankError, match=r"(?s)not allowed.*AZURE_STORAGE_ACCOUNT_KEY"):
        make_bank(root)
