"""Scores are what a ruler would measure, and predictions what they say."""

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import textured
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_matches import matches_of
from made_pairs import pasted_pair
from numpy.typing import NDArray
from torch import Tensor

from segswap import geometry
from segswap.data.pair import Pair, PairObject, image_key, share_nothing, shown_images
from segswap.evaluation.metrics import (
    Scores,
    mask_scores,
    mean_scores,
    pck,
    position_errors,
    score_negative,
    score_pair,
)
from segswap.matchers.base import Matches
from segswap.matchers.sampling import cell_centres
from segswap.models.prediction import Prediction, cycle_offsets, enlarge, warp_points
from segswap.models.score import pair_score

CELLS = 12


def prediction_of(
    matrix: np.ndarray, source_mask: np.ndarray | None = None, target_mask: np.ndarray | None = None
) -> Prediction:
    """An affine map's positions, on a grid, with masks that are full where none is given."""
    centres = geometry.cell_centres(CELLS, CELLS)
    full = np.ones((CELLS, CELLS), np.float32)
    return Prediction(
        geometry.transform_points(matrix, centres).astype(np.float32),
        geometry.transform_points(np.linalg.inv(matrix), centres).astype(np.float32),
        full if source_mask is None else source_mask,
        full if target_mask is None else target_mask,
    )


def whole_pair(size: tuple[int, int] = (64, 64)) -> Pair:
    """A pair all of whose pixels are shared, width and height."""
    width, height = size
    image, mask = textured(height, width, 0), np.ones((height, width), np.uint8)
    item = PairObject(1, np.eye(3), None, {}, "paste")
    return Pair(0, image, image, mask, mask, (item,))


# --- scores ----------------------------------------------------------------------------------


def test_mask_scores_by_hand() -> None:
    # At one cell a pixel nothing is interpolated across: left half against the upper quarter.
    predicted, labels = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.uint8)
    predicted[:, :32], labels[:16] = 1, 3
    assert mask_scores(predicted, labels) == pytest.approx((1 / 5, 1 / 4, 1 / 2))
    right = predicted.astype(np.uint8)
    assert mask_scores(predicted, right) == (1, 1, 1)
    assert mask_scores(predicted, 1 - right) == (0, 0, 0)
    # What found nothing is not precise by that; where nothing was to be found, there is no score.
    assert mask_scores(0 * predicted, right) == (0, 0, 0)
    assert np.isnan(mask_scores(predicted, 0 * right)).all()
    # The threshold is one half.
    assert mask_scores(0.51 * predicted, right)[0] == 1
    assert mask_scores(0.49 * predicted, right)[0] == 0


@given(
    arrays(np.bool_, (12, 12)), arrays(np.uint8, (12, 12), elements=st.integers(0, 2))
)  # fmt: skip
def test_mask_scores_fit_each_other(found: np.ndarray, labels: np.ndarray) -> None:
    assume(labels.any())
    iou, precision, recall = mask_scores(found.astype(np.float32), labels)
    assert 0 <= iou <= min(precision, recall) <= max(precision, recall) <= 1
    if iou:
        assert 1 / iou == pytest.approx(1 / precision + 1 / recall - 1)
        swapped = mask_scores((labels > 0).astype(np.float32), found.astype(np.uint8))
        assert swapped == pytest.approx((iou, recall, precision))


def test_mask_scores_of_a_coarse_grid_are_those_of_its_enlargement() -> None:
    # The true edge runs between cells, where the enlarged mask crosses one half.
    grid = np.zeros((8, 8), np.float32)
    grid[:, :4] = 1
    labels = np.zeros((64, 64), np.uint8)
    labels[:, :32] = 1
    assert mask_scores(grid, labels) == (1, 1, 1)


def test_pck_by_hand() -> None:
    assert pck(np.array([0, 0.01, 0.02, 0.04, 0.2, np.inf])) == pytest.approx([2 / 6, 3 / 6, 4 / 6])
    assert np.isnan(pck(np.zeros(0))).all()


@pytest.mark.parametrize(("off", "expected"), [(0.0, 1), (0.02, 0), (0.029, 0)])
def test_pck_counts_the_distance_as_a_share_of_the_side(off: float, expected: int) -> None:
    scores = score_pair(prediction_of(geometry.translation(off, 0)), whole_pair())
    assert (scores.pck_1, scores.pck_3, scores.pck_5) == (expected, 1, 1)


