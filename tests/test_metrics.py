"""Scores are what a ruler would measure; the baseline and the stereo pair are themselves right."""

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import textured
from made_pairs import pasted_pair
from skimage.data import astronaut, stereo_motorcycle
from torch import Tensor

from segswap import geometry
from segswap.baselines import sift
from segswap.matchers.base import Matches, cell_centres
from segswap.metrics import (
    Scores,
    mask_iou,
    mean_scores,
    pck,
    position_errors,
    score_negative,
    score_pair,
)
from segswap.pair import Pair, PairObject
from segswap.prediction import Prediction, enlarge, interpolate
from segswap.score import pair_score
from segswap.stereo import score_stereo

CELLS = 12


def prediction_of(
    matrix: np.ndarray, source_mask: np.ndarray | None = None, target_mask: np.ndarray | None = None
) -> Prediction:
    """An affine map's positions, on a grid, with masks that are full where none is given."""
    centres = geometry.cell_centres(CELLS, CELLS)
    full = np.ones((CELLS, CELLS), np.float32)
    return Prediction(
        geometry.transform(matrix, centres).astype(np.float32),
        geometry.transform(np.linalg.inv(matrix), centres).astype(np.float32),
        full if source_mask is None else source_mask,
        full if target_mask is None else target_mask,
    )


def whole_pair(matrix: np.ndarray | None = None) -> Pair:
    """A pair all of whose pixels are shared."""
    image, mask = textured(64, 64, 0), np.ones((64, 64), np.uint8)
    item = PairObject(1, np.eye(3) if matrix is None else matrix, None, {}, "paste")
    return Pair(0, image, image, mask, mask, (item,))


# --- scores ----------------------------------------------------------------------------------


def test_iou_by_hand() -> None:
    # At one cell a pixel nothing is interpolated across: left half against top half.
    predicted, labels = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.uint8)
    predicted[:, :32], labels[:32] = 1, 3
    assert mask_iou(predicted, labels) == pytest.approx(1 / 3)
    assert mask_iou(predicted, predicted.astype(np.uint8)) == 1
    assert mask_iou(predicted, 1 - predicted.astype(np.uint8)) == 0
    assert np.isnan(mask_iou(0 * predicted, 0 * labels))
    # The threshold is one half.
    assert mask_iou(0.51 * predicted, predicted.astype(np.uint8)) == 1
    assert mask_iou(0.49 * predicted, predicted.astype(np.uint8)) == 0


def test_iou_of_a_coarse_grid_is_that_of_its_enlargement() -> None:
    # The true edge runs between cells, where the enlarged mask crosses one half.
    grid = np.zeros((8, 8), np.float32)
    grid[:, :4] = 1
    labels = np.zeros((64, 64), np.uint8)
    labels[:, :32] = 1
    assert mask_iou(grid, labels) == 1


def test_pck_by_hand() -> None:
    assert pck(np.array([0, 0.01, 0.02, 0.04, 0.2, np.inf])) == pytest.approx([2 / 6, 3 / 6, 4 / 6])
    assert np.isnan(pck(np.zeros(0))).all()


@pytest.mark.parametrize(("off", "expected"), [(0.0, 1), (0.02, 0), (0.029, 0)])
def test_pck_counts_the_distance_as_a_share_of_the_side(off: float, expected: int) -> None:
    scores = score_pair(prediction_of(geometry.translation(off, 0)), whole_pair())
    assert (scores.pck_1, scores.pck_3, scores.pck_5) == (expected, 1, 1)


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
    assert astuple(scores)[:-1] == pytest.approx((1, 1, 1, 1))
    assert np.isnan(scores.false_area)


def test_means_are_taken_over_the_pairs_that_have_a_score() -> None:
    nan = float("nan")
    mean = mean_scores(
        [Scores(1, 0.5, nan, 1, nan), Scores(0, 0, nan, 0, nan), Scores(nan, nan, nan, nan, 0.25)]
    )
    assert astuple(mean) == pytest.approx((0.5, 0.25, nan, 0.5, 0.25), nan_ok=True)


# --- prediction ------------------------------------------------------------------------------


def test_interpolation_is_exact_on_an_affine_field_and_beyond_the_outermost_centres() -> None:
    matrix = geometry.rotation(20) @ geometry.scaling(0.8, 1.3)
    prediction = prediction_of(matrix)
    points = np.array([(0, 0), (1, 1), (0.01, 0.5), (1, 0), (0.33, 0.77)])
    assert np.allclose(prediction.points(points), geometry.transform(matrix, points), atol=1e-6)
    back = geometry.transform(np.linalg.inv(matrix), points)
    assert np.allclose(prediction.points_back(points), back, atol=1e-6)


def test_interpolation_of_a_grid_that_is_not_square() -> None:
    grid = geometry.cell_centres(4, 9).astype(np.float32)
    points = np.random.default_rng(0).uniform(0, 1, (20, 2))
    assert np.allclose(interpolate(grid, points), points, atol=1e-6)
    assert interpolate(grid, np.zeros((0, 2))).shape == (0, 2)


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
    assert (enlarge(np.ones((3, 3), np.float32), 40, 50) == 1).all()


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    prediction = replace(
        prediction_of(geometry.rotation(5)), to_target=np.full((3, 4, 2), np.nan, np.float32)
    )
    prediction.save(tmp_path / "one.npz")
    loaded = Prediction.load(tmp_path / "one.npz")
    for name, array in prediction.__dict__.items():
        assert np.array_equal(getattr(loaded, name), array, equal_nan=True)
        assert getattr(loaded, name).dtype == array.dtype


