"""Match.matches, homography and draw: what a user takes on to OpenCV."""

import os
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_plane import CELLS, SIZES, in_pixels, match_of, plane_prediction
from numpy.typing import NDArray

import segswap
from generators.sources.photos import persons
from segswap import geometry
from segswap.evaluation.planar import read_homography
from segswap.files.images import read_image
from segswap.models.match import Correspondences
from segswap.models.model import Model

DATA = Path(os.environ.get("SEGSWAP_DATA", Path(__file__).parents[2] / "../shared/data"))
GRAF = DATA / "benchmarks" / "oxford_graf"
MOVED = geometry.translation(0.1, -0.05) @ geometry.scaling(0.8, 0.9)


@pytest.fixture(scope="module")
def base() -> Model:
    return segswap.load()


def box_mask(left: int, top: int, right: int, bottom: int) -> NDArray[np.float32]:
    mask = np.zeros((CELLS, CELLS), np.float32)
    mask[top:bottom, left:right] = 1
    return mask


def inside_the_centres(points: NDArray) -> NDArray[np.bool_]:
    """Which normalised points lie between centres of cells: beyond, points move as the nearest."""
    return ((points >= 0.5 / CELLS) & (points <= 1 - 0.5 / CELLS)).all(axis=-1)


def check(found: Correspondences) -> None:
    """What holds of all: types, shapes, and that every number is one."""
    for array, shape in (
        (found.source, (len(found), 2)), (found.target, (len(found), 2)),
        (found.confidence, (len(found),)),
    ):  # fmt: skip
        assert array.dtype == np.float64
        assert array.shape == shape
        assert np.isfinite(array).all()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    for points, size in zip((found.source, found.target), SIZES, strict=True):
        assert ((points >= -0.5) & (points <= np.array(size) - 0.5)).all()


# --- matches of a plane ----------------------------------------------------------------------


def test_matches_are_in_opencvs_pixels_of_both_images() -> None:
    found = match_of(plane_prediction(MOVED)).matches()
    check(found)
    assert len(found) == 1000
    expected = geometry.transform_points(in_pixels(MOVED), found.source)
    inner = inside_the_centres(geometry.to_normalised(found.source, *SIZES[0]))
    assert inner.sum() > 850
    np.testing.assert_allclose(found.target[inner], expected[inner], atol=1e-3)
    assert np.abs(found.target - expected).max() < 3
    assert np.median(found.confidence) > 0.999
    # The first is the middle: of 400 columns, half way between the centres of 199 and 200.
    np.testing.assert_allclose(found.source[0], (199.5, 149.5))
    matrix, inliers = cv2.findHomography(found.source, found.target, cv2.RANSAC)
    assert inliers.all()
    np.testing.assert_allclose(matrix, in_pixels(MOVED), atol=0.5)


@given(
    left=st.integers(0, 14), top=st.integers(0, 14), width=st.integers(1, 16),
    height=st.integers(1, 16), count=st.integers(0, 3000), x=st.floats(-0.6, 0.6),
    scale=st.floats(0.5, 2), turn=st.floats(-40, 40),
)  # fmt: skip
def test_matches_begin_and_end_in_the_masks(
    left: int, top: int, width: int, height: int, count: int, x: float, scale: float, turn: float
) -> None:
    middle = geometry.translation(0.5, 0.5)
    matrix = (
        geometry.translation(x, 0) @ middle @ geometry.rotation(turn)
        @ geometry.scaling(scale, scale) @ np.linalg.inv(middle)
    )  # fmt: skip
    prediction = plane_prediction(matrix, box_mask(left, top, left + width, top + height))
    found = match_of(prediction).matches(count)
    check(found)
    assert len(found) <= count
    start = geometry.to_normalised(found.source, *SIZES[0])
    end = geometry.to_normalised(found.target, *SIZES[1])
    assert (geometry.sample(prediction.source_mask, start) > 0.5 - 1e-6).all()
    assert (geometry.sample(prediction.target_mask, end) > 0.5 - 1e-6).all()
    inner = inside_the_centres(start)
    truth = geometry.transform_points(matrix, start)
    np.testing.assert_allclose(end[inner], truth[inner], atol=1e-4)


