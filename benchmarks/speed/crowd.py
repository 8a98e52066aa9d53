"""Many dask workers in one process: a crowd for a scheduler to look after, not for work.

python -m benchmarks.speed.crowd ADDRESS WORKERS
"""

import asyncio
import sys
import tempfile


async def crowd(address: str, workers: int, scratch: str) -> None:
    """Join a scheduler as so many workers of one thread each, until it goes away."""
    from distributed import Worker

    made = [
        Worker(
            address, nthreads=1, memory_limit=0, local_directory=scratch, dashboard=False, host="127.0.0.1"
        )
        for _ in range(workers)
    ]
    await asyncio.gather(*made)
    await asyncio.gather(*(worker.finished() for worker in made))


def main() -> None:
    address, workers = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(crowd(address, int(workers), scratch))


if __name__ == "__main__":
    main()
