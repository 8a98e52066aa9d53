"""A dask worker on the device, compared with this process."""

import json

import numpy as np
import torch

from benchmarks.gpu.packages import is_installed
from benchmarks.gpu.suite import Context, Verdict, proof
from benchmarks.gpu.timing import distance
from benchmarks.images import PHOTO
from stores.bank.reader import Bank
from stores.maintenance.verify import verify


@proof(
    "dask: a worker on the device, against this process", seconds=30, rank=16, needs=("dask", "distributed")
)
def worker_agrees(context: Context) -> Verdict:
    """Embed with one worker process, which has a GPU of its own where dask-cuda is installed."""
    import shutil

    from benchmarks.faults.runner import Job
    from engine.executors import local

    manifest, spec = context.manifest([PHOTO], context.pick(64, 8)), context.spec("random/resnet18")
    table, recipe = context.work / "dask.parquet", context.work / "dask-recipe.json"
    manifest.write(table)
    recipe.write_text(json.dumps(spec.recipe.to_dict()))
    size = context.pick(32, 4)
    job = Job(str(table), str(recipe), spec.slug, size, size, device=context.device, precision="fp32")
    banks = [context.work / "banks" / name for name in ("serial", "by-worker")]
    for bank in banks:
        shutil.rmtree(bank, ignore_errors=True)
        bank.parent.mkdir(exist_ok=True)
    job.run(str(banks[0]))
    with local(1, cuda=context.on_cuda and is_installed("dask_cuda")) as workers:
        job.run(str(banks[1]), workers)
    truth, found = (np.asarray(Bank.open(bank).features().array, np.float64) for bank in banks)
    numbers = {
        "rows": len(truth),
        "same_bits": bool(np.array_equal(truth, found)),
        "verified": verify(Bank.open(banks[1])).ok,
        **distance(torch.from_numpy(found), torch.from_numpy(truth)),
    }
    passed = numbers["verified"] and numbers["min_centred_cosine"] >= 0.9999
    return Verdict(numbers, bool(passed), "verified; least centred cosine 0.9999")
