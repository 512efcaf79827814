"""How good maps of what stands out are: MAE, F and E, as LDF's authors' code scores them.

Wei et al., CVPR 2020 (arXiv 2008.11048), section 4.1; F after Achanta et al. (CVPR 2009), E after
Fan et al. (IJCAI 2018). A map is first brought to 0 to 1 by its own least and largest value. One
that is the same everywhere has no such scale: it adds nothing to the sums and is counted all the
same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]
_BETA = 0.3  # its square: precision counts more than recall
_LEVELS = 256  # thresholds of the curves


@dataclass(frozen=True)
class SaliencyScores:
    """Means over images.

    Attributes:
        mae: mean absolute error.
        raw_mae: that of the maps as they are.
        f: F where maps are cut at twice their mean, at most 1; published as mF.
        mean_f, max_f: of the F of 256 thresholds, each of the images' mean precision and recall,
            the mean and the largest.
        e: E where maps are over twice their mean. Where that exceeds 1, nothing is: a true map of a
            thing that fills over half of its image has 0.25.
        capped_e: E where maps are cut as for F, which spares such images.
    """

    mae: float
    raw_mae: float
    f: float
    mean_f: float
    max_f: float
    e: float
    capped_e: float


def saliency_scores(pairs: Iterable[tuple[Map, Mask]]) -> SaliencyScores:
    """Scores of maps (H, W) in [0, 1], each with its true mask of the same size.

    Raises:
        ValueError: there are none, or a map differs in size from its mask.
    """
    count, sums = 0, np.zeros(5)
    curves = np.zeros((2, _LEVELS))
    for found, true in pairs:
        if found.shape != true.shape:
            raise ValueError(f"a map is {found.shape}, its mask {true.shape}; expected one size")
        count += 1
        sums[0] += np.abs(found - true).mean()
        if found.max() <= found.min():
            continue
        scaled = (found - found.min()) / (found.max() - found.min())
        twice = 2 * float(scaled.mean())
        sums[1:] += (
            np.abs(scaled - true).mean(), f_measure(scaled >= min(twice, 1.0), true),
            e_measure(scaled > twice, true), e_measure(scaled >= min(twice, 1.0), true),
        )  # fmt: skip
        curves += precision_recall(scaled, true)
    if not count:
        raise ValueError("there are no maps to score")
    raw, mae, f, e, capped = (float(value) for value in sums / count)
    levels = [_f(*each) for each in (curves / count).T]
    return SaliencyScores(mae, raw, f, float(np.mean(levels)), max(levels), e, capped)


def f_measure(found: Mask, true: Mask) -> float:
    """F of a mask (H, W): 1.3 P R / (0.3 P + R); 0 where both share nothing."""
    common = int((found & true).sum())
    return _f(common / max(1, int(found.sum())), common / max(1, int(true.sum())))


def _f(precision: float, recall: float) -> float:
    below = _BETA * precision + recall
    return float((1 + _BETA) * precision * recall / below) if below else 0.0


def precision_recall(found: Map, true: Mask) -> NDArray[np.float64]:
    """Precision and recall (2, 256) where a map (H, W) in [0, 1], as 8 bits, is at least 0 to
    255; the precision of nothing is 0.
    """
    grey = np.rint(found * (_LEVELS - 1)).astype(np.intp)
    all_of, true_of = (
        np.bincount(values.ravel(), minlength=_LEVELS)[::-1].cumsum()[::-1]
        for values in (grey, grey[true])
    )
    return np.stack([true_of / np.maximum(1, all_of), true_of / max(1, int(true.sum()))])


def e_measure(found: Mask, true: Mask) -> float:
    """E of a mask (H, W): how its pixels and its mean agree with the true one's, at once."""
    if true.all():
        return float(found.mean())
    if not true.any():
        return float(1 - found.mean())
    a, g = found - found.mean(), true - true.mean()
    agreed = 2 * a * g / (a * a + g * g)
    return float(((agreed + 1) ** 2 / 4).sum() / (true.size - 1))
