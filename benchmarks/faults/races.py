"""Let two committers with different bytes race for a chunk, in every order of their disk accesses.

    python -m benchmarks.faults.races [--runs 1000] [--json]

Random kills do not find races, so the order is forced: the first committer takes some steps, then the second
runs to its end, or both alternate in an order drawn beforehand. After every step, no marker may refer to
bytes that are not on the disk, and in the end all files must belong to one committer. Then the protocol is
broken on purpose in four ways, and each mutant must be detected.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.banks import (
    Os,
    chunk_result,
    false_markers,
    make_key,
    make_manifest,
    patched,
    quick_folder,
)
from benchmarks.speed import common
from stores.backends import files
from stores.bank import documents
from stores.bank.commit import Committer, marker_document
from stores.bank.encode import EncodedChunk, encode
from stores.bank.keys import ChunkResult, Failure
from stores.bank.layout import FeatureLayout
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import MachineFault

ROWS, DIM = 20, 4
#: Races after which a mutant counts as not detected.
MUTANT_RACES = 400
#: (steps of the first, steps of the second) -> index of the committer whose turn it is.
Order = Callable[[int, int], int]


class Caught(AssertionError):
    """An observed failure of the protocol."""


def run(
    *, runs: int = 1000, seed: int = 0, mutants: bool = True, say: Callable[[str], None] = common.say
) -> dict[str, Any]:
    """Run races.

    Args:
        runs: number of races, between the kinds of `variants` in turn.
        seed: of the orders.
        mutants: whether to test broken protocols as well.

    Returns:
        `{ok, races, won_by, mutants: {name: races until detected, or None}, problems}`.
    """
    problems: list[str] = []
    wins: Counter[str] = Counter()
    with quick_folder() as folder:
        layout = one_chunk(folder)
        for turn, (pair, order) in enumerate(_races(layout, seed)):
            if turn == runs:
                break
            try:
                completed = race(layout, pair, order)
                wins["first" if completed[0] else "second"] += 1
            except Caught as caught:
                problems.append(f"race {turn}: {caught}")
        say(f"{runs} races, {dict(wins)}, {len(problems)} problems")
        detected = {name: _until_caught(layout, name, seed) for name in MUTANTS} if mutants else {}
    say(f"mutants, caught at the race: {detected}")
    return {
        "ok": not problems and None not in detected.values(),
        "races": runs,
        "won_by": dict(wins),
        "mutants": detected,
        "problems": problems,
        "seed": seed,
    }


def one_chunk(folder: Path) -> FeatureLayout:
    """Create a feature of one chunk, ready for commits."""
    bank = open_or_create(folder / "bank", make_manifest(folder, ROWS))
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        return writer.layout


def variants() -> dict[str, ChunkResult]:
    """Return chunk results that differ from `nothing` in the file named (and therefore in the marker)."""
    first = chunk_result(0, 0, ROWS, DIM)
    other = first.embedding.copy()
    other[3] += 1
    # A change below float16's resolution but above float32's: equal stored embeddings, different norms.
    exact = first.embedding.copy()
    exact[3] = exact[3].astype(np.float16).astype(np.float32)
    nudged = exact.copy()
    nudged[3] *= np.float32(1 + 1e-5)
    failure = Failure(5, "corrupt", "another reason")
    return {
        "nothing": replace(first, embedding=exact),
        "embedding": replace(first, embedding=other),
        "norm": replace(first, embedding=nudged),
        "marker": replace(first, embedding=exact, failures=(failure,)),
    }


def _races(layout: FeatureLayout, seed: int) -> Iterator[tuple[list[ChunkResult], Order]]:
    """Yield every handover of every kind in both directions, then random orders without end."""
    results, total = variants(), steps_alone(layout)
    pairs = [[results["nothing"], results[kind]] for kind in ("embedding", "norm", "marker", "nothing")]
    for at in range(total + 1):
        for pair in pairs:
            yield pair, handover(at)
            yield pair[::-1], handover(at)
    draw = np.random.default_rng(seed)
    while True:
        for pair in pairs:
            yield pair, shuffled(int(draw.integers(1 << 62)))


def root_of(layout: FeatureLayout) -> Path:
    """Return the bank's folder."""
    root = files.local_path(layout.root)
    assert root is not None
    return root


def steps_alone(layout: FeatureLayout) -> int:
    """Return the number of disk accesses of an undisturbed commit."""
    clear(layout)
    with patched(Os(lambda count, name, args: None)) as fake:
        Committer(layout).commit(variants()["nothing"])
    return int(fake.count)


def handover(at: int) -> Order:
    """Return the order: `at` steps of the first, then the second to its end, then the first again."""
    return lambda first, second: 0 if first < at else 1


def shuffled(seed: int) -> Order:
    """Return an order drawn step by step."""
    drawn = np.random.default_rng(seed).integers(0, 2, 10_000)
    return lambda first, second: int(drawn[first + second])


def clear(layout: FeatureLayout) -> None:
    """Remove the chunk."""
    for pattern in ("*/*/c/**/*", ".embank/*/markers/*", ".embank/tmp/*"):
        for path in root_of(layout).glob(pattern):
            if path.is_file():
                path.unlink()


