"""PCK with both references, and flow accuracy: cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segswap.evaluation.flow import flow_accuracy, flow_of, mirrored_flow
from segswap.evaluation.keypoints import box_side, on_square, without_padding
from segswap.evaluation.metrics import pck, point_errors

# --- PCK -------------------------------------------------------------------------------------


def test_a_point_at_exactly_alpha_times_the_length_is_right() -> None:
    true = np.array([(0.0, 0.0), (10.0, 0.0), (0.0, 20.0), (5.0, 5.0)])
    off = np.array([(0.0, 0.0), (2.0, 0.0), (0.0, -2.0), (0.0, 2.01)])
    # Allowed: 0.1 x 20 = 2 pixels; the distances are 0, 2, 2 and 2.01.
    assert pck(point_errors(true + off, true, 20), [0.1]) == [0.75]


def test_a_point_that_was_not_found_is_wrong_and_of_none_there_is_no_score() -> None:
    true = np.array([(0.0, 0.0), (1.0, 1.0)])
    found = np.array([(0.0, 0.0), (np.nan, np.nan)])
    assert pck(point_errors(found, true, 100), [0.1, 0.2]) == [0.5, 0.5]
    assert np.isnan(pck(point_errors(np.zeros((0, 2)), np.zeros((0, 2)), 100))).all()


def test_padding_is_dropped_before_the_box_is_measured() -> None:
    # As in the lists: a box of 40 x 30 px; with the padding it would be 141 wide.
    source = [(100.0, 50.0), (140.0, 80.0), (-1.0, -1.0)]
    target = [(10.0, 10.0), (20.0, 20.0), (-1.0, -1.0)]
    kept, others = without_padding(source, target)
    assert box_side(source) == 141
    assert box_side(kept) == 40
    assert len(kept) == len(others) == 2
    # A point that either image lacks is in neither.
    kept, others = without_padding(source, [(-1.0, -1.0), (20.0, 20.0), (5.0, 5.0)])
    assert kept.tolist() == [[140, 80]]
    assert others.tolist() == [[20, 20]]


def test_lists_of_keypoints_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(2, 2\)"):
        without_padding([(1, 2)], [(1, 2), (3, 4)])
    with pytest.raises(ValueError, match=r"\(0,\)"):
        without_padding([], [])
    assert np.isnan(box_side(np.zeros((0, 2))))


def test_on_the_square_an_error_counts_by_its_share_of_each_side() -> None:
    # 448 x 112: x shrinks to the half, y is doubled; 20 px off in x is right, in y is not.
    true, alpha = np.array([(100.0, 50.0)]), 0.1
    for off, right in (((20.0, 0.0), 1.0), ((0.0, 20.0), 0.0)):
        a, b = on_square(true + off, 448, 112), on_square(true, 448, 112)
        assert pck(point_errors(a, b, 224), [alpha]) == [right]


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_pck_grows_with_alpha_and_does_not_depend_on_the_unit(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    true, found = random.uniform(0, 100, (2, 8, 2))
    scores = pck(point_errors(found, true, 70), (0.05, 0.1, 0.5, 3))
    assert scores == sorted(scores)
    assert scores[-1] == 1
    assert pck(point_errors(found * scale, true * scale, 70 * scale), [0.5]) == scores[2:3]


# --- flow accuracy ---------------------------------------------------------------------------


def test_flow_counts_in_the_foreground_where_it_is_known() -> None:
    true = np.zeros((4, 5, 2))
    true[0, 0], true[0, 1] = 1e10, np.nan  # unknown
    mask = np.zeros((4, 5), np.uint8)
    mask[:2] = 255  # ten pixels, eight of them with flow
    found = np.zeros((4, 5, 2))
    # Allowed: 5% of 200, the longer side of the other image.
    found[1, 0], found[1, 1], found[1, 2] = (10, 0), (6, 8), (10.01, 0)
    found[1, 3] = np.nan
    found[3] = 99  # background
    assert flow_accuracy(found, true, mask, (120, 200)) == pytest.approx(6 / 8)
    assert flow_accuracy(found, true, mask, (200, 120)) == pytest.approx(6 / 8)
    assert flow_accuracy(found, true, mask, (199, 120)) == pytest.approx(4 / 8)


def test_without_any_known_foreground_there_is_no_flow_accuracy() -> None:
    true, mask = np.full((4, 5, 2), 1e10, np.float32), np.ones((4, 5))
    assert np.isnan(flow_accuracy(np.zeros((4, 5, 2)), true, mask, (5, 4)))
    assert np.isnan(flow_accuracy(np.zeros((4, 5, 2)), np.zeros((4, 5, 2)), mask * 0, (5, 4)))


def test_flow_and_mask_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5, 2\).*\(5, 4\)"):
        flow_accuracy(np.zeros((4, 5, 2)), np.zeros((4, 5, 2)), np.ones((5, 4)), (5, 4))


def test_positions_become_flow_in_the_pixels_of_both_images() -> None:
    # From 40 x 20 to 100 x 60: everything stays at its normalised place but moves down by a tenth.
    flow = flow_of(lambda xy: np.add(xy, (0, 0.1)), (20, 40), (100, 60))
    assert flow.shape == (20, 40, 2)
    # The first pixel's centre, (0.5, 0.5), goes to (1.25, 1.5 + 6).
    assert flow[0, 0] == pytest.approx((0.75, 7.0))


def test_a_mirrored_flow_leads_from_each_mirrored_pixel_to_the_same_place() -> None:
    # One row of 4 px; column 1 goes to column 2 of the mirrored other image, which is 10 wide: that
    # is column 7 of the other image as it is. Seen in a mirror column 1 is column 2.
    flow = np.full((1, 4, 2), 1e10)
    flow[0, 1] = (1, 3)
    seen = mirrored_flow(flow, 10)
    assert seen[0, 2].tolist() == [7 - 2, 3]
    assert (np.abs(seen[0, [0, 1, 3]]) >= 1e9).all()
