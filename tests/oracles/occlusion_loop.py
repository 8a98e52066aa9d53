"""The study's occlusion, written plainly: one forward pass after the other, one addition after the other."""

import numpy as np
import torch
from torch import nn


def scores(module: nn.Module, image: torch.Tensor, size: int, stride: int, fill: torch.Tensor) -> np.ndarray:
    """||f - f_occ|| / ||f|| at each place.

    Args:
        module: [1, 3, S, S] -> [1, d], in the mode that is wanted.
        image: [1, 3, S, S], normalised; fill: [3].
    """
    starts = range(0, image.shape[2] - size + 1, stride)
    found = np.empty((len(starts), len(starts)))
    # Evaluations set torch's threads; many of them on small maps only wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        whole = module(image)[0].double().numpy()
        for i, y in enumerate(starts):
            for j, x in enumerate(starts):
                copy = image.clone()
                copy[0, :, y : y + size, x : x + size] = fill[:, None, None]
                feature = module(copy)[0].double().numpy()
                found[i, j] = np.linalg.norm(whole - feature) / np.linalg.norm(whole)
    torch.set_num_threads(threads)
    return found


def map_of(scores: np.ndarray, side: int, size: int, stride: int) -> np.ndarray:
    """Each score added to the pixels its square covers, divided by how many squares did, the rim cut off."""
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for i, row in enumerate(scores):
        for j, score in enumerate(row):
            square = np.s_[i * stride : i * stride + size, j * stride : j * stride + size]
            total[square] += score
            count[square] += 1
    inside = slice(size - 1, side - size + 1)
    assert count[inside, inside].min() > 0
    return total[inside, inside] / count[inside, inside]
