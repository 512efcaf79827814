"""Precision, Jaccard index and carried over labels: cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from segswap import geometry
from segswap.evaluation.segmentation import (
    jaccard,
    label_transfer_accuracy,
    pixel_precision,
    transfer_iou,
    transferred_mask,
)
from segswap.models.prediction import Prediction

MASKS = arrays(bool, (5, 7))


def rectangle(rows: slice, columns: slice, shape: tuple[int, int] = (20, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def moved(by: float, cells: tuple[int, int] = (20, 40)) -> Prediction:
    """What is at (x, y) of the target is at (x - by, y) of the source, normalised."""
    centres = geometry.cell_centres(*cells).astype(np.float32)
    step = np.array([by, 0], np.float32)
    full = np.ones(cells, np.float32)
    return Prediction(centres + step, centres - step, full, full)


def test_precision_counts_object_and_background_and_jaccard_the_object_alone() -> None:
    found, true = rectangle(slice(0, 10), slice(0, 10)), rectangle(slice(0, 10), slice(5, 15))
    # 100 pixels each, 50 in common: 100 of 800 are wrong.
    assert pixel_precision(found, true) == pytest.approx(700 / 800)
    assert jaccard(found, true) == pytest.approx(50 / 150)


def test_an_empty_true_mask_has_a_precision_and_no_jaccard_index() -> None:
    nothing, some = np.zeros((4, 5), bool), rectangle(slice(0, 1), slice(0, 5), (4, 5))
    assert pixel_precision(some, nothing) == 0.75
    assert np.isnan(jaccard(some, nothing))
    assert np.isnan(jaccard(nothing, nothing))
    assert jaccard(nothing, some) == 0


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        jaccard(np.zeros((4, 5), bool), np.zeros((5, 4), bool))


@given(MASKS, MASKS)
def test_both_are_symmetric_and_1_for_the_same_mask(a: np.ndarray, b: np.ndarray) -> None:
    assert pixel_precision(a, b) == pixel_precision(b, a)
    assert pixel_precision(a, ~b) == pytest.approx(1 - pixel_precision(a, b))
    if a.any() and b.any():
        assert jaccard(a, b) == jaccard(b, a)
        assert jaccard(a, a) == 1


def test_a_mask_is_carried_to_where_the_positions_lead() -> None:
    source = rectangle(slice(5, 15), slice(8, 16))
    # A quarter of the width, 10 pixels, to the right.
    there = transferred_mask(moved(0.25), source, 40, 20)
    assert np.array_equal(there, rectangle(slice(5, 15), slice(18, 26)))
    # Also to an image of another size.
    larger = transferred_mask(moved(0.25), source, 80, 60)
    assert larger.sum() == pytest.approx(10 * 3 * 8 * 2, rel=0.05)
    assert larger[30, 44]
    assert not larger[30, 34]


def test_what_comes_from_outside_the_source_or_from_nowhere_is_no_object() -> None:
    everything = np.ones((20, 40), bool)
    there = transferred_mask(moved(0.25), everything, 40, 20)
    assert np.array_equal(there, rectangle(slice(0, 20), slice(10, 40)))
    nowhere = np.full((3, 3, 2), np.nan, np.float32)
    lost = Prediction(nowhere, nowhere, np.ones((3, 3)), np.ones((3, 3)))
    assert not transferred_mask(lost, everything, 40, 20).any()


def test_label_transfer_judges_all_pixels_and_its_iou_the_object() -> None:
    source, target = rectangle(slice(5, 15), slice(8, 16)), rectangle(slice(5, 15), slice(20, 28))
    # Carried over it covers columns 18 to 26: 60 of 80 pixels are right, 20 are too many.
    assert label_transfer_accuracy(moved(0.25), source, target) == pytest.approx(1 - 40 / 800)
    assert transfer_iou(moved(0.25), source, target) == pytest.approx(60 / 100)
    assert label_transfer_accuracy(moved(0.3), source, target) == 1
    assert transfer_iou(moved(0.3), source, target) == 1
