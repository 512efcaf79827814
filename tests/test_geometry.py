"""Coordinates, affine maps, warps: where pixels really go."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segswap import geometry

sides = st.integers(33, 90)
shares = st.floats(0, 1)


@st.composite
def affine_maps(draw: st.DrawFn) -> np.ndarray:
    """Normalised maps: scaled by 0.3 to 3, turned, moved by up to half the frame."""
    zoom = [draw(st.floats(0.3, 3)) for _ in range(2)]
    shift = [draw(st.floats(-0.5, 0.5)) for _ in range(2)]
    turn = geometry.rotation(draw(st.floats(-180, 180)))
    centre = geometry.translation(0.5, 0.5)
    return (
        geometry.translation(*shift)
        @ centre
        @ geometry.scaling(*zoom)
        @ turn
        @ np.linalg.inv(centre)
    )


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose two channels are every pixel's own normalised position: float32 (H, W, 2)."""
    return geometry.cell_centres(height, width).astype(np.float32)


def smooth_image(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.uniform(size=(height, width, 3)).astype(np.float32), (0, 0), 4)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@given(sides, sides)
def test_cell_centres_are_pixel_centres(height: int, width: int) -> None:
    centres = geometry.cell_centres(height, width)
    assert centres.shape == (height, width, 2)
    np.testing.assert_allclose(centres[0, 0], (0.5 / width, 0.5 / height))
    np.testing.assert_allclose(centres[-1, -1], (1 - 0.5 / width, 1 - 0.5 / height))


@given(sides, sides)
def test_opencv_pixels_round_trip(height: int, width: int) -> None:
    to_pixels = geometry.pixels_from_normalised(width, height)
    rows, columns = np.indices((height, width))
    pixels = geometry.transform_points(to_pixels, geometry.cell_centres(height, width))
    np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=-1), atol=1e-9)
    back = geometry.transform_points(np.linalg.inv(to_pixels), pixels)
    np.testing.assert_allclose(back, geometry.cell_centres(height, width), atol=1e-12)


@given(affine_maps(), shares, shares)
def test_transform_points_forward_then_backward_returns(
    matrix: np.ndarray, x: float, y: float
) -> None:
    there = geometry.transform_points(matrix, [x, y])
    np.testing.assert_allclose(
        geometry.transform_points(np.linalg.inv(matrix), there), [x, y], atol=1e-9
    )


def test_transform_points_divides_by_the_third_coordinate() -> None:
    homography = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0, 1.0]])
    np.testing.assert_allclose(geometry.transform_points(homography, [1.0, 1.0]), [2 / 3, 2 / 3])


def test_rotation_turns_right_towards_down() -> None:
    np.testing.assert_allclose(
        geometry.transform_points(geometry.rotation(90), [1, 0]), [0, 1], atol=1e-12
    )


def test_inside_includes_the_edges() -> None:
    points = [[0, 0], [1, 1], [0.5, -1e-6], [1.001, 0.5]]
    np.testing.assert_array_equal(geometry.inside(points), [True, True, False, False])


def test_sample_agrees_with_grid_sample() -> None:
    image = smooth_image(40, 56).astype(np.float32)
    points = np.random.default_rng(1).uniform(0.05, 0.95, (9, 11, 2))
    ours = geometry.sample(image, points)
    theirs = torch.nn.functional.grid_sample(
        torch.from_numpy(image).permute(2, 0, 1)[None],
        torch.from_numpy(2 * points - 1).float()[None],
        align_corners=False,
    )[0].permute(1, 2, 0)
    # OpenCV may round positions to 1/32 px.
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1.0)


@given(sides, sides)
def test_sample_at_the_centres_is_the_image(height: int, width: int) -> None:
    image = smooth_image(height, width)
    sampled = geometry.sample(image, geometry.cell_centres(height, width))
    np.testing.assert_allclose(sampled, image, atol=1e-9)


