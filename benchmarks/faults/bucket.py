"""Races and bad answers in an object store: a bank in a bucket of an S3 server on loopback (moto).

    python -m benchmarks.faults.bucket [--races 1000] [--stride 1] [--json]

Eight committers with differing bytes race for one chunk, their requests held up at random: one wins, and all
objects are the winner's. Then the protocol is broken on purpose, and each mutant must be caught. Last, every
request of a run is answered wrongly, once and in six ways, with nobody to repeat it: no marker may lie, and
the resumed bank must be the undisturbed one, bit for bit.
"""

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.faults.banks import FREE, FREE_NAMES, chunk_result, fill, make_key, make_manifest
from benchmarks.faults.s3 import Fault, Server, environment, serving
from benchmarks.speed import common
from stores.backends import object_requests
from stores.backends.location import ObjectPath
from stores.bank import documents
from stores.bank.commit import Committer
from stores.bank.encode import encode
from stores.bank.keys import ChunkResult
from stores.bank.layout import ARRAYS, FeatureLayout
from stores.bank.reader import Bank
from stores.bank.writer import open_or_create
from stores.errors import EmbankError

RACERS, ROWS, DIM = 8, 150, 8
KINDS = ("500", "403", "404", "lost", "cut", "short")
#: A mutant that lives so many races is not caught.
MUTANT_RACES = 50


def run(
    *, races: int = 1000, stride: int = 1, seed: int = 0, say: Callable[[str], None] = common.say
) -> dict[str, Any]:
    """Race, with the protocol as it is and broken; then spoil requests.

    Args:
        stride: spoil every so-manieth request only.
        seed: of what is held up.

    Returns:
        `{ok, races, mutants: {name: races until caught, or None}, spoilt: {kind: runs}, stopped, problems}`.
    """
    problems: list[str] = []
    with _server() as server:
        ends = [race(server, seed + turn) for turn in range(races)]
        problems += [f"race {turn}: {end}" for turn, end in enumerate(ends) if end]
        say(f"{races} races of {RACERS}, {len(problems)} problems")
        killed = {name: _until_caught(server, name, seed) for name in MUTANTS}
        say(f"mutants, caught at the race: {killed}")
        spoilt, stopped = _spoil(server, stride, problems)
        say(f"spoilt {sum(spoilt.values())} runs, {stopped} of which ended with an error")
    ok = not problems and None not in killed.values()
    return {"ok": ok, "races": races, "racers": RACERS, "mutants": killed, "spoilt": spoilt,
            "stopped": stopped, "problems": problems, "seed": seed}  # fmt: skip


@contextmanager
def _server() -> Iterator[Server]:
    """The server, and a client that does not ask twice."""
    with (
        serving("bucket") as server,
        patch.dict(os.environ, environment(server.url)),
        patch.object(object_requests, "RETRIES", {"max_retries": 0}),
        patch.object(object_requests, "PAUSES", ()),
    ):
        object_requests.bucket_of.cache_clear()
        yield server
    object_requests.bucket_of.cache_clear()


def race(server: Server, seed: int) -> str:
    """One race; what is wrong with its end, or nothing."""
    layout = _one_chunk()
    for path in [layout.marker(0), *(layout.chunk_file(array, 0) for array in ARRAYS)]:
        object_requests.remove(layout.root / path)  # type: ignore[arg-type]
    results = [chunk_result(0, 0, ROWS, DIM, seed=each) for each in range(RACERS)]
    drawn = np.random.default_rng(seed)

    def hold_up(count: int, method: str, path: str) -> None:
        if drawn.random() < 0.3:
            time.sleep(drawn.uniform(0, 0.05))

    with server.faulty(hold_up):
        said, errors = _at_once(layout, results)
    if errors:
        return repr(errors[0])
    return "" if sum(said) == 1 and _is_of(layout, results[said.index(True)]) else f"{said}, or a mixed chunk"


def _one_chunk() -> FeatureLayout:
    bank = open_or_create("s3://bucket/races", make_manifest(Path("/elsewhere"), ROWS), chunk_rows=ROWS)
    return FeatureLayout(bank.path, make_key(bank.image_digest), DIM, bank.grid)


def _at_once(layout: FeatureLayout, results: Sequence[ChunkResult]) -> tuple[list[bool], list[BaseException]]:
    start, said, errors = threading.Barrier(len(results)), [False] * len(results), []

    def commit(me: int) -> None:
        start.wait()
        try:
            said[me] = Committer(layout).commit(results[me])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=commit, args=(me,)) for me in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said, errors