class Turns:
    """Schedule of two threads' disk accesses, one at a time, in a given order."""

    def __init__(self, order: Order, check: Callable[[], None]) -> None:
        self._order, self._check = order, check
        self._condition, self._done = threading.Condition(), [False, False]
        self._steps = [0, 0]
        self._who: dict[int, int] = {}

    def enter(self, me: int) -> None:
        """Register the calling thread."""
        self._who[threading.get_ident()] = me

    def leave(self, me: int) -> None:
        """End the turns of a thread."""
        with self._condition:
            self._done[me] = True
            self._condition.notify_all()

    def before(self, count: int, name: str, args: tuple[Any, ...]) -> None:
        """Wait for the calling thread's turn, and check the markers; a `before` of `Os`."""
        me = self._who.get(threading.get_ident())
        if me is None:
            return
        with self._condition:
            while not self._done[1 - me] and self._order(self._steps[0], self._steps[1]) != me:
                if not self._condition.wait(timeout=60):
                    raise Caught("the order cannot be kept: the two wait for each other")
            self._check()
            self._steps[me] += 1
            self._condition.notify_all()


def race(layout: FeatureLayout, results: Sequence[ChunkResult], order: Order) -> list[bool]:
    """Let two committers race for one chunk.

    Returns:
        The result of `commit` for each.

    Raises:
        Caught: a marker was false at some moment, both or none won, or the chunk is mixed.
    """
    clear(layout)
    errors: list[BaseException] = []
    completed = [False, False]

    def check() -> None:
        if promises := false_markers(root_of(layout), layout.name):
            raise Caught(f"a marker refers to bytes that are not on the disk: {promises}")

    turns = Turns(order, check)

    def commit(me: int) -> None:
        turns.enter(me)
        try:
            completed[me] = Committer(layout).commit(results[me])
        except BaseException as error:
            errors.append(error)
        finally:
            turns.leave(me)

    with patched(Os(turns.before)):
        threads = [threading.Thread(target=commit, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for error in errors:
        if not isinstance(error, MachineFault):
            raise error
    check()
    _judge(layout, results, completed)
    if errors:
        raise Caught(f"a race is no fault of the machine: {errors[0]}")
    return completed


def _judge(layout: FeatureLayout, results: Sequence[ChunkResult], completed: list[bool]) -> None:
    """Check that exactly one committer won, and that all files are the winner's."""
    if sum(completed) != 1:
        raise Caught(f"{sum(completed)} committers completed the chunk")
    winner = encode(results[completed.index(True)], layout)
    if documents.read(layout.root / layout.marker(0)) != marker_document(layout, winner):
        raise Caught("the marker is not the winner's")
    for path, data in winner.files.items():
        if (root_of(layout) / path).read_bytes() != bytes(data):
            raise Caught("a mixed chunk")
    if leftover := files.names(layout.root / ".embank" / "tmp"):
        raise Caught(f"temporaries are left: {leftover}")


# ---- broken protocols


def marker_first(self: Committer, chunk: EncodedChunk) -> bool:
    """Mutant: write the marker before the data."""
    marker = self.layout.root / self.layout.marker(chunk.index)
    done = documents.create(marker, marker_document(self.layout, chunk), self._temporary())
    for path, data in chunk.files.items():
        self._create(path, data)
    return done


def _overwriting_create(path: Path, data: Any, temp: Path) -> bool:
    """Mutant: replace existing files."""
    files.replace(path, data, temp)
    return True


def _not_withdrawing(self: Committer, relative: str, data: Any) -> bool:
    """Mutant: accept existing files as this committer's."""
    path = self.layout.root / relative
    files.make_directory(path.parent)
    files.create(path, data, self._temporary())
    files.sync_directory(path.parent)
    return True


def _marker_of_what_is_there(self: Committer, chunk: EncodedChunk) -> bool:
    """Mutant: write a marker for the existing files, whoever wrote them."""
    for path, data in chunk.files.items():
        _not_withdrawing(self, path, data)
    body = marker_document(self.layout, chunk)
    for path in body["files"]:
        stored = files.read(self.layout.root / path)
        body["files"][path] = {"size": len(stored), "sha256": hashlib.sha256(stored).hexdigest()}
    return documents.create(self.layout.root / self.layout.marker(chunk.index), body, self._temporary())


#: Object, attribute that is replaced, and its replacement.
Mutant = tuple[Any, str, Any]
MUTANTS: dict[str, Mutant] = {
    "marker first": (Committer, "commit_held", marker_first),
    "overwrite instead of create": (files, "create", _overwriting_create),
    "no withdrawal": (Committer, "_create", _not_withdrawing),
    "marker of what is there": (Committer, "commit_held", _marker_of_what_is_there),
}


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """Run the body with a broken protocol."""
    where, attribute, broken = mutant
    original = getattr(where, attribute)
    setattr(where, attribute, broken)
    try:
        yield
    finally:
        setattr(where, attribute, original)


def _until_caught(layout: FeatureLayout, name: str, seed: int) -> int | None:
    """Return the number of races until a mutant is detected; None if it is not."""
    races = _races(layout, seed)
    with mutated(MUTANTS[name]):
        for turn in range(1, MUTANT_RACES + 1):
            pair, order = next(races)
            try:
                race(layout, pair, order)
            except Caught:
                return turn
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 1 if a race went wrong or a mutant was not detected."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(runs=options.runs, seed=options.seed)
    result["machine"] = common.machine()
    rows = [[name, at or "lives"] for name, at in result["mutants"].items()]
    verdict = "\n".join(result["problems"]) or "no mixed chunk, no false marker"
    table = common.markdown_table(["mutant", "caught at race"], rows)
    common.finish(result, f"{table}\n{result['races']} races: {verdict}", options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
