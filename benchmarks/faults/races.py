"""Let two committers with differing bytes race for a chunk, in every order of their touches of the disk.

    python -m benchmarks.faults.races [--runs 1000] [--json]

Random kills do not find races, so the order is forced: the first goes some steps, then the second to its
end, or both in an order drawn beforehand. After every step no marker may vouch for bytes that are not there,
and in the end all files are one committer's. Then the protocol is broken on purpose, in four ways, and each
mutant must be caught.
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

from benchmarks.faults.banks import Os, chunk_result, lies, make_key, make_manifest, patched, quick_folder
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
#: A mutant that lives so many races is not caught.
MUTANT_RACES = 400
#: (steps of the first, steps of the second) -> whose turn it is.
Order = Callable[[int, int], int]


class Caught(AssertionError):
    """The protocol was seen to fail."""


def run(
    *, runs: int = 1000, seed: int = 0, mutants: bool = True, say: Callable[[str], None] = common.say
) -> dict[str, Any]:
    """Race.

    Args:
        runs: races between the kinds of `variants`, in turn.
        seed: of the orders drawn.
        mutants: also race with the protocol broken.

    Returns:
        `{ok, races, won_by, mutants: {name: races until it was caught, or None}, problems}`.
    """
    problems: list[str] = []
    won: Counter[str] = Counter()
    with quick_folder() as folder:
        layout = one_chunk(folder)
        for turn, (pair, order) in enumerate(_races(layout, seed)):
            if turn == runs:
                break
            try:
                said = race(layout, pair, order)
                won["first" if said[0] else "second"] += 1
            except Caught as caught:
                problems.append(f"race {turn}: {caught}")
        say(f"{runs} races, {dict(won)}, {len(problems)} problems")
        killed = {name: _until_caught(layout, name, seed) for name in MUTANTS} if mutants else {}
    say(f"mutants, caught at the race: {killed}")
    return {
        "ok": not problems and None not in killed.values(),
        "races": runs,
        "won_by": dict(won),
        "mutants": killed,
        "problems": problems,
        "seed": seed,
    }


def one_chunk(folder: Path) -> FeatureLayout:
    """A feature of one chunk, ready for commits."""
    bank = open_or_create(folder / "bank", make_manifest(folder, ROWS))
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        return writer.layout


def variants() -> dict[str, ChunkResult]:
    """Results that differ from `nothing` in the file named (and, of course, in the marker)."""
    first = chunk_result(0, 0, ROWS, DIM)
    other = first.embedding.copy()
    other[3] += 1
    # Below float16's resolution, above float32's: the stored embedding is the same, its norm is not.
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
    """Endlessly: every handover of every kind both ways round, then drawn orders of all of them."""
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
    """The bank's folder."""
    root = files.local_path(layout.root)
    assert root is not None
    return root


def steps_alone(layout: FeatureLayout) -> int:
    """Touches of the disk by one undisturbed commit."""
    clear(layout)
    with patched(Os(lambda count, name, args: None)) as fake:
        Committer(layout).commit(variants()["nothing"])
    return int(fake.count)


def handover(at: int) -> Order:
    """The first goes `at` steps, then the second to its end, then the first again."""
    return lambda first, second: 0 if first < at else 1


def shuffled(seed: int) -> Order:
    """An order drawn step by step."""
    drawn = np.random.default_rng(seed).integers(0, 2, 10_000)
    return lambda first, second: int(drawn[first + second])


def clear(layout: FeatureLayout) -> None:
    """Back to no chunk at all."""
    for pattern in ("*/*/c/**/*", ".embank/*/markers/*", ".embank/tmp/*"):
        for path in root_of(layout).glob(pattern):
            if path.is_file():
                path.unlink()