def _is_of(layout: FeatureLayout, result: ChunkResult) -> bool:
    """Whether marker and objects are one committer's."""
    wanted = {path: bytes(data) for path, data in encode(result, layout).files.items()}
    marker = documents.read(layout.root / layout.marker(0))
    promised = {path: promise["sha256"] for path, promise in marker["files"].items()}
    there = {path: object_requests.read_if_there(layout.root / path) for path in wanted}  # type: ignore[arg-type]
    return there == wanted and promised == {p: hashlib.sha256(d).hexdigest() for p, d in wanted.items()}


def _overwriting(path: ObjectPath, data: bytes | memoryview) -> bool:
    """Mutant: replaces what is there."""
    object_requests.replace(path, bytes(data))
    return True


def _not_withdrawing(self: Committer, relative: str, data: memoryview) -> bool:
    """Mutant: takes whatever lies there for its own."""
    object_requests.create(self.layout.root / relative, data)  # type: ignore[arg-type]
    return True


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "overwrite": (object_requests, "create", _overwriting),
    "no withdrawal": (Committer, "_create", _not_withdrawing),
}


def _until_caught(server: Server, name: str, seed: int) -> int | None:
    where, what, mutant = MUTANTS[name]
    with patch.object(where, what, mutant):
        return next((turn + 1 for turn in range(MUTANT_RACES) if race(server, seed + turn)), None)


def _spoil(server: Server, stride: int, problems: list[str]) -> tuple[dict[str, int], int]:
    """Spoil each request of a run in each way; returns runs by kind, and how many ended with an error."""
    root = ObjectPath("s3", "bucket", "faults")
    open_or_create(root, make_manifest(Path("/elsewhere"), ROWS), chunk_rows=64)
    empty = everything(root)
    _embed(root)  # The first run of a process also asks whether the store keeps conditions.
    begin(root, empty)
    with server.faulty(lambda count, method, path: None):
        _embed(root)
        total = server.count
    wanted, spoilt, stopped = lasting(root), Counter[str](), 0
    for kind in KINDS:
        for at in range(1, total + 1, stride):
            spoilt[kind] += 1
            begin(root, empty)
            try:
                with server.faulty(_once(at, kind)):
                    _embed(root)
            except EmbankError:
                stopped += 1
            problems += [f"{kind} at request {at}: {found}" for found in lies(root)]
            _embed(root)
            if lasting(root) != wanted:
                problems.append(f"{kind} at request {at}: the resumed bank differs")
    return dict(spoilt), stopped


def _once(at: int, kind: str) -> Fault:
    return lambda count, method, path: kind if count == at else None


def _embed(root: ObjectPath) -> None:
    bank = Bank.open(root)
    fill(bank, make_key(bank.image_digest), DIM)


def begin(root: ObjectPath, contents: dict[str, bytes]) -> None:
    """Make these the objects below a prefix, and no others."""
    for key in everything(root).keys() - contents.keys():
        object_requests.remove(root / key)
    for key, data in contents.items():
        object_requests.replace(root / key, data)


def everything(root: ObjectPath) -> dict[str, bytes]:
    """Every object below a prefix, by its relative key."""
    store = object_requests.bucket_of(root.scheme, root.bucket)
    keys = [each["path"].removeprefix(f"{root.key}/") for batch in store.list(root.key) for each in batch]
    return {key: object_requests.read_if_there(root / key) or b"" for key in keys}


def lasting(root: ObjectPath) -> dict[str, bytes]:
    """Every object that must be bit-identical after any history.

    What lies beside a lease need not: a ticket whose removal went wrong is swept up once it is a minute old.
    """
    return {
        key: data
        for key, data in everything(root).items()
        if not key.startswith(FREE)
        and "leases" not in key.split("/")
        and key.rpartition("/")[2] not in FREE_NAMES
    }


def lies(root: ObjectPath) -> list[str]:
    """Markers that promise objects which are not there, or not so."""
    found = []
    for key, data in everything(root).items():
        if "/markers/" in key:
            promised = documents.decode(data, root / key)["files"]
            found += [
                f"{key} promises {path}"
                for path, promise in promised.items()
                if object_requests.digest(root / path) != (promise["size"], promise["sha256"])
            ]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exits with 1 if anything went wrong or a mutant lived."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--races", type=int, default=1000)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(races=options.races, stride=options.stride, seed=options.seed)
    result["machine"] = common.machine()
    rows = [
        [f"mutant: {name}", f"caught at race {at}" if at else "lives"]
        for name, at in result["mutants"].items()
    ]
    rows += [[f"answers spoilt: {kind}", f"{count} runs"] for kind, count in result["spoilt"].items()]
    verdict = "\n".join(result["problems"]) or "no mixed chunk, no lying marker, every resume identical"
    table = common.markdown_table(["what", "result"], rows)
    common.finish(result, f"{table}\n{result['races']} races of {RACERS}: {verdict}", options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
