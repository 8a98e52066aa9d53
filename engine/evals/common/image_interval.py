"""The interval of a mean over a few images of a manifest."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.image_draw import stream
from engine.kernels.intervals import Bootstrap, bootstrap_ratio
from engine.kernels.intervals.cluster_robust import compact_groups
from stores.manifest.manifest import Manifest

#: Bootstrap samples.
RESAMPLES = 2000


def interval_of_images(
    manifest: Manifest, rows: Sequence[int], values: NDArray[np.float64], seed: int
) -> Bootstrap | None:
    """Return the bootstrap interval of the mean over patients, or images without any.

    Args:
        rows: of the images in the manifest.
        values: [n], of these images.

    Returns:
        None of fewer than two patients or images.
    """
    if not len(rows):
        return None
    groups = compact_groups(manifest.codes("group")[0])[list(rows)]
    if len(set(groups.tolist())) < 2:
        return None
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    numbers = stream("interval", seed, manifest.image_digest)
    return bootstrap_ratio(values, np.ones(len(values)), groups, RESAMPLES, numbers)