# --- the score of a pair ---------------------------------------------------------------------


def unit(maps: Tensor) -> Tensor:
    return torch.nn.functional.normalize(maps, dim=1)


def test_score_of_identical_images_with_a_perfect_mask_is_the_number_of_cells() -> None:
    logits, features = torch.full((2, 5, 7), 40.0), unit(torch.randn(2, 6, 5, 7))
    grid = cell_centres(5, 7, logits).expand(2, -1, -1, -1)
    matches = Matches(grid, grid, logits, logits, features, features)
    assert pair_score(matches).tolist() == pytest.approx([35, 35], rel=1e-4)
    assert pair_score(replace(matches, source_logits=-logits)).tolist() == pytest.approx([0, 0])


def test_score_is_its_definition_and_a_target_cell_counts_once() -> None:
    torch.manual_seed(0)
    source, target = (4, 6), (3, 3)
    # 24 source cells land on 9 target cells: several on each.
    matches = Matches(
        torch.rand(2, *source, 2), torch.rand(2, *target, 2), torch.randn(2, *source),
        torch.randn(2, *target), unit(torch.randn(2, 5, *source)), unit(torch.randn(2, 5, *target)),
    )  # fmt: skip
    expected = []
    for item in range(2):
        best = np.zeros(target)
        probabilities = matches.target_logits[item].sigmoid().double().numpy()
        features = matches.target_features[item].double().numpy()
        for row, column in np.ndindex(source):
            x, y = matches.to_target[item, row, column].double().tolist()
            cell_x = np.clip(x * target[1] - 0.5, 0, target[1] - 1)
            cell_y = np.clip(y * target[0] - 0.5, 0, target[0] - 1)
            mask, feature = 0.0, np.zeros(5)
            for r, c in np.ndindex(target):
                weight = max(0, 1 - abs(cell_x - c)) * max(0, 1 - abs(cell_y - r))
                mask += weight * probabilities[r, c]
                feature += weight * features[:, r, c]
            own = float(matches.source_logits[item, row, column].sigmoid())
            own_feature = matches.source_features[item, :, row, column].double().numpy()
            landed = int(y * target[0]), int(x * target[1])
            best[landed] = max(best[landed], own * mask * float(own_feature @ feature))
        expected.append(best.sum())
    assert pair_score(matches).tolist() == pytest.approx(expected, rel=1e-4)


def test_cells_that_crowd_onto_one_target_cell_score_like_one() -> None:
    logits, features = torch.full((1, 4, 4), 40.0), unit(torch.ones(1, 3, 4, 4))
    grid = cell_centres(4, 4, logits)[None]
    crowded = Matches(torch.full_like(grid, 0.4), grid, logits, logits, features, features)
    assert pair_score(crowded).tolist() == pytest.approx([1], rel=1e-4)


# --- the baseline ----------------------------------------------------------------------------


def test_sift_finds_a_known_affine_map_of_a_photograph() -> None:
    photo = geometry.resize(astronaut(), 320, 320)
    matrix = (
        geometry.translation(0.5, 0.45) @ geometry.rotation(15) @ geometry.scaling(0.8, 0.7)
        @ geometry.translation(-0.5, -0.5)
    )  # fmt: skip
    target = geometry.warp(photo, matrix, 280, 360, constant=0)
    found = sift(photo, target)
    centres = geometry.cell_centres(*found.source_mask.shape)
    inside = found.source_mask > 0.5
    assert inside.mean() > 0.3
    error = np.linalg.norm(found.to_target - geometry.transform(matrix, centres), axis=-1)
    assert error.max() < 0.01
    back = np.linalg.norm(
        found.to_source - geometry.transform(np.linalg.inv(matrix), centres), axis=-1
    )
    assert back[found.target_mask > 0.5].max() < 0.01
    # The hull of the target's inliers lies where the photograph was put.
    shown = geometry.inside(geometry.transform(np.linalg.inv(matrix), centres))
    assert (shown | (found.target_mask < 0.5)).mean() > 0.99


def test_sift_says_nothing_of_flat_images() -> None:
    flat = np.full((96, 128, 3), 90, np.uint8)
    for source, target in ((flat, flat), (flat, textured(96, 96, 0)), (textured(96, 96, 0), flat)):
        found = sift(source, target)
        assert np.isnan(found.to_target).all()
        assert np.isnan(found.to_source).all()
        assert not found.source_mask.any()
        assert not found.target_mask.any()


# --- the stereo pair -------------------------------------------------------------------------


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


def perfect_stereo(sign: int) -> Callable[[np.ndarray, np.ndarray], Prediction]:
    """A predictor that knows the disparity, at every pixel."""

    def predict(left: np.ndarray, right: np.ndarray) -> Prediction:
        disparity = np.nan_to_num(stereo_motorcycle()[2], nan=0, posinf=0, neginf=0)
        height, width = disparity.shape
        grid = geometry.cell_centres(height, width).astype(np.float32)
        grid[..., 0] += sign * disparity / width
        mask = np.ones((height, width), np.float32)
        return Prediction(grid, grid, mask, mask)

    return predict


def test_stereo_score_of_the_truth_is_one_and_of_its_opposite_near_none() -> None:
    scores, prediction = score_stereo(perfect_stereo(-1))
    assert astuple(scores) == (1, 1, 1)
    assert prediction.to_target.shape == (*stereo_motorcycle()[2].shape, 2)
    assert astuple(score_stereo(perfect_stereo(1))[0])[0] < 0.1