@pytest.mark.parametrize("count", [100, 1000, 5000])
def test_matches_are_spread_evenly_also_the_first_hundred(count: int) -> None:
    mask = box_mask(2, 4, 12, 14)
    found = match_of(plane_prediction(np.eye(3), mask)).matches(count)
    assert len(found) == count
    low, high = np.array([2, 4]) / CELLS, np.array([12, 14]) / CELLS
    inside = (geometry.to_normalised(found.source, *SIZES[0])[:100] - low) / (high - low)
    boxes = np.zeros((5, 5), int)
    np.add.at(boxes, tuple((inside * 5).clip(0, 4).astype(int).T), 1)
    assert boxes.min() >= 2
    assert boxes.max() <= 7
    # Nor are two of them in one place: in a lattice they would be 1 apart.
    spacing = np.sqrt(np.prod(np.array(SIZES[0]) * (high - low)) / count)
    near = [np.sort(np.linalg.norm(found.source - point, axis=1))[1] for point in found.source]
    assert min(near) > 0.4 * spacing


def test_small_and_distant_parts_of_a_mask_have_matches() -> None:
    mask = np.maximum(box_mask(0, 0, 1, 1), box_mask(14, 14, 16, 16))
    found = match_of(plane_prediction(np.eye(3), mask)).matches(200)
    upper = (found.source < 100).all(axis=1).mean()
    assert len(found) == 200
    assert 0.1 < upper < 0.4  # a fifth of the area


def test_there_are_never_more_than_pixels() -> None:
    match = match_of(plane_prediction(np.eye(3), box_mask(5, 5, 6, 6)))
    assert 0 < len(match.matches(10**6)) <= (match.source_mask > 0.5).sum()


def test_what_does_not_come_back_is_no_match_and_what_nearly_does_is_less_sure() -> None:
    prediction = plane_prediction(np.eye(3))
    back = prediction.to_source.copy()
    back[:, :8, 0] += 3 / CELLS
    back[:, 8:, 0] += 0.4 / CELLS
    found = match_of(replace(prediction, to_source=back)).matches()
    check(found)
    # Between the halves the ways back are mixed.
    assert (found.source[:, 0] > 180).all()
    right = found.source[:, 0] > 220
    assert right.sum() > 900
    np.testing.assert_allclose(found.confidence[right], 0.6, atol=1e-3)


def test_confidence_is_that_of_the_very_same_thing() -> None:
    found = match_of(plane_prediction(np.eye(3), same=0.03)).matches()
    assert len(found) == 1000
    np.testing.assert_allclose(found.confidence, 0.03, atol=1e-4)
    # Of two images that tell differently, the one that is less sure counts.
    prediction = plane_prediction(np.eye(3), same=0.9)
    assert prediction.target_same is not None
    other = replace(prediction, target_same=prediction.target_same * np.float32(0.5))
    np.testing.assert_allclose(match_of(other).matches().confidence, 0.45, atol=1e-4)


@pytest.mark.parametrize("hidden", ["source_mask", "target_mask", "to_target", "to_source"])
def test_where_nothing_is_found_there_is_no_match_and_no_homography(hidden: str) -> None:
    prediction = plane_prediction(np.eye(3))
    nothing = 0 if "mask" in hidden else np.float32(np.nan)
    match = match_of(replace(prediction, **{hidden: getattr(prediction, hidden) * nothing}))
    found = match.matches()
    check(found)
    assert len(found) == 0
    matrix, inliers = match.homography()
    assert matrix is None
    assert inliers.shape == (0,)
    assert match.draw().dtype == np.uint8


def test_a_count_below_none_is_refused() -> None:
    match = match_of(plane_prediction(np.eye(3)))
    assert len(match.matches(0)) == 0
    with pytest.raises(ValueError, match="count is -1"):
        match.matches(-1)


def test_a_thousand_matches_take_milliseconds() -> None:
    match, took = match_of(plane_prediction(MOVED)), []
    for _ in range(5):
        start = time.perf_counter()
        match.matches(1000)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05