@given(affine_maps(), sides, sides, sides, sides)
def test_warp_moves_pixels_where_the_matrix_says(
    matrix: np.ndarray, height: int, width: int, rows: int, columns: int
) -> None:
    warped = geometry.warp(coordinates(height, width), matrix, columns, rows)
    expected = geometry.transform_points(
        np.linalg.inv(matrix), geometry.cell_centres(rows, columns)
    )
    # Near the frame's edge the smoothing sees the repeated edge pixel.
    jump = np.abs(matrix[:2, :2]).sum() * max(rows / height, columns / width)
    margin = 0.05 + 3 / min(height, width) / min(1, jump)
    interior = np.all((expected > margin) & (expected < 1 - margin), axis=-1)
    error = np.abs(warped - expected)[interior] * (width, height)
    assert error.max(initial=0) < 0.05  # source pixels


@given(affine_maps(), st.tuples(*[st.integers(0, 79)] * 4))
def test_warp_of_a_window_is_that_part_of_the_whole(
    matrix: np.ndarray, corners: tuple[int, int, int, int]
) -> None:
    left, right = sorted(corners[:2])
    top, bottom = sorted(corners[2:])
    image = smooth_image(64, 50)
    whole = geometry.warp(image, matrix, 80, 80).astype(int)
    window = geometry.warp(image, matrix, 80, 80, window=(left, top, right + 1, bottom + 1))
    part = np.s_[top : bottom + 1, left : right + 1]
    # OpenCV rounds positions to 1/32 px, counted from the window's corner.
    assert np.abs(window[part] - whole[part]).max() <= 4
    window[part] = 0
    assert not window.any()


def test_warp_beyond_the_frame() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    away = geometry.translation(0.5, 0)
    assert (geometry.warp(image, away, 40, 40) == 200).all()
    filled = geometry.warp(image, away, 40, 40, constant=0)
    assert (filled[:, :19] == 0).all()
    assert (filled[:, 21:] == 200).all()
    assert (geometry.warp(image, geometry.translation(7, 0), 40, 40, constant=3) == 3).all()


def test_warp_does_not_alias() -> None:
    """A one-pixel chequerboard shrunk to a quarter is grey, and not a pattern."""
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = geometry.warp(board, np.eye(3), 33, 33)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() < 12


@given(affine_maps())
def test_warp_labels_takes_the_nearest_label(matrix: np.ndarray) -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[10:30, 12:50] = 1
    labels[35:50, 5:20] = 7
    warped = geometry.warp_labels(labels, matrix, 60, 60)
    points = geometry.transform_points(np.linalg.inv(matrix), geometry.cell_centres(60, 60)) * 60
    # Half a pixel is a tie; there either side will do.
    clear = np.abs(points - np.rint(points)).min(axis=-1) > 0.05
    nearest = np.floor(points).astype(int)
    within = np.all((nearest >= 0) & (nearest < 60), axis=-1)
    rows, columns = nearest[..., 1].clip(0, 59), nearest[..., 0].clip(0, 59)
    expected = np.where(within, labels[rows, columns], 0)
    np.testing.assert_array_equal(warped[clear], expected[clear])


@pytest.mark.parametrize(
    ("height", "width"), [(480, 640), (427, 640), (120, 640), (700, 200), (300, 300), (35, 1000)]
)
def test_resize_keeps_every_position(height: int, width: int) -> None:
    """Also where one side grows and the other shrinks."""
    size = 480
    error = geometry.resize(coordinates(height, width), size, size) - coordinates(size, size)
    margin = int(np.ceil(3 * max(1, size / min(height, width), max(height, width) / size)))
    inner = error[margin:-margin, margin:-margin] * size
    assert np.abs(inner).max() < 0.02


@given(sides, sides)
def test_resize_is_the_warp_by_the_identity(height: int, width: int) -> None:
    image = smooth_image(height, width)
    resized = geometry.resize(image, 60, 60).astype(int)
    assert np.abs(resized - geometry.warp(image, np.eye(3), 60, 60)).max() <= 1


def test_resize_to_the_same_size_changes_nothing() -> None:
    image = smooth_image(50, 70)
    np.testing.assert_array_equal(geometry.resize(image, 70, 50), image)


def test_cell_means() -> None:
    mask = np.zeros((64, 64), np.float32)
    mask[:16, :8] = 1
    means = geometry.cell_means(mask, 4, 4)
    assert means[0, 0] == pytest.approx(0.5)
    assert means.sum() == pytest.approx(0.5)
