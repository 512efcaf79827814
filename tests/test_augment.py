"""Augmentation keeps the ground truth: splines and warps invert, photometry moves nothing."""

import random

import numpy as np
import pytest
from conftest import textured
from hypothesis import given
from hypothesis import strategies as st
from made_pairs import soft_texture

from segswap import geometry
from segswap.augment import Spline, Warp, photometric, random_spline

SIDE = 480  # pixels of the images that the tolerances below are meant for
seeds = st.integers(0, 2**32)


def warp_of(seed: int, mirrored: bool, bent: bool) -> Warp:
    return Warp(mirrored, random_spline(np.random.default_rng(seed)) if bent else None)


@given(seeds)
def test_spline_maps_control_points_to_their_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    controls = np.stack(np.meshgrid(*[np.linspace(0, 1, 4)] * 2), axis=-1).reshape(-1, 2)
    images = controls + rng.uniform(-0.1, 0.1, controls.shape)
    spline = Spline.through(controls, images)
    assert np.abs(spline(controls) - images).max() < 1e-9
    assert np.abs(spline.inverse(images) - controls).max() < 1e-9


def test_spline_through_an_affine_map_is_that_map() -> None:
    controls = np.random.default_rng(0).uniform(0, 1, (9, 2))
    matrix = geometry.rotation(20) @ geometry.scaling(0.5, 2)
    points = geometry.cell_centres(5, 7)
    spline = Spline.through(controls, geometry.transform(matrix, controls))
    assert np.allclose(spline(points), geometry.transform(matrix, points), atol=1e-9)


def test_jacobian_is_the_derivative() -> None:
    spline, points = random_spline(np.random.default_rng(3)), geometry.cell_centres(6, 6)
    flat, step = points.reshape(-1, 2), 1e-6
    numerical = np.stack(
        [(spline(flat + step * axis) - spline(flat - step * axis)) / (2 * step)
         for axis in np.eye(2)], axis=-1,
    )  # fmt: skip
    assert np.abs(spline._jacobian(flat) - numerical).max() < 1e-6


@given(seeds)
def test_random_spline_moves_points_a_little_but_does_move_them(seed: int) -> None:
    points = geometry.cell_centres(12, 12)
    moved = np.abs(random_spline(np.random.default_rng(seed))(points) - points)
    # A control point of the 4 x 4 grid moves by at most 1/16 of the side.
    assert 0.002 < moved.max() < 0.12


@given(seeds, st.booleans(), st.booleans())
def test_warp_there_and_back_is_under_a_twentieth_of_a_pixel(
    seed: int, mirrored: bool, bent: bool
) -> None:
    warp, points = warp_of(seed, mirrored, bent), geometry.cell_centres(20, 20)
    # The rim is part of it: corners and edges of the frame.
    points = np.concatenate([points.reshape(-1, 2), [(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0)]])
    there_and_back = warp.from_original(warp.to_original(points))
    back_and_there = warp.to_original(warp.from_original(points))
    assert np.abs(there_and_back - points).max() * SIDE < 0.05
    assert np.abs(back_and_there - points).max() * SIDE < 0.05


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("bent", [False, True])
def test_warped_image_shows_the_original_at_to_original(mirrored: bool, bent: bool) -> None:
    image = soft_texture(96, 5)
    warp = warp_of(1, mirrored, bent)
    warped = warp.image(image, 96).astype(float)
    points = geometry.cell_centres(96, 96)
    shown = geometry.sample(image, warp.to_original(points)).astype(float)
    assert np.abs(warped - shown).mean() < 0.6
    # Two pixels off, or unwarped, it is another picture: the test can fail.
    off = geometry.sample(image, warp.to_original(points) + np.array([2 / 96, 0]))
    assert np.abs(warped - off.astype(float)).mean() > 5
    if mirrored or bent:
        assert np.abs(warped - image).mean() > 5


def test_mirroring_is_exact_and_the_plain_warp_is_none() -> None:
    image = textured(64, 64, 2)
    assert np.array_equal(Warp(mirrored=True).image(image, 64), image[:, ::-1])
    assert np.array_equal(Warp().image(image, 64), image)


def test_warp_image_resizes_and_keeps_normalised_positions() -> None:
    image = soft_texture(128, 7)
    warp = warp_of(4, True, True)
    small, large = warp.image(image, 64), warp.image(image, 128)
    assert small.shape == (64, 64, 3)
    difference = geometry.resize(large, 64, 64).astype(float) - small
    assert np.abs(difference).mean() < 3


def test_photometric_is_the_same_for_the_same_generator() -> None:
    image = textured(64, 80, 0)
    results = [photometric(image, np.random.default_rng(seed)) for seed in (*range(12), *range(12))]
    for first, second in zip(results[:12], results[12:], strict=True):
        assert np.array_equal(first, second)
    assert len({result.tobytes() for result in results[:12]}) > 6


def test_photometric_neither_reads_nor_moves_global_random_state() -> None:
    image = textured(48, 48, 1)
    np.random.seed(1)  # noqa: NPY002 - the global state is what this is about
    random.seed(1)
    first = [photometric(image, np.random.default_rng(seed)) for seed in range(8)]
    drawn = np.random.random(), random.random()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    second = [photometric(image, np.random.default_rng(seed)) for seed in range(8)]
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert drawn == (np.random.random(), random.random())  # noqa: NPY002


def test_photometric_changes_neither_shape_nor_geometry_nor_its_argument() -> None:
    image = soft_texture(90, 3)[:60]
    before = image.copy()
    grey = image.mean(axis=2)
    changed = 0
    for seed in range(10):
        result = photometric(image, np.random.default_rng(seed))
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        changed += not np.array_equal(result, image)
        # Brightness may change, but what is where may not: in place it correlates best.
        scores = {
            shift: np.corrcoef(np.roll(grey, shift, axis=1).ravel(), result.mean(axis=2).ravel())
            for shift in (-2, -1, 0, 1, 2)
        }
        assert max(scores, key=lambda shift: scores[shift][0, 1]) == 0
    assert changed >= 6
    assert np.array_equal(image, before)


def test_photometric_changes_act_independently() -> None:
    # On one flat colour noise shows as spread, and grey as equal channels.
    flat = np.full((40, 40, 3), (180, 110, 60), np.uint8)
    seen = []
    for seed in range(300):
        result = photometric(flat, np.random.default_rng(seed)).astype(float)
        noisy = result.std(axis=(0, 1)).max() > 0.5
        seen.append((noisy, np.ptp(result.mean(axis=(0, 1))) < 2))
    noisy, grey = np.array(seen).T
    assert 0.1 < noisy.mean() < 0.3
    assert 0.04 < grey.mean() < 0.2
    assert 0 < (noisy & grey).sum() < min(noisy.sum(), grey.sum()) / 2