class Turns:
    """Lets two threads touch the disk one at a time, in an order given beforehand."""

    def __init__(self, order: Order, check: Callable[[], None]) -> None:
        self._order, self._check = order, check
        self._condition, self._done = threading.Condition(), [False, False]
        self._steps = [0, 0]
        self._who: dict[int, int] = {}

    def enter(self, me: int) -> None:
        self._who[threading.get_ident()] = me

    def leave(self, me: int) -> None:
        with self._condition:
            self._done[me] = True
            self._condition.notify_all()

    def before(self, count: int, name: str, args: tuple[Any, ...]) -> None:
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
    """Two committers on one chunk.

    Returns:
        What `commit` said to each.

    Raises:
        Caught: a marker lied at some moment, both won or none, or the chunk is mixed.
    """
    clear(layout)
    errors: list[BaseException] = []
    said = [False, False]

    def check() -> None:
        if found := lies(root_of(layout), layout.name):
            raise Caught(f"a marker vouches for bytes that are not there: {found}")

    turns = Turns(order, check)

    def commit(me: int) -> None:
        turns.enter(me)
        try:
            said[me] = Committer(layout).commit(results[me])
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
    _judge(layout, results, said)
    if errors:
        raise Caught(f"a race is no fault of the machine: {errors[0]}")
    return said


def _judge(layout: FeatureLayout, results: Sequence[ChunkResult], said: list[bool]) -> None:
    """One and only one committer won, and all that lies there is that one's."""
    if sum(said) != 1:
        raise Caught(f"{sum(said)} committers completed the chunk")
    winner = encode(results[said.index(True)], layout)
    if documents.read(layout.root / layout.marker(0)) != marker_document(layout, winner):
        raise Caught("the marker is not the winner's")
    for path, data in winner.files.items():
        if (root_of(layout) / path).read_bytes() != bytes(data):
            raise Caught("a mixed chunk")
    if left := files.names(layout.root / ".embank" / "tmp"):
        raise Caught(f"temporaries are left: {left}")


# ---- the protocol, broken


def marker_first(self: Committer, chunk: EncodedChunk) -> bool:
    """Says "done", then writes."""
    marker = self.layout.root / self.layout.marker(chunk.index)
    done = documents.create(marker, marker_document(self.layout, chunk), self._temporary())
    for path, data in chunk.files.items():
        self._create(path, data)
    return done


def _overwriting_create(path: Path, data: Any, temp: Path) -> bool:
    """Replaces what is there."""
    files.replace(path, data, temp)
    return True


def _not_withdrawing(self: Committer, relative: str, data: Any) -> bool:
    """Takes whatever lies there for its own."""
    path = self.layout.root / relative
    files.make_directory(path.parent)
    files.create(path, data, self._temporary())
    files.sync_directory(path.parent)
    return True


def _marker_of_what_is_there(self: Committer, chunk: EncodedChunk) -> bool:
    """Vouches for the files that it finds, whosever they are."""
    for path, data in chunk.files.items():
        _not_withdrawing(self, path, data)
    body = marker_document(self.layout, chunk)
    for path in body["files"]:
        found = files.read(self.layout.root / path)
        body["files"][path] = {"size": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    return documents.create(self.layout.root / self.layout.marker(chunk.index), body, self._temporary())


#: What is replaced, its name there, and by what.
Mutant = tuple[Any, str, Any]
MUTANTS: dict[str, Mutant] = {
    "marker first": (Committer, "commit_held", marker_first),
    "overwrite instead of create": (files, "create", _overwriting_create),
    "no withdrawal": (Committer, "_create", _not_withdrawing),
    "marker of what is there": (Committer, "commit_held", _marker_of_what_is_there),
}


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The body runs with the protocol broken in one way."""
    where, attribute, broken = mutant
    honest = getattr(where, attribute)
    setattr(where, attribute, broken)
    try:
        yield
    finally:
        setattr(where, attribute, honest)


def _until_caught(layout: FeatureLayout, name: str, seed: int) -> int | None:
    """After how many races a mutant shows; None if it does not."""
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
    """Command line; exits with 1 if a race went wrong or a mutant lived."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(runs=options.runs, seed=options.seed)
    result["machine"] = common.machine()
    rows = [[name, at or "lives"] for name, at in result["mutants"].items()]
    verdict = "\n".join(result["problems"]) or "no mixed chunk, no lying marker"
    table = common.markdown_table(["mutant", "caught at race"], rows)
    common.finish(result, f"{table}\n{result['races']} races: {verdict}", options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
