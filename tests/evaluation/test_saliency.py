"""Scores of saliency maps: numbers worked out by hand, and the traps of the published code."""

import numpy as np
import pytest

from segswap.evaluation.saliency import (
    e_measure,
    f_measure,
    precision_recall,
    saliency_scores,
)


def mask_of(pixels: int) -> np.ndarray:
    """A mask of 20 x 20 whose first pixels are true."""
    return (np.arange(400) < pixels).reshape(20, 20)


def test_f_of_known_precision_and_recall() -> None:
    assert f_measure(mask_of(100), mask_of(50)) == pytest.approx(0.5652, abs=5e-5)
    assert f_measure(mask_of(50), mask_of(100)) == pytest.approx(0.8125)
    assert f_measure(mask_of(0), mask_of(50)) == 0
    assert f_measure(~mask_of(50), mask_of(50)) == 0


def test_a_constant_map_is_skipped_and_counted() -> None:
    """A half everywhere has no scale; on the map as it is, the threshold is 1 and nothing is cut
    out."""
    half, true = np.full((20, 20), 0.5, np.float32), mask_of(50)
    scores = saliency_scores([(half, true)])
    assert (scores.mae, scores.f, scores.mean_f, scores.max_f, scores.e) == (0, 0, 0, 0, 0)
    assert scores.raw_mae == pytest.approx(0.5)
    assert f_measure(half >= min(2 * half.mean(), 1), true) == 0
    # It is in the divisor: of two images, one perfect, the means are half of its scores.
    both = saliency_scores([(half, true), (true.astype(np.float32), true)])
    assert both.f == pytest.approx(0.5)
    assert both.raw_mae == pytest.approx(0.25)


def test_a_perfect_map() -> None:
    true = mask_of(48)
    scores = saliency_scores([(true.astype(np.float32), true)])
    assert (scores.mae, scores.f, scores.max_f) == (0, 1, 1)
    # Of the release: the sum is divided by a pixel less than there are.
    assert scores.e == scores.capped_e == pytest.approx(400 / 399)


def test_e_of_things_over_half_of_the_image() -> None:
    """Twice the mean is then over 1: the published E of a perfect map is that of nothing."""
    true = mask_of(240)
    scores = saliency_scores([(true.astype(np.float32), true)])
    assert scores.e == pytest.approx(0.25 * 400 / 399)
    assert scores.e == pytest.approx(0.2506, abs=5e-5)
    assert scores.capped_e == pytest.approx(400 / 399)


def test_e_of_nothing_and_of_the_contrary() -> None:
    true = mask_of(48)  # 12%
    assert e_measure(np.zeros_like(true), true) == pytest.approx(0.2506, abs=5e-5)
    inverted = saliency_scores([(1 - true.astype(np.float32), true)])
    assert inverted.e == pytest.approx(0.2506, abs=5e-5)


def test_e_without_a_thing_or_without_background() -> None:
    found = mask_of(100)
    assert e_measure(found, mask_of(0)) == pytest.approx(0.75)
    assert e_measure(found, mask_of(400)) == pytest.approx(0.25)


def test_curves_by_hand() -> None:
    found = np.array([[1.0, 0.6], [0.2, 0.0]], np.float32)
    true = np.array([[True, False], [True, False]])
    precision, recall = precision_recall(found, true)
    assert precision[[0, 1, 51, 52, 153, 154, 255]] == pytest.approx(
        [0.5, 2 / 3, 2 / 3, 0.5, 0.5, 1, 1]
    )
    assert recall[[0, 51, 52, 255]] == pytest.approx([1, 1, 0.5, 0.5])


def test_sizes_and_emptiness_are_errors() -> None:
    with pytest.raises(ValueError, match="expected one size"):
        saliency_scores([(np.zeros((2, 3), np.float32), mask_of(3))])
    with pytest.raises(ValueError, match="no maps"):
        saliency_scores([])