def test_homography_and_inliers_are_those_of_the_matches() -> None:
    prediction = plane_prediction(geometry.translation(0.1, 0.1))
    # The upper quarter goes elsewhere, there and back.
    there, back = prediction.to_target.copy(), prediction.to_source.copy()
    there[:4] -= (0.1, 0.1)
    back[:4] += (0.1, 0.1)
    match = match_of(replace(prediction, to_target=there, to_source=back))
    found, (matrix, inliers) = match.matches(400), match.homography(400)
    assert matrix is not None
    assert inliers.shape == (len(found),)
    truth = in_pixels(geometry.translation(0.1, 0.1))
    moved = geometry.transform_points(truth, found.source)
    np.testing.assert_allclose(geometry.transform_points(matrix, found.source), moved, atol=0.5)
    right = np.linalg.norm(moved - found.target, axis=1) < 1
    assert 0.6 < right.mean() < 0.95
    # Between the two parts some are off by about the threshold.
    assert (inliers != right).mean() < 0.02
    assert match.homography(3)[0] is None
    with pytest.raises(ValueError, match="threshold is 0"):
        match.homography(threshold=0)


# --- matches of pictures ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["segswap-base", "segswap-tiny"])
def test_matches_of_a_wall_give_its_homography(name: str) -> None:
    if not GRAF.is_dir():
        pytest.skip(f"needs the pictures of {GRAF}; SEGSWAP_DATA names another folder")
    match = segswap.load(name).match(GRAF / "img1.png", GRAF / "img2.png")
    found = match.matches()
    truth = read_homography(GRAF / "H1to2p")
    corners = np.array([(0, 0), (799, 0), (799, 639), (0, 639)])
    ransac, _ = cv2.findHomography(found.source, found.target, cv2.RANSAC)
    own, inliers = match.homography()
    for matrix in (ransac, own):
        off = geometry.transform_points(matrix, corners) - geometry.transform_points(truth, corners)
        assert np.linalg.norm(off, axis=1).mean() < 8  # 1% of the width
    assert inliers.mean() > 0.7
    error = np.linalg.norm(geometry.transform_points(truth, found.source) - found.target, axis=1)
    assert np.median(error) < 4
    # Confidence tells the good ones.
    assert np.median(error[found.confidence > 0.9]) < np.median(error[found.confidence < 0.6])


def test_two_persons_have_matches_that_are_hardly_the_very_same(base: Model) -> None:
    for one, other in combinations(range(3), 2):
        found = base.match(persons()[one], persons()[other]).matches()
        assert len(found) > 100
        assert (found.confidence > 0.5).mean() < 0.01
        assert np.median(found.confidence) < 0.05


def test_a_photograph_and_its_crop_have_sure_matches(base: Model) -> None:
    image = read_image(persons()[0])
    match = base.match(image, np.ascontiguousarray(image[40:472, 60:492]))
    found = match.matches()
    assert np.median(found.confidence) > 0.8
    assert np.median(np.abs(found.source - (60, 40) - found.target)) < 1.5
    matrix, inliers = match.homography()
    assert inliers.mean() > 0.8
    np.testing.assert_allclose(matrix, geometry.translation(-60, -40), atol=5)


@pytest.mark.parametrize("colours", [(0, 0), (128, 128), (0, 255)])
def test_blank_images_have_no_matches(base: Model, colours: tuple[int, int]) -> None:
    match = base.match(*(np.full((200, 300, 3), colour, np.uint8) for colour in colours))
    assert len(match.matches()) == 0
    assert match.homography()[0] is None
    assert match.draw().shape[0] == 320


def test_a_match_knows_its_images_and_draws_them(base: Model) -> None:
    first, second = (read_image(path) for path in persons()[:2])
    match = base.match(first, second)
    assert match.source_image is first
    assert match.target_image is second
    picture, bare = match.draw(points=5, height=100), match.draw(points=0, height=100)
    found = match.matches(5)
    assert len(found) == 5
    width = round(first.shape[1] * 100 / first.shape[0])  # of the source in the picture
    sides = (found.source, first, 0), (found.target, second, width + 8)
    for places, image, left in sides:  # both ends of each match are in the picture
        for x, y in np.rint(places * 100 / image.shape[0]).astype(int):
            around = np.s_[max(0, y - 2) : y + 3, left + x - 2 : left + x + 3]
            assert (picture[around] != bare[around]).any()
    # Not thousands of pixels where somebody prints it.
    assert "source_image" not in repr(match)
