"""Reading embeddings: the bank's mapping against an .npy memory map and zarr's own selection, same values.

Every contender opens its file or store anew in each round, as a study started from the shell would.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.common import Spread, figure, finish, interleaved, machine, markdown_table, parser, rate
from stores.bank.keys import ChunkResult, FeatureKey
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create
from stores.maintenance.verify import verify
from stores.manifest.manifest import Manifest

#: Rows of one few-shot study: 600 episodes of 5 classes, 14 images each.
SELECTED = 42_000
#: Rows copied at a time in a full read.
BLOCK = 4096


def run(
    rows: int, dim: int, repeats: int, selected: int = SELECTED, folder: Path | None = None
) -> dict[str, Any]:
    """Write `rows` x `dim` random float16 embeddings as a bank and as .npy, and time reading both.

    Args:
        rows: of the bank.
        dim: length of an embedding.
        repeats: rounds, each contender once a round.
        selected: random rows to gather, without replacement.
        folder: where the files go while it runs; the page cache must hold them twice.

    Returns:
        `{rows, dim, selected, rounds, machine, equal, open_ms, full, random, random_warm}`: bytes a second of
        each contender and its ratios, as {n, median, min, max}.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        bank = _bank(root, rows, dim)
        chosen = np.random.default_rng(1).permutation(rows)[: min(selected, rows)]
        return _measure(root, bank, chosen, repeats)


def _bank(root: Path, rows: int, dim: int) -> Bank:
    import pandas as pd

    names = [f"{row:07d}.png" for row in range(rows)]
    manifest = Manifest.from_frame(pd.DataFrame({"uri": names, "label": [name[6] for name in names]}), root)
    bank = open_or_create(root / "bank", manifest)
    key = FeatureKey("random", "none", "none", "none", "none", "none", "none", bank.image_digest)
    whole = np.lib.format.open_memmap(root / "whole.npy", "w+", np.float16, (rows, dim))
    rng = np.random.default_rng(0)
    with FeatureWriter(bank, key, dim) as writer:
        for index in writer.todo:
            start, stop = writer.bounds(index)
            values = rng.random((stop - start, dim), dtype=np.float32)
            whole[start:stop] = values
            writer.commit(ChunkResult(index, values, np.ones(stop - start, dtype=bool)))
        writer.seal()
    whole.flush()
    # The files are minutes old in real life; here they must settle before they are stamped.
    _settle()
    verify(bank)
    return bank


def _settle() -> None:
    import time

    from stores.bank.integrity import SETTLED_NS

    time.sleep(SETTLED_NS / 1e9 + 0.1)


def _measure(root: Path, bank: Bank, chosen: np.ndarray[Any, Any], repeats: int) -> dict[str, Any]:
    import zarr

    name = bank.list()[0].name
    buffer = np.empty((BLOCK, bank.features(name).dim), np.float16)

    def ours() -> np.ndarray[Any, Any]:
        return Bank.open(bank.path).features(name).array

    def npy() -> np.ndarray[Any, Any]:
        return np.load(root / "whole.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def by_zarr() -> Any:
        return zarr.open_array(bank.path / name / "embedding", mode="r")

    def copy_all(array: Any) -> None:
        for start in range(0, len(array), BLOCK):
            block = array[start : start + BLOCK]
            buffer[: len(block)] = block

    warm_ours, warm_npy = ours(), npy()
    opened = interleaved({"bank": ours, "npy": npy}, rounds=max(repeats, 5))
    full = interleaved(
        {"bank": lambda: copy_all(ours()), "npy": lambda: copy_all(npy()), "zarr": lambda: by_zarr()[:]},
        rounds=repeats,
    )
    random = interleaved(
        {
            "bank": lambda: ours()[chosen],
            "npy": lambda: npy()[chosen],
            "zarr": lambda: by_zarr().oindex[chosen],
        },
        rounds=repeats,
    )
    warm = interleaved({"bank": lambda: warm_ours[chosen], "npy": lambda: warm_npy[chosen]}, rounds=repeats)
    return {
        "rows": bank.rows,
        "dim": buffer.shape[1],
        "selected": len(chosen),
        "rounds": repeats,
        "machine": machine(),
        "equal": bool(
            np.array_equal(ours(), npy()) and np.array_equal(ours()[chosen], by_zarr().oindex[chosen])
        ),
        "open_ms": {each: Spread.of([1e3 * s for s in seconds]) for each, seconds in opened.items()},
        "full": _rates(full, bank.rows * buffer.shape[1] * 2),
        "random": _rates(random, len(chosen) * buffer.shape[1] * 2),
        "random_warm": _rates(warm, len(chosen) * buffer.shape[1] * 2),
    }


def _rates(seconds: dict[str, list[float]], size: int) -> dict[str, Any]:
    """Bytes a second, and how many times as fast as each other contender the bank is, round by round."""
    found: dict[str, Any] = {f"{name}_bytes_per_s": rate(size, each) for name, each in seconds.items()}
    for name, each in seconds.items():
        if name != "bank":
            found[f"over_{name}"] = Spread.of([b / a for a, b in zip(seconds["bank"], each, strict=True)])
    return found


def _table(result: dict[str, Any]) -> str:
    lines = []
    titles = {
        "full": "full read",
        "random": f"{result['selected']:,} random rows",
        "random_warm": "the same, mapped already",
    }
    for part, title in titles.items():
        for name in ("bank", "npy", "zarr"):
            if speed := result[part].get(f"{name}_bytes_per_s"):
                ratio = "" if name == "bank" else str(result[part][f"over_{name}"])
                span = f"{figure(speed.median / 1e6)} ({figure(speed.min / 1e6)}-{figure(speed.max / 1e6)})"
                lines.append([title, name, span, ratio])
    opened = " / ".join(f"{name} {spread}" for name, spread in result["open_ms"].items())
    head = (
        f"{result['rows']:,} x {result['dim']} float16, {result['rounds']} rounds; opening, ms: {opened}\n\n"
    )
    return head + markdown_table(["", "from", "MB/s: median (min-max)", "bank is times as fast"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__ or "")
    options.add_argument("--rows", type=int, default=224_316)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--selected", type=int, default=SELECTED)
    options.add_argument(
        "--folder", type=Path, help="where the files go while it runs (2 x rows x dim x 2 bytes)"
    )
    asked = options.parse_args(arguments)
    result = run(asked.rows, asked.dim, asked.repeats, asked.selected, asked.folder)
    finish(result, _table(result), asked)


if __name__ == "__main__":
    main()
