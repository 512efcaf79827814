"""Each convention of coordinates, pinned by one test: what the line in the docstring says holds."""

import inspect
from collections.abc import Callable
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segswap import geometry
from segswap.matchers import sampling

sides = st.integers(33, 90)
counts = st.integers(1, 9)
shares = st.floats(0, 1)
seeds = st.integers(0, 10_000)


def public_functions(module: ModuleType) -> dict[str, Callable]:
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


@pytest.mark.parametrize("module", [geometry, sampling])
def test_every_public_function_says_its_convention_and_has_a_test(module: ModuleType) -> None:
    functions = public_functions(module)
    assert len(functions) > 5
    for name, function in functions.items():
        lines = [line.strip() for line in (function.__doc__ or "").splitlines()]
        assert any(line.startswith("Convention: ") for line in lines), name
        assert f"test_convention_{name}" in globals(), name


def blob(width: int, height: int, x: float, y: float, sigma: float = 3.0) -> np.ndarray:
    """A Gaussian at a normalised point, sigma in pixels, whose values are at pixels' centres."""
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    squared = (column + 0.5 - x * width) ** 2 + (row + 0.5 - y * height) ** 2
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


def centroid(image: np.ndarray) -> np.ndarray:
    """The centre of mass in pixels, from the image's corner."""
    rows, columns = np.indices(image.shape) + 0.5
    total = image.sum(dtype=np.float64)
    return np.array([(columns * image).sum() / total, (rows * image).sum() / total])


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose channels are every pixel's own column and row: float32 (H, W, 2)."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


# --- points ----------------------------------------------------------------------------------


def test_convention_axis_centres() -> None:
    np.testing.assert_array_equal(geometry.axis_centres(4), [0.125, 0.375, 0.625, 0.875])


def test_convention_axis_places() -> None:
    assert sampling.axis_places(3).tolist() == [0.5, 1.5, 2.5]


@given(counts, counts)
def test_convention_cell_centres(rows: int, columns: int) -> None:
    arrays = geometry.cell_centres(rows, columns)
    assert arrays.shape == (rows, columns, 2)
    np.testing.assert_allclose(arrays[0, 0], (0.5 / columns, 0.5 / rows))
    np.testing.assert_allclose(arrays[-1, 0], (0.5 / columns, 1 - 0.5 / rows))  # x, then y
    tensors = sampling.cell_centres(rows, columns, torch.zeros(1))
    np.testing.assert_allclose(tensors.numpy(), arrays, atol=1e-7)


@given(counts, counts)
def test_convention_cell_places(rows: int, columns: int) -> None:
    places = sampling.cell_places(rows, columns, torch.zeros(1)).numpy()
    np.testing.assert_array_equal(places[-1, -1], (columns - 0.5, rows - 0.5))
    expected = geometry.cell_centres(rows, columns) * (columns, rows)
    np.testing.assert_allclose(places, expected, atol=1e-6)


def test_convention_pixels_from_normalised() -> None:
    matrix = geometry.pixels_from_normalised(400, 100)
    np.testing.assert_allclose(matrix @ (0, 0, 1), (-0.5, -0.5, 1))  # the corner
    np.testing.assert_allclose(matrix @ (0.5 / 400, 0.5 / 100, 1), (0, 0, 1), atol=1e-12)


def test_convention_to_pixels() -> None:
    corners = geometry.to_pixels([(0, 0), (1, 1)], 400, 100)
    np.testing.assert_array_equal(corners, [(-0.5, -0.5), (399.5, 99.5)])
    matrix = geometry.pixels_from_normalised(400, 100)
    points = geometry.cell_centres(3, 5)
    expected = geometry.transform_points(matrix, points)
    np.testing.assert_allclose(geometry.to_pixels(points, 400, 100), expected, atol=1e-12)


@given(sides, sides)
def test_convention_to_normalised(width: int, height: int) -> None:
    points = geometry.to_normalised(coordinates(height, width), width, height)
    np.testing.assert_array_equal(points, geometry.cell_centres(height, width))
    np.testing.assert_allclose(
        geometry.to_pixels(points, width, height), coordinates(height, width), atol=1e-12
    )


