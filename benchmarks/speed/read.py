"""Reading embeddings: the bank's memory map compared with an .npy memory map and zarr's selection.

Every contender opens its file or store in each round, like a study started from the shell. All read the same
values.
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
        repeats: rounds, with each contender once.
        selected: random rows to gather, without replacement.
        folder: for temporary files; the page cache must have room for both copies.

    Returns:
        `{rows, dim, selected, rounds, machine, equal, open_ms, full, random, random_warm}`: bytes per second
        of each contender, and ratios, as {n, median, min, max}.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        bank = _bank(root, rows, dim)
        selected_rows = np.random.default_rng(1).permutation(rows)[: min(selected, rows)]
        return _measure(root, bank, selected_rows, repeats)


def _bank(root: Path, rows: int, dim: int) -> Bank:
    embeddings = np.lib.format.open_memmap(root / "whole.npy", "w+", np.float16, (rows, dim))
    bank = written_bank(root / "bank", rows, dim, embeddings)
    embeddings.flush()
    return bank


def written_bank(path: Path, rows: int, dim: int, copy: Any = None) -> Bank:
    """Write a bank of random float16 features, and verify it.

    Args:
        path: of the bank; its folder exists.
        rows, dim: of the features.
        copy: [rows, dim], gets the same numbers; None for no copy.
    """
    import pandas as pd

    names = [f"{row:07d}.png" for row in range(rows)]
    frame = pd.DataFrame({"uri": names, "label": [name[6] for name in names]})
    bank = open_or_create(path, Manifest.from_frame(frame, path.parent))
    key = FeatureKey("random", "none", "none", "none", "none", "none", "none", bank.image_digest)
    rng = np.random.default_rng(0)
    with FeatureWriter(bank, key, dim) as writer:
        for index in writer.todo:
            start, stop = writer.bounds(index)
            values = rng.random((stop - start, dim), dtype=np.float32)
            if copy is not None:
                copy[start:stop] = values
            writer.commit(ChunkResult(index, values, np.ones(stop - start, dtype=bool)))
        writer.seal()
    # Files are stamped only if they are not too recent, which in practice they never are.
    _settle()
    verify(bank)
    return bank


def _settle() -> None:
    import time

    from stores.bank.integrity import SETTLED_NS

    time.sleep(SETTLED_NS / 1e9 + 0.1)


def _measure(root: Path, bank: Bank, selected_rows: np.ndarray[Any, Any], repeats: int) -> dict[str, Any]:
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
            "bank": lambda: ours()[selected_rows],
            "npy": lambda: npy()[selected_rows],
            "zarr": lambda: by_zarr().oindex[selected_rows],
        },
        rounds=repeats,
    )
    warm = interleaved(
        {"bank": lambda: warm_ours[selected_rows], "npy": lambda: warm_npy[selected_rows]}, rounds=repeats
    )
    return {
        "rows": bank.rows,
        "dim": buffer.shape[1],
        "selected": len(selected_rows),
        "rounds": repeats,
        "machine": machine(),
        "equal": bool(
            np.array_equal(ours(), npy())
            and np.array_equal(ours()[selected_rows], by_zarr().oindex[selected_rows])
        ),
        "open_ms": {name: Spread.of([1e3 * s for s in seconds]) for name, seconds in opened.items()},
        "full": _rates(full, bank.rows * buffer.shape[1] * 2),
        "random": _rates(random, len(selected_rows) * buffer.shape[1] * 2),
        "random_warm": _rates(warm, len(selected_rows) * buffer.shape[1] * 2),
    }


def _rates(seconds: dict[str, list[float]], size: int) -> dict[str, Any]:
    """Return bytes per second, and the bank's speed over that of the other contenders, round by round."""
    rates: dict[str, Any] = {f"{name}_bytes_per_s": rate(size, times) for name, times in seconds.items()}
    for name, times in seconds.items():
        if name != "bank":
            rates[f"over_{name}"] = Spread.of([b / a for a, b in zip(seconds["bank"], times, strict=True)])
    return rates


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
    """Run the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--rows", type=int, default=224_316)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--selected", type=int, default=SELECTED)
    options.add_argument(
        "--folder", type=Path, help="where the files go while it runs (2 x rows x dim x 2 bytes)"
    )
    args = options.parse_args(arguments)
    result = run(args.rows, args.dim, args.repeats, args.selected, args.folder)
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
