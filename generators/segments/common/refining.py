"""A rough map of a thing brought to the edges of the image, by graph cuts of its colours."""

import cv2
import numpy as np
from numpy.typing import NDArray

_ROUNDS = 3
_SURELY = 1.75  # of the threshold, from which on the thing is surely there
_SURELY_NOT = 0.35  # of the threshold, below which it is surely not


def refined(
    image: NDArray[np.uint8], seen: NDArray[np.float32], threshold: float
) -> NDArray[np.bool_]:
    """Where the thing is, bool (H, W): GrabCut (Rother et al., SIGGRAPH 2004), by OpenCV.

    Args:
        image: RGB (H, W, 3).
        seen: how sure the thing is seen, (H, W) in [0, 1].
        threshold: from which on it rather is there.
    """
    rough = seen > threshold
    marks = np.where(rough, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks[seen > min(0.95, _SURELY * threshold)] = cv2.GC_FGD
    marks[seen < _SURELY_NOT * threshold] = cv2.GC_BGD
    if not rough.any() or not (marks % 2 == 0).any():
        return rough
    cv2.setRNGSeed(0)  # it draws where its mixtures of colours begin
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, marks, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    return marks % 2 == 1
