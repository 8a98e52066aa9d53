"""McNemar's test of two models' accuracies on the same images, independent or of patients.

McNemar, Psychometrika 12 (1947) 153, doi 10.1007/BF02295996, by the exact binomial distribution; the mid-p
form after Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13 (2013) 91, doi
10.1186/1471-2288-13-91. For images of patients Yang, Sun, Hardin, Biometrical Journal 52 (2010) 638, doi
10.1002/bimj.201000035: unlike Durkalski's it weighs images, as the accuracy does, and not patients.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, erfc

#: Patients with a difference below which the exact distribution of their signs replaces the chi-square.
FEW = 25


@dataclass(frozen=True)
class McNemar:
    """The result of a test.

    Attributes:
        first, second: images that only this model classified correctly.
        statistic: chi-square with one degree of freedom; NaN where the distribution is exact.
        p: two-sided; NaN if the models differ nowhere.
        name: of the test.
        reason: why p is NaN; "" if it is a number.
    """

    first: int
    second: int
    statistic: float
    p: float
    name: str
    reason: str = ""


_ALIKE = "both models are right on the same images"


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], *, mid_p: bool = False) -> McNemar:
    """Test by the exact binomial distribution of the images that only one model classifies correctly.

    Args:
        first, second: bool [n], whether each model is correct.
        mid_p: count half of the probability of the very outcome; less conservative.
    """
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    name = "mcnemar-mid-p" if mid_p else "mcnemar-exact"
    if not b + c:
        return McNemar(b, c, math.nan, math.nan, name, _ALIKE)
    below = bdtr(min(b, c), b + c, 0.5)
    if mid_p:
        at = below - (bdtr(min(b, c) - 1, b + c, 0.5) if min(b, c) else 0.0)
        below -= 0.5 * at
    return McNemar(b, c, math.nan, min(1.0, 2 * float(below)), name)


def clustered_mcnemar(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.integer]
) -> McNemar:
    """Test with only patients independent.

    With d the number of a patient's images that only the first model has right, less those that only the
    second has, and n the number of all of them, the modified Obuchowski statistic of Yang et al. is the
    squared sum of d over the mean of the sums of d^2 and of (d - n x difference)^2, times (K - 1) / K for K
    patients. With fewer than `FEW` patients whose d is not 0, p is exact under random signs of the d instead;
    with one image a patient that is the binomial test.

    Args:
        first, second: bool [n].
        groups: int [n], patient of each image, from 0.
    """
    sizes = np.bincount(groups)
    sizes = sizes[sizes > 0]
    d = np.bincount(groups, weights=first.astype(np.float64) - second)[np.bincount(groups) > 0]
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = d[d != 0].astype(np.int64)
    if not len(discordant):
        reason = _ALIKE if not b + c else "every patient's differences cancel"
        return McNemar(b, c, math.nan, math.nan, "mcnemar-signs", reason)
    if len(discordant) < FEW:
        return McNemar(b, c, math.nan, _sign_test(discordant), "mcnemar-signs")
    centred = d - sizes * (d.sum() / sizes.sum())
    spread = 0.5 * (centred @ centred + d @ d)
    statistic = (len(d) - 1) / len(d) * float(d.sum()) ** 2 / float(spread)
    return McNemar(b, c, statistic, float(erfc(math.sqrt(statistic / 2))), "mcnemar-yang")


def _sign_test(d: NDArray[np.int64]) -> float:
    """Return the share of all sign changes whose sum is at least as far from 0, by convolution."""
    reach = int(np.abs(d).sum())
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in np.abs(d).tolist():
        chances = 0.5 * (np.roll(chances, step) + np.roll(chances, -step))  # never reaches the ends
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chances[sums >= abs(int(d.sum()))].sum()))
