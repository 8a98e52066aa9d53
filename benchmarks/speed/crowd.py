"""Many dask workers in one process, as load for a scheduler.

python -m benchmarks.speed.crowd ADDRESS WORKERS
"""

import asyncio
import sys
import tempfile


async def crowd(address: str, workers: int, scratch: str) -> None:
    """Connect `workers` workers of one thread each to a scheduler, until it ends."""
    from distributed import Worker

    dask_workers = [
        Worker(
            address, nthreads=1, memory_limit=0, local_directory=scratch, dashboard=False, host="127.0.0.1"
        )
        for _ in range(workers)
    ]
    await asyncio.gather(*dask_workers)
    await asyncio.gather(*(worker.finished() for worker in dask_workers))


def main() -> None:
    """Run the command line."""
    address, workers = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(crowd(address, int(workers), scratch))


if __name__ == "__main__":
    main()