@given(sides, sides, shares, shares)
def test_convention_pixel_at(width: int, height: int, x: float, y: float) -> None:
    column, row = geometry.pixel_at((x, y), width, height)
    assert column <= x * width < column + 1
    assert row <= y * height < row + 1
    outside = geometry.pixel_at([(-0.001, 0.5), (1, 1)], width, height)
    np.testing.assert_array_equal(outside, [(-1, height // 2), (width, height)])


def test_convention_inside() -> None:
    points = [(0, 0), (1, 1), (1, 0), (-1e-9, 0.5), (0.5, 1 + 1e-9), (np.nan, 0.5)]
    assert geometry.inside(points).tolist() == [True, True, True, False, False, False]


def test_convention_farthest_points() -> None:
    line = np.array([(0.0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (4, 0)])
    # From the middle to one end, the other end, then between; no place twice.
    assert geometry.farthest_points(line, 3).tolist() in ([2, 0, 4], [2, 4, 0])
    assert len(geometry.farthest_points(line, 100)) == 5
    # x and y count alike.
    chosen = geometry.farthest_points(np.array([(0, 0), (0, -3.0), (2.0, 0), (0, 2.9)]), 2)
    assert chosen.tolist() == [0, 1]
    assert geometry.farthest_points(np.zeros((0, 2)), 3).shape == (0,)


def test_convention_even_points() -> None:
    points = geometry.even_points(1000)
    assert points.shape == (1000, 2)
    assert points[0].tolist() == [0.5, 0.5]
    assert geometry.inside(points).all()
    np.testing.assert_array_equal(geometry.even_points(7), points[:7])
    # Every tenth of the image holds its share, of the first hundred too.
    for count in (100, 1000):
        for axis in (0, 1):
            held = np.histogram(points[:count, axis], 10, (0, 1))[0]
            assert held.min() >= 0.08 * count
            assert held.max() <= 0.12 * count
    assert geometry.even_points(0).shape == (0, 2)


def test_convention_cell_at() -> None:
    places = torch.tensor([(0.0, 0), (3.99, 0.5), (1.0, 1.99), (-5, 1.5), (9, 9)])
    assert sampling.cell_at(places, 2, 4).tolist() == [0, 3, 5, 4, 7]
    inside = geometry.pixel_at(places[:3].numpy() / (4, 2), 4, 2)
    assert (inside[:, 1] * 4 + inside[:, 0]).tolist() == [0, 3, 5]


# --- matrices --------------------------------------------------------------------------------


def test_convention_scaling() -> None:
    np.testing.assert_array_equal(
        geometry.transform_points(geometry.scaling(2, 3), [(0, 0), (1, 1)]), [(0, 0), (2, 3)]
    )


def test_convention_translation() -> None:
    moved = geometry.warp(blob(64, 64, 0.5, 0.5), geometry.translation(0.25, 0.125), 64, 64)
    np.testing.assert_allclose(centroid(moved), (48, 40), atol=0.05)  # right and down


def test_convention_rotation() -> None:
    turned = geometry.transform_points(geometry.rotation(90), [(1, 0), (0, 1), (0, 0)])
    np.testing.assert_allclose(turned, [(0, 1), (-1, 0), (0, 0)], atol=1e-12)


def test_convention_mirroring() -> None:
    mirrored = geometry.transform_points(geometry.mirroring(), [(0, 0.2), (0.3, 1)])
    np.testing.assert_allclose(mirrored, [(1, 0.2), (0.7, 1)], atol=1e-12)
    image = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_allclose(
        geometry.warp(image, geometry.mirroring(), 6, 4), geometry.mirror(image), atol=1e-4
    )


def test_convention_transform_points() -> None:
    matrix = np.array([[2, 0, 1], [0, 3, 0], [0, 0.5, 1.0]])
    np.testing.assert_allclose(geometry.transform_points(matrix, (1, 2)), (3 / 2, 6 / 2))
    points = np.random.default_rng(0).random((4, 5, 2))
    np.testing.assert_array_equal(geometry.transform_points(np.eye(3), points), points)


# --- images ----------------------------------------------------------------------------------


@given(counts, counts, seeds)
def test_convention_sample(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.random((height, width, 3), np.float32)
    at_centres = geometry.sample(image, geometry.cell_centres(height, width))
    np.testing.assert_allclose(at_centres, image, atol=1e-12)
    # Beyond the outermost centres, and outside, the nearest pixel; torch says the same.
    points = random.uniform(-0.3, 1.3, (7, 5, 2))
    held = points.clip(
        (0.5 / width, 0.5 / height), (1 - 0.5 / width, 1 - 0.5 / height)
    )  # fmt: skip
    ours = geometry.sample(image, points)
    np.testing.assert_allclose(ours, geometry.sample(image, held), atol=1e-12)
    maps = torch.from_numpy(image).permute(2, 0, 1)[None]
    theirs = sampling.sample(maps, torch.from_numpy(points).float()[None])
    np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0), atol=1e-5)


@given(shares, shares)
def test_convention_sample_moves_a_blob_to_where_the_points_say(x: float, y: float) -> None:
    image, shift = blob(80, 60, 0.4 + 0.2 * x, 0.4 + 0.2 * y), np.array([0.03, -0.05])
    sampled = geometry.sample(image, geometry.cell_centres(60, 80) + shift)
    expected = centroid(image) - shift * (80, 60)
    np.testing.assert_allclose(centroid(sampled), expected, atol=0.05)


def test_convention_sample_gives_nan_beside_what_is_unknown() -> None:
    image = np.arange(16.0).reshape(4, 4)
    image[1, 2] = np.nan
    points = np.array([(2.2, 1.5), (1.4, 1.5), (np.nan, 0.5)]) / 4
    assert np.isnan(geometry.sample(image, points)).tolist() == [True, False, True]


@given(counts, counts, seeds)
def test_convention_cells_around(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = torch.from_numpy(random.random((1, 1, rows, columns)))
    points = torch.from_numpy(random.uniform(-0.3, 1.3, (1, 6, 5, 2)))
    cells, weights = sampling.cells_around(points, rows, columns)
    assert cells.shape == weights.shape == (1, 6, 5, 4)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1)
    blended = (values.flatten()[cells] * weights).sum(-1)
    np.testing.assert_allclose(blended, sampling.sample(values, points)[:, 0], atol=1e-6)
    # A cell's centre has that cell's weight alone.
    centres = sampling.cell_centres(rows, columns, values).double()
    cells, weights = sampling.cells_around(centres, rows, columns)
    own = torch.where(cells == torch.arange(rows * columns).view(rows, columns, 1), weights, 0)
    np.testing.assert_allclose(own.sum(-1), 1, atol=1e-5)


@given(sides, sides, st.floats(0.6, 1.6), st.floats(0.6, 1.6), st.floats(-180, 180))
def test_convention_warp(
    width: int, height: int, across: float, down: float, degrees: float
) -> None:
    size = 96
    # About the middle, which moves by (0.1, 0.05).
    matrix = (
        geometry.translation(0.6, 0.55) @ geometry.rotation(degrees)
        @ geometry.scaling(across, down) @ geometry.translation(-0.5, -0.5)
    )  # fmt: skip
    image = blob(width, height, 0.55, 0.45, sigma=2)
    warped = geometry.warp(image, matrix, size, size, constant=0)
    expected = geometry.transform_points(matrix, centroid(image) / (width, height)) * size
    np.testing.assert_allclose(centroid(warped), expected, atol=0.05)
    texture = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    np.testing.assert_array_equal(geometry.warp(texture, np.eye(3), width, height), texture)


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_convention_warp_labels(x: int, y: int) -> None:
    labels = np.random.default_rng(0).integers(1, 9, (48, 64)).astype(np.uint8)
    np.testing.assert_array_equal(geometry.warp_labels(labels, np.eye(3), 64, 48), labels)
    moved = geometry.warp_labels(labels, geometry.translation(x / 64, y / 48), 64, 48)
    expected = np.zeros_like(labels)
    expected[max(y, 0) : 48 + y, max(x, 0) : 64 + x] = labels[
        max(-y, 0) : 48 - y, max(-x, 0) : 64 - x
    ]
    np.testing.assert_array_equal(moved, expected)


def test_convention_window_of() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:7, 11:12] = True
    assert geometry.window_of(mask) == (11, 3, 12, 7)
    assert mask[3:7, 11:12].all()
    assert geometry.window_of(~mask) == (0, 0, 30, 20)
    assert geometry.window_of(mask & False) == (0, 0, 0, 0)


def test_convention_cut() -> None:
    image = np.arange(1, 601).reshape(20, 30)
    np.testing.assert_array_equal(geometry.cut(image, (11, 3, 13, 7)), image[3:7, 11:13])
    beyond = geometry.cut(image, (-1, -2, 2, 1))
    np.testing.assert_array_equal(beyond, [[0, 0, 0], [0, 0, 0], [0, 1, 2]])


@given(sides, sides, sides, sides, shares, shares)
def test_convention_resize(
    width: int, height: int, columns: int, rows: int, x: float, y: float
) -> None:
    image = blob(width, height, 0.45 + 0.1 * x, 0.45 + 0.1 * y, sigma=2)
    resized = geometry.resize(image, columns, rows)
    assert resized.shape == (rows, columns)
    expected = centroid(image) * (columns / width, rows / height)
    np.testing.assert_allclose(centroid(resized), expected, atol=0.05)


@given(sides, sides, sides, sides)
def test_convention_mirror(width: int, height: int, columns: int, rows: int) -> None:
    image = coordinates(height, width)
    mirrored = geometry.mirror(image)
    assert mirrored.flags.c_contiguous
    np.testing.assert_array_equal(mirrored[..., 0], width - 1 - image[..., 0])
    np.testing.assert_array_equal(mirrored[..., 1], image[..., 1])
    # Flips and resizes commute to a hundredth of a pixel.
    one = geometry.mirror(geometry.resize(image, columns, rows))
    other = geometry.resize(mirrored, columns, rows)
    assert np.abs(one - other).max() < 0.01


@given(counts, counts, st.integers(1, 5), st.integers(1, 5))
def test_convention_cell_means(rows: int, columns: int, across: int, down: int) -> None:
    image = coordinates(rows * down, columns * across)
    means = geometry.cell_means(image, rows, columns)
    centres = geometry.to_pixels(
        geometry.cell_centres(rows, columns), columns * across, rows * down
    )
    np.testing.assert_allclose(means, centres, atol=1e-3)
    # Three pixels in two cells: the middle one counts half in each.
    line = np.array([[0, 3, 9]], np.float32)
    np.testing.assert_allclose(geometry.cell_means(line, 1, 2), [[1, 7]], atol=1e-5)


def test_opencv_has_its_pixels_centres_at_whole_numbers() -> None:
    """What all of the above rests on."""
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = cv2.warpAffine(image, np.eye(3)[:2], (4, 3), flags=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(same, image)


@given(st.integers(2, 9), st.integers(2, 9), seeds)
def test_convention_to_corners(rows: int, columns: int, seed: int) -> None:
    corners = sampling.to_corners(
        sampling.cell_centres(rows, columns, torch.zeros(1)), rows, columns
    )
    assert corners[0, 0].tolist() == pytest.approx([-1, -1], abs=1e-6)
    assert corners[-1, -1].tolist() == pytest.approx([1, 1], abs=1e-6)
    # torch's own sampler means them so.
    maps = torch.from_numpy(np.random.default_rng(seed).random((1, 1, rows, columns), np.float32))
    theirs = torch.nn.functional.grid_sample(maps, corners[None], align_corners=True)
    np.testing.assert_allclose(theirs, maps, atol=1e-5)


@given(st.integers(2, 9), st.integers(2, 9), seeds)
def test_convention_from_corners(rows: int, columns: int, seed: int) -> None:
    points = torch.from_numpy(np.random.default_rng(seed).uniform(-0.3, 1.3, (6, 5, 2)))
    again = sampling.from_corners(sampling.to_corners(points, rows, columns), rows, columns)
    np.testing.assert_allclose(again, points, atol=1e-12)
