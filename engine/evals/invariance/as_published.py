"""Differences that remain between mode `as-published` and the study's code."""

from engine.evals.invariance.options import InvarianceOptions
from engine.recipes import Recipe


def not_reproduced(made: Recipe, options: InvarianceOptions) -> tuple[str, ...]:
    """Say where `as-published` still differs from the study's code, in sentences for the record."""
    sentences = [
        "NumPy's and torch's random numbers of 2022: other images are drawn, by the same rule",
        "transforms are computed on tensors instead of Pillow images; few pixels differ, by a level",
        "the deformation's random numbers are drawn once a view, not once a view and image",
        "the inverse covariance is not rounded to float32 before it is factored",
    ]
    side = made.side
    if (made.resize, made.size, made.interpolation) != ("short", side * 256 // 224, "bilinear"):
        sentences.append(
            f"mean and covariance are of the bank's pixels (short side {made.size}, {made.interpolation}), "
            f"not of short side {side * 256 // 224} bilinear: use "
            "`embank embed --recipe imagenet-256-224-bilinear`"
        )
    if options.batch_norm == "train":
        sentences.append("mean and covariance are of features with BatchNorm in eval mode, as the bank's are")
    return tuple(sentences)
