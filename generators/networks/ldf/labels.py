"""A mask parted into its body, which is the surer the farther from the edge, and its detail.

Wei et al., CVPR 2020 (arXiv 2008.11048), section 3.2: pixels near the edge are the hard ones; apart
from the others they do not drown them.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

METHODS = ("linear", "released")


def decoupled(
    mask: NDArray[np.bool_], method: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Body and detail, (H, W) in [0, 1] each, of a mask (H, W).

    Args:
        mask: where the thing is; empty, body and detail are 0, and full, where no distance to the
            background is known, the body is 1.
        method: "linear", the paper's: the distance to the background as a share of the largest, and
            the rest; together they are the mask. "released", the authors' code's, with which their
            figures were made: the root of the distance, of the mask widened by 2 pixels, in steps
            of 1/255; together they are the mask inside it, and outside the body goes on. A mask
            that leaves no background when widened is as a full one.
    """
    if not mask.any() or mask.all():
        body = mask.astype(np.float32)
        return body, np.zeros_like(body)
    return _linear(mask) if method == "linear" else _released(mask)


def _linear(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    distance = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    body = (distance / distance.max()).astype(np.float32)
    return body, mask - body


def _released(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    grey = mask.view(np.uint8) * np.uint8(255)
    root = np.sqrt(cv2.distanceTransform(cv2.blur(grey, (5, 5)), cv2.DIST_L2, 5))
    body = np.floor(root * (255 / root.max())).astype(np.float32)
    return body / 255, (grey - body).clip(0).astype(np.float32) / 255
