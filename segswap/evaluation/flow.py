"""Flow accuracy: share of an object's pixels whose place in the other image is found.

Taniai, Sinha, Sato, "Joint Recovery of Dense Correspondence and Cosegmentation in Two Images" (CVPR
2016): both images brought to 100 pixels along their longer side, an error of 5 of them is allowed.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segswap import geometry
from segswap.evaluation.metrics import pck, point_errors

_UNKNOWN = 1e9  # and more: no flow here, in the format of Middlebury
ALLOWED = 0.05  # of the longer side of the image that the flow leads to


def flow_accuracy(
    found: NDArray[np.floating], true: NDArray[np.floating], mask: NDArray, size: tuple[int, int]
) -> float:
    """Share of the foreground's pixels with known flow whose found flow is off by at most 5% of the
    other image's longer side; NaN where there is none.

    Args:
        found: (H, W, 2), the way from each pixel to its place in the other image, in pixels, x then
            y; NaN where nothing was found, which is wrong.
        true: (H, W, 2), the same; 1e9 and more where it is unknown.
        mask: (H, W), not 0 in the foreground.
        size: width and height of the other image in pixels.

    Raises:
        ValueError: the arrays differ in size.
    """
    if not found.shape == true.shape == (*mask.shape, 2):
        raise ValueError(
            f"flows are {found.shape} and {true.shape}, the mask {mask.shape}; expected one size"
        )
    judged = (mask > 0) & (np.abs(true) < _UNKNOWN).all(axis=-1)  # False for NaN
    return pck(point_errors(found[judged], true[judged], max(size)), (ALLOWED,))[0]


def flow_of(
    points: Callable[[ArrayLike], NDArray[np.float64]], shape: tuple[int, int],
    size: tuple[int, int],
) -> NDArray[np.float64]:  # fmt: skip
    """A prediction's positions as flow in pixels: (H, W, 2).

    Args:
        points: from normalised points (N, 2) of the image to those of the other one, as
            `Prediction.points`.
        shape: height and width of the image.
        size: width and height of the other image.
    """
    height, width = shape
    start = geometry.cell_centres(height, width)
    end = points(start.reshape(-1, 2)).reshape(start.shape)
    return end * size - start * (width, height)


def mirrored_flow(flow: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Flow of an image to another one that is mirrored, seen in a mirror: of the mirrored image to
    the other one as it is.

    Args:
        flow: (H, W, 2) in pixels.
        width: of the other image in pixels.
    """
    seen = geometry.mirror(flow)
    seen[..., 0] = width - flow.shape[1] - seen[..., 0]
    return seen
