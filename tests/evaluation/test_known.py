"""Real pairs: the stereo pair is right, and scores are measured as they are said to be."""

import cv2
import numpy as np
from skimage.data import stereo_motorcycle

from segswap import geometry
from segswap.evaluation.known import Known, KnownPair, score_known
from segswap.evaluation.stereo import stereo_pair
from segswap.models.prediction import Prediction


def test_right_image_shows_a_left_pixel_at_minus_its_disparity() -> None:
    left, right, disparity = stereo_motorcycle()
    rows, columns = np.mgrid[4 : left.shape[0] : 8, 4 : left.shape[1] : 8]
    shift = disparity[rows, columns]
    known = np.isfinite(shift) & (columns - shift >= 0) & (columns + shift < left.shape[1])
    rows, columns, shift = rows[known], columns[known], shift[known]

    def difference(sign: int) -> float:
        places = np.float32(columns + sign * shift)[None], np.float32(rows)[None]
        there = cv2.remap(right, *places, cv2.INTER_LINEAR)[0].astype(float)
        return float(np.median(np.abs(there - left[rows, columns]).mean(axis=1)))

    assert difference(-1) < difference(1) / 3
    assert difference(-1) < difference(0) / 3


def stereo_prediction(sign: int) -> Prediction:
    """Of a method that knows the disparity, or takes it for its opposite, at every pixel."""
    disparity = np.nan_to_num(stereo_motorcycle()[2], nan=0, posinf=0, neginf=0)
    height, width = disparity.shape
    grid = geometry.cell_centres(height, width).astype(np.float32)
    grid[..., 0] += sign * disparity / width
    mask = np.ones((height, width), np.float32)
    return Prediction(grid, grid, mask, mask)


def test_stereo_score_of_the_truth_is_one_and_of_its_opposite_near_none() -> None:
    pair = stereo_pair()
    right = score_known(stereo_prediction(-1), pair)
    assert (right.pck_1, right.pck_3, right.pck_5) == (1, 1, 1)
    # Nothing is known of masks, or of the way back.
    assert np.isnan([right.mask_iou, right.mask_precision, right.false_area]).all()
    assert score_known(stereo_prediction(1), pair).pck_1 < 0.1


def test_known_errors_are_shares_of_the_longer_side_of_the_image_they_lie_in() -> None:
    points = np.array([[0.5, 0.5]])
    known = Known(points, points)
    flat, tall = np.zeros((50, 200, 3), np.uint8), np.zeros((400, 100, 3), np.uint8)
    for off, share in (((0.02, 0), 0.005), ((0, 0.02), 0.02)):
        grid = (geometry.cell_centres(9, 9) + off).astype(np.float32)
        mask = np.ones((9, 9), np.float32)
        prediction = Prediction(grid, grid, mask, mask)
        there = score_known(prediction, KnownPair("", flat, tall, known))
        assert (there.pck_1, there.pck_3) == (share <= 0.01, 1)
        both = score_known(prediction, KnownPair("", flat, tall, known, known))
        # In the flat image 2% of the width are 2% of the longer side, 2% of the height 0.5%.
        assert both.pck_1 == 0.5
