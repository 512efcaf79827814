"""Scores of pairs of one kind: masks of both pictures, keypoints in both directions."""

from typing import Any

import numpy as np
import pytest

from segswap import geometry
from segswap.batches.held_out import KindPair, KindView
from segswap.evaluation.kinds import score_kind_pair
from segswap.models.prediction import Prediction

POINTS = np.array([[0.2, 0.5], [0.6, 0.5], [np.nan, np.nan]])


def view(**changes: Any) -> KindView:
    """A picture of 200 x 100 px whose left half shows the kind, its box 80 px wide."""
    mask = np.zeros((100, 200), bool)
    mask[:, :100] = True
    told = {"image": np.zeros((100, 200, 3), np.uint8), "mask": mask, "points": POINTS,
            "box_side": 80.0}  # fmt: skip
    return KindView(**told | changes)


def moved(across: float, back: float) -> Prediction:
    """Everything a way across the picture, and the way back; masks of the left half."""
    grid = geometry.cell_centres(10, 10).astype(np.float32)
    mask = np.zeros((10, 10), np.float32)
    mask[:, :5] = 1
    return Prediction(grid + np.float32([across, 0]), grid + np.float32([back, 0]), mask, mask)


def test_a_true_answer_scores_one() -> None:
    assert score_kind_pair(moved(0, 0), KindPair(view(), view())) == (1, 1)


def test_masks_of_both_pictures_count_the_same_and_unknown_ones_do_not() -> None:
    whole = view(mask=np.ones((100, 200), bool))
    assert score_kind_pair(moved(0, 0), KindPair(view(), whole))[0] == pytest.approx(0.75)
    unknown = view(mask=None)
    assert score_kind_pair(moved(0, 0), KindPair(unknown, whole))[0] == pytest.approx(0.5)
    assert np.isnan(score_kind_pair(moved(0, 0), KindPair(unknown, unknown))[0])


def test_a_point_may_be_off_by_a_tenth_of_the_box_where_it_is_sought() -> None:
    # 0.035 of 200 px are 7 px, and 0.045 are 9 px: a tenth of the box is 8 px.
    for there, back, expected in ((0.035, 0.035, 1), (0.035, 0.045, 0.5), (0.045, -0.045, 0)):
        assert score_kind_pair(moved(there, back), KindPair(view(), view()))[1] == expected
    wide = KindPair(view(), view(box_side=100.0))
    assert score_kind_pair(moved(0.045, 0.045), wide)[1] == 0.5


def test_keypoints_that_one_picture_shows_alone_do_not_count() -> None:
    other = view(points=np.array([[0.2, 0.5], [np.nan, np.nan], [0.9, 0.9]]))
    assert score_kind_pair(moved(0, 0), KindPair(view(), other))[1] == 1
    none = view(points=np.full((3, 2), np.nan))
    assert np.isnan(score_kind_pair(moved(0, 0), KindPair(view(), none))[1])
    empty = view(points=np.zeros((0, 2)))
    assert np.isnan(score_kind_pair(moved(0, 0), KindPair(empty, empty))[1])