def test_pck_counts_pixels_of_an_oblong_pair_alike_across_and_down() -> None:
    """8 px are 2% of the longer side of 400 x 100, to whichever side they are."""
    for x, y in ((8, 0), (0, 8), (-8, 0)):
        off = prediction_of(geometry.translation(x / 400, y / 100))
        errors = position_errors(off, whole_pair(size=(400, 100)))
        assert len(errors) == 2 * 60 * 60
        assert np.allclose(errors, 0.02, atol=1e-6)
        scores = score_pair(off, whole_pair(size=(400, 100)))
        assert (scores.pck_1, scores.pck_3, scores.pck_5) == (0, 1, 1)


def test_position_errors_are_measured_in_both_directions() -> None:
    off = prediction_of(geometry.translation(0.03, 0.04))
    errors = position_errors(off, whole_pair())
    assert len(errors) == 2 * 60 * 60
    assert np.allclose(errors, 0.05, atol=1e-6)
    half = replace(off, to_source=prediction_of(np.eye(3)).to_source)
    assert np.allclose(position_errors(half, whole_pair())[3600:], 0, atol=1e-6)


def test_positions_are_judged_inside_the_true_masks_alone() -> None:
    pair = pasted_pair()
    right = prediction_of(pair.objects[0].target_from_source)
    errors = position_errors(right, pair)
    inside = ((pair.source_mask > 0).mean() + (pair.target_mask > 0).mean()) * 3600
    assert len(errors) == pytest.approx(inside, rel=0.02)
    assert errors.max() < 1e-6


def test_no_answer_is_infinitely_wrong() -> None:
    none = replace(prediction_of(np.eye(3)), to_target=np.full((CELLS, CELLS, 2), np.nan))
    errors = position_errors(none, whole_pair())
    assert np.isinf(errors[:3600]).all()
    assert np.isfinite(errors[3600:]).all()
    assert score_pair(none, whole_pair()).pck_5 == 0.5


def test_false_area_is_the_mean_share_of_both_images() -> None:
    source, target = np.zeros((2, CELLS, CELLS), np.float32)
    source[:3], target[:, :6] = 0.6, 0.4
    scores = score_negative(prediction_of(np.eye(3), source, target))
    assert scores.false_area == pytest.approx(0.125)
    assert np.isnan(astuple(scores)[:-1]).all()


def test_perfect_prediction_of_a_pair_scores_one() -> None:
    pair = pasted_pair()
    masks = [
        geometry.cell_means((mask > 0).astype(np.float32), 96, 96)
        for mask in (pair.source_mask, pair.target_mask)
    ]
    scores = score_pair(prediction_of(pair.objects[0].target_from_source, *masks), pair)
    assert astuple(scores)[:-1] == pytest.approx((1,) * 6)
    assert np.isnan(scores.false_area)


def test_means_are_taken_over_the_pairs_that_have_a_score() -> None:
    nan = float("nan")
    mean = mean_scores(
        [Scores(1, 1, 0, 0.5, nan, 1, nan), Scores(0, 1, nan, 0, nan, 0, nan),
         Scores(nan, nan, nan, nan, nan, nan, 0.25)]
    )  # fmt: skip
    assert astuple(mean) == pytest.approx((0.5, 1, 0, 0.25, nan, 0.5, 0.25), nan_ok=True)


# --- prediction ------------------------------------------------------------------------------


