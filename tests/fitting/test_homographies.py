"""Homographies of matches: the one that most agree with, and none where there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segswap import geometry
from segswap.fitting.ransac import homography_by_magsac

TRUTH = np.array([[0.9, 0.2, 30], [-0.15, 1.1, -12], [2e-4, -1e-4, 1]])


@given(seed=st.integers(0, 1000), wrong=st.integers(0, 60), noise=st.sampled_from([0, 0.3]))
def test_most_of_the_points_say_which(seed: int, wrong: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 500, (100, 2))
    target = geometry.transform_points(TRUTH, source) + rng.normal(0, noise, (100, 2))
    target[:wrong] += rng.uniform(30, 200, (wrong, 2)) * rng.choice([-1, 1], (wrong, 2))
    matrix, inliers = homography_by_magsac(source, target, 3.0)
    assert matrix is not None
    assert inliers.dtype == np.bool_
    corners = np.array([(0, 0), (500, 0), (500, 500), (0, 500)])
    off = geometry.transform_points(matrix, corners) - geometry.transform_points(TRUTH, corners)
    assert np.abs(off).max() < 0.02 + 8 * noise
    assert inliers[wrong:].mean() > 0.95
    assert inliers[:wrong].sum() <= 2
    again = homography_by_magsac(source, target, 3.0)
    np.testing.assert_array_equal(matrix, again[0])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_than_four_points_have_none(count: int) -> None:
    points = np.random.default_rng(0).random((count, 2))
    matrix, inliers = homography_by_magsac(points, points, 3.0)
    assert matrix is None
    assert inliers.tolist() == [False] * count


def test_points_in_one_place_or_on_a_line_have_none() -> None:
    line = np.stack([np.arange(50.0), 2 * np.arange(50.0)], axis=1)
    for points in (np.ones((50, 2)), line):
        matrix, inliers = homography_by_magsac(points, points + 3, 3.0)
        assert matrix is None
        assert not inliers.any()


@pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan])
def test_a_threshold_that_is_none_is_refused(threshold: float) -> None:
    points = np.random.default_rng(0).random((9, 2))
    with pytest.raises(ValueError, match="expected pixels, above 0"):
        homography_by_magsac(points, points, threshold)
