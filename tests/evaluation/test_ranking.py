"""Average precision, detections, categories, places: cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segswap.evaluation.ranking import (
    average_precision,
    detection_ap,
    mean_by_category,
    one_per_place,
    recall_at,
)

# --- average precision -----------------------------------------------------------------------


def test_average_precision_is_the_mean_of_the_precisions_at_the_relevant_ranks() -> None:
    # Relevant at ranks 1, 3 and 4 of 5: precisions 1, 2/3, 3/4.
    assert average_precision([7, 2, 9, 4, 1], {7, 9, 4}) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_a_relevant_image_that_is_not_ranked_counts_with_precision_0() -> None:
    assert average_precision([7, 2], {7, 9}) == 0.5
    assert average_precision([], {7}) == 0


def test_average_precision_of_nothing_relevant_is_unknown() -> None:
    assert np.isnan(average_precision([1, 2], set()))
    assert np.isnan(average_precision([1, 2], {1}, own=1))


def test_the_querys_own_image_takes_no_rank_and_is_not_wanted() -> None:
    # Without image 5, the ranking is 3, 8: 8 is relevant at rank 2.
    assert average_precision([5, 3, 8], {5, 8}, own=5) == 0.5
    assert average_precision([5, 3, 8], {5, 8}) == pytest.approx((1 + 2 / 3) / 2)


@given(st.sets(st.integers(0, 19), min_size=1), st.permutations(range(20)))
def test_average_precision_is_1_exactly_where_all_relevant_come_first(
    relevant: set[int], ranking: list[int]
) -> None:
    value = average_precision(ranking, relevant)
    first = set(ranking[: len(relevant)]) == relevant
    assert 0 < value <= 1
    assert (value == pytest.approx(1)) == first


@given(st.sets(st.integers(0, 19), min_size=1), st.permutations(range(20)), st.integers(0, 18))
def test_average_precision_never_falls_when_a_relevant_image_moves_up(
    relevant: set[int], ranking: list[int], place: int
) -> None:
    before = average_precision(ranking, relevant)
    if ranking[place + 1] in relevant:
        ranking[place], ranking[place + 1] = ranking[place + 1], ranking[place]
    assert average_precision(ranking, relevant) >= before - 1e-12


def test_mean_is_over_queries_of_a_category_and_then_over_categories() -> None:
    values, categories = [1.0, 0.5, 0.0, 0.2], ["cat", "cat", "cat", "dog"]
    assert mean_by_category(values, categories) == pytest.approx((0.5 + 0.2) / 2)
    assert mean_by_category([1.0, float("nan")], ["cat", "dog"]) == 1
    assert np.isnan(mean_by_category([float("nan")], ["cat"]))


# --- detections ------------------------------------------------------------------------------


def test_an_empty_box_is_no_detection_and_hides_none() -> None:
    empty, whole = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 2.0, 2.0)
    assert detection_ap([(1, empty)], {1: [empty]}) == 0
    # The box that is right comes second: 1 / 2 found at a precision of 1 / 2.
    assert detection_ap([(1, empty), (1, whole)], {1: [empty, whole]}) == 0.25


def test_a_detection_counts_above_an_overlap_of_three_tenths() -> None:
    # Boxes of area 10 that share 6/13 ... of their sides: overlap 0.3 exactly is not enough.
    truth = {1: [(0.0, 0.0, 10.0, 1.0)]}
    exactly = 10 * 2 * 0.3 / 1.3  # common length c: c / (20 - c) = 0.3
    for more, value in ((-1e-6, 0.0), (1e-6, 1.0)):
        start = 10 - exactly - more
        assert detection_ap([(1, (start, 0.0, start + 10, 1.0))], truth) == value


def test_detection_ap_ranks_boxes_and_passes_over_images_without_one() -> None:
    here, elsewhere = (0.0, 0.0, 4.0, 4.0), (9.0, 9.0, 12.0, 12.0)
    truth = {1: [here], 2: [here], 3: [here]}
    # Ranks of boxes: 1 right, 4 wrong, 2 in the wrong place, 3 right (rank 4).
    ranking = [(1, here), (4, here), (6, None), (2, elsewhere), (3, here)]
    assert detection_ap(ranking, truth) == pytest.approx((1 + 2 / 4) / 3)
    # The query's own image takes no rank; its box is not to be found.
    assert detection_ap(ranking, truth, own=1) == pytest.approx((1 / 3) / 2)
    assert detection_ap([(1, None)], truth) == 0
    assert np.isnan(detection_ap(ranking, {}))


def test_each_true_box_is_found_once_and_all_of_them_are_wanted() -> None:
    left, right = (0.0, 0.0, 4.0, 4.0), (10.0, 0.0, 14.0, 4.0)
    assert detection_ap([(1, left)], {1: [right, left]}) == 0.5
    assert detection_ap([(1, left), (1, left)], {1: [left]}) == 1


# --- places ----------------------------------------------------------------------------------


def test_recall_is_the_share_of_queries_with_a_near_image_among_the_first() -> None:
    database = [(0.0, 0.0), (100.0, 0.0), (0.0, 25.0), (500.0, 500.0)]
    queries = [(0.0, 0.0), (100.0, 15.0), (900.0, 0.0)]
    rankings = [[1, 3, 2], [1, 0, 2], [0, 1, 2]]
    # Query 0 finds image 2, exactly 25 m away, at rank 3; query 1 is right at once; query 2 has no
    # image near and counts all the same.
    found = recall_at(rankings, queries, database, ranks=(1, 2, 3))
    assert found == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 2 / 3})


def test_an_image_just_over_25_m_away_is_no_hit_and_short_rankings_are_taken_as_they_are() -> None:
    assert recall_at([[0]], [(0.0, 0.0)], [(25.001, 0.0)]) == {1: 0, 5: 0, 10: 0}
    assert recall_at([[0]], [(0.0, 0.0)], [(25.0, 0.0)]) == {1: 1, 5: 1, 10: 1}
    assert recall_at([[]], [(0.0, 0.0)], [(0.0, 0.0)]) == {1: 0, 5: 0, 10: 0}
    assert all(np.isnan(value) for value in recall_at([], np.zeros((0, 2)), [(0, 0)]).values())


def test_of_one_place_only_the_best_ranked_image_stays() -> None:
    places = np.arange(48) // 12
    assert one_per_place([13, 12, 40, 0, 11, 47, 24], places) == [13, 40, 0, 24]


def test_suppression_lets_a_right_place_move_up() -> None:
    # Eleven views of a wrong place, then the right one.
    database = [(0.0, 0.0)] * 12 + [(1000.0, 0.0)] * 12
    ranking = [*range(11), 12]
    query = [(1000.0, 3.0)]
    assert recall_at([ranking], query, database)[5] == 0
    assert recall_at([one_per_place(ranking, np.arange(24) // 12)], query, database)[5] == 1