def test_points_between_cells_follow_an_affine_map() -> None:
    matrix = geometry.rotation(20) @ geometry.scaling(0.8, 1.3)
    prediction = prediction_of(matrix)
    points = np.array([(0.05, 0.95), (0.1, 0.5), (0.9, 0.06), (0.33, 0.77)])
    expected = geometry.transform_points(matrix, points)
    assert np.allclose(prediction.points(points), expected, atol=1e-6)
    back = geometry.transform_points(np.linalg.inv(matrix), points)
    assert np.allclose(prediction.points_back(points), back, atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_identity_and_translations_are_exact_up_to_the_frame_and_beyond(
    rows: int, columns: int, x: float, y: float
) -> None:
    shift = np.array([x, y])
    positions = (geometry.cell_centres(rows, columns) + shift).astype(np.float32)
    points = np.random.default_rng(0).uniform(-0.2, 1.2, (20, 2))
    points[:2] = (0, 0), (1, 1)
    assert np.allclose(warp_points(positions, points), points + shift, atol=1e-6)
    assert warp_points(positions, np.zeros((0, 2))).shape == (0, 2)


def test_beyond_the_outermost_centres_the_nearest_cell_moves_a_point() -> None:
    positions = prediction_of(geometry.scaling(2, 1)).to_target
    # The outermost centre, at 0.5 / 12, moves to the right by as much.
    assert np.allclose(warp_points(positions, (0.0, 0.5)), (0.5 / 12, 0.5), atol=1e-6)


def test_points_beside_a_cell_without_an_answer_have_none() -> None:
    positions = geometry.cell_centres(4, 4)
    positions[1, 2] = np.nan
    points = np.array([(2.5, 1.5), (2.0, 1.9), (1.4, 1.5), (3.6, 3.6)]) / 4
    unknown = np.isnan(warp_points(positions, points)).all(axis=1)
    assert unknown.tolist() == [True, True, False, False]
    assert np.isnan(warp_points(geometry.cell_centres(4, 4), (np.nan, 0.5))).any()


def test_the_way_there_and_back_is_measured_in_cells() -> None:
    there = geometry.cell_centres(4, 8) + np.array([0.5, 0])
    back = geometry.cell_centres(6, 6) - (0.25, 0.25)
    offsets = cycle_offsets(there, back)
    assert np.allclose(offsets[:, :4], (0.25 * 8, -0.25 * 4))
    assert np.isnan(offsets[:, 4:]).all()  # these leave the other image
    # From places between the centres, too; one of them leaves the other image.
    points = np.array([(0.2, 0.5), (0.4, 0.1), (0.6, 0.5)])
    offsets = cycle_offsets(there, back, points)
    assert np.allclose(offsets[:2], (0.25 * 8, -0.25 * 4))
    assert np.isnan(offsets[2]).all()
    back[:] = np.nan
    assert np.isnan(cycle_offsets(there, back)).all()


@pytest.mark.parametrize("shape", [(2,), (3, 3), (2, 5, 2), (2, 1)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        prediction_of(np.eye(3)).points(np.zeros(shape))


def test_enlarged_mask_keeps_values_and_place() -> None:
    mask = np.zeros((6, 6), np.float32)
    mask[1, 4] = 1
    large = enlarge(mask, width=90, height=60)
    assert large.shape == (60, 90)
    assert large.dtype == np.float32
    assert (large.min(), large.max()) == pytest.approx((0, 1), abs=0.11)
    rows, columns = np.mgrid[:60, :90]
    # Its centre of mass is the cell's centre.
    assert np.average(rows + 0.5, weights=large) / 60 == pytest.approx(1.5 / 6, abs=1e-3)
    assert np.average(columns + 0.5, weights=large) / 90 == pytest.approx(4.5 / 6, abs=1e-3)
    assert np.allclose(enlarge(np.ones((3, 3), np.float32), 40, 50), 1)


@pytest.mark.parametrize("shape", [(7, 5), (40, 40), (31, 53)])
@pytest.mark.parametrize("size", [(90, 60), (17, 23), (101, 7), (3, 3), (1, 1)])
def test_enlarged_masks_are_bilinear_at_the_pixels_centres(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """Where an image has fewer pixels than the mask has cells, too."""
    mask = np.random.default_rng(0).random(shape, np.float32)
    expected = geometry.sample(mask, geometry.cell_centres(size[1], size[0]))
    np.testing.assert_allclose(enlarge(mask, *size), expected, atol=1e-5)


@pytest.mark.parametrize("same", [None, np.eye(4, dtype=np.float32)[:3]])
def test_predictions_come_back_from_their_file(
    same: NDArray[np.float32] | None, tmp_path: Path
) -> None:
    prediction = replace(
        prediction_of(geometry.rotation(5)), to_target=np.full((3, 4, 2), np.nan, np.float32),
        source_mask=np.zeros((3, 4), np.float32), source_same=same, target_same=same,
    )  # fmt: skip
    prediction.save(tmp_path / "one.npz")
    loaded = Prediction.load(tmp_path / "one.npz")
    for name, array in vars(prediction).items():
        if array is None:
            assert getattr(loaded, name) is None
            continue
        assert np.array_equal(getattr(loaded, name), array, equal_nan=True)
        assert getattr(loaded, name).dtype == array.dtype


@pytest.mark.parametrize("content", [None, b"", b"PK", "cut", "text", "shapes", "less"])
def test_what_is_no_whole_prediction_is_refused(
    content: bytes | str | None, tmp_path: Path
) -> None:
    path, prediction = tmp_path / "one.npz", prediction_of(np.eye(3))
    prediction.save(path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif content == "text":
        path.write_text("{}")
    elif content == "shapes":
        replace(prediction, source_mask=np.zeros((3, 3, 1), np.float32)).save(path)
    elif content == "less":
        np.savez(path, to_target=prediction.to_target)
    elif content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"one\.npz cannot be read as a prediction"):
        Prediction.load(path)


# --- the score of a pair ---------------------------------------------------------------------


def unit(maps: Tensor) -> Tensor:
    return torch.nn.functional.normalize(maps, dim=1)


def test_score_of_identical_images_with_a_perfect_mask_is_the_number_of_cells() -> None:
    logits, features = torch.full((2, 5, 7), 40.0), unit(torch.randn(2, 6, 5, 7))
    grid = cell_centres(5, 7, logits).expand(2, -1, -1, -1)
    matches = matches_of(grid, grid, logits, logits, features, features)
    assert pair_score(matches).tolist() == pytest.approx([35, 35], rel=1e-4)
    unshared = Matches(replace(matches.source, mask_logits=-logits), matches.target)
    assert pair_score(unshared).tolist() == pytest.approx([0, 0])


def test_cells_that_crowd_onto_one_target_cell_score_like_one() -> None:
    logits, features = torch.full((1, 4, 4), 40.0), unit(torch.ones(1, 3, 4, 4))
    grid = cell_centres(4, 4, logits)[None]
    crowded = matches_of(torch.full_like(grid, 0.4), grid, logits, logits, features, features)
    assert pair_score(crowded).tolist() == pytest.approx([1], rel=1e-4)


def test_pairs_share_nothing_where_no_image_is_in_both() -> None:
    def pair(segment: str | None, background: str | None) -> Pair:
        def origin(name: str | None) -> dict[str, str]:
            return {} if name is None else {"dataset": "photos", "image": name}

        made = pasted_pair()
        item = replace(made.objects[0], segment=origin(segment))
        return replace(made, objects=(item,), background=origin(background))

    assert share_nothing(pair("cat", "tree"), pair("dog", "house"))
    assert share_nothing(pair("cat", "tree"), pair("dog", "tree"))  # the source shows no tree
    assert not share_nothing(pair("cat", "tree"), pair("dog", "cat"))
    assert not share_nothing(pair("cat", "tree"), pair("cat", "house"))
    assert share_nothing(pair(None, None), pair(None, None))  # nothing recorded, nothing known


def test_photographs_are_told_by_their_hash_and_without_one_by_name() -> None:
    named, hashed = {"dataset": "photos", "image": "cat.jpg"}, {"dataset": "copies", "image": "1"}
    assert image_key(named) == image_key({**named, "annotation": 7})
    assert image_key(named) not in (None, image_key({**named, "dataset": "others"}))
    assert image_key({**named, "sha256": "ab"}) == image_key({**hashed, "sha256": "ab"}) == "ab"
    assert image_key({**named, "sha256": "cd"}) != "ab"
    assert image_key({}) is None
    assert image_key({"dataset": "photos"}) is None
    item = replace(pasted_pair().objects[0], segment={**named, "sha256": "ab"})
    old = replace(item, label=2, segment=named)
    made = replace(pasted_pair(), objects=(item, old), background={**hashed, "sha256": "cd"})
    source = {"ab", image_key(named)}
    assert shown_images(made) == (source, {*source, "cd"})
    unknown = replace(made, objects=(replace(item, segment={}),), background={})
    assert shown_images(unknown) == (set(), set())
