"""Augmentation keeps the ground truth: splines and warps invert, photometry moves nothing."""

import random

import numpy as np
import pytest
from conftest import textured
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import soft_texture

from segswap import geometry
from segswap.data import augment
from segswap.data.augment import Spline, Warp, photometric, random_spline, random_window

SIDE = 480  # pixels of the images that the tolerances below are meant for
seeds = st.integers(0, 2**32)


def warp_of(seed: int, mirrored: bool, bent: bool, cropped: bool = False) -> Warp:
    rng = np.random.default_rng(seed)
    spline = random_spline(rng) if bent else None
    left, top = rng.uniform(0, 0.5, 2)
    right, bottom = left + rng.uniform(0.3, 0.5), top + rng.uniform(0.3, 0.5)
    return Warp(mirrored, spline, (left, top, right, bottom) if cropped else None)


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
    spline = Spline.through(controls, geometry.transform_points(matrix, controls))
    assert np.allclose(spline(points), geometry.transform_points(matrix, points), atol=1e-9)


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


@given(seeds, st.booleans(), st.booleans(), st.booleans())
def test_warp_there_and_back_is_under_a_twentieth_of_a_pixel(
    seed: int, mirrored: bool, bent: bool, cropped: bool
) -> None:
    warp, points = warp_of(seed, mirrored, bent, cropped), geometry.cell_centres(20, 20)
    # The rim is part of it: corners and edges of the frame.
    points = np.concatenate([points.reshape(-1, 2), [(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0)]])
    there_and_back = warp.from_original(warp.to_original(points))
    back_and_there = warp.to_original(warp.from_original(points))
    assert np.abs(there_and_back - points).max() * SIDE < 0.05
    assert np.abs(back_and_there - points).max() * SIDE < 0.05


@pytest.mark.parametrize("size", [48, 96, 200])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("cropped", [False, True])
def test_warped_image_shows_the_original_at_to_original(
    size: int, mirrored: bool, bent: bool, cropped: bool
) -> None:
    image = soft_texture(96, 5)
    warp = warp_of(1, mirrored, bent, cropped)
    warped = warp.image(image, size).astype(float)
    points = warp.to_original(geometry.cell_centres(size, size))
    shrunk = size < 96 and not cropped
    shown = geometry.sample(geometry.resize(image, 64, 64) if shrunk else image, points)
    inner = geometry.inside(points)
    assert inner.mean() > 0.8
    error = np.abs(warped - shown)[inner].mean()
    assert error < (3 if shrunk else 0.6)
    # Two pixels off, or unwarped, it is another picture: the test can fail.
    off = geometry.sample(image, points + np.array([2 / 96, 0])).astype(float)
    assert np.abs(warped - off)[inner].mean() > max(5, 3 * error)
    if mirrored or bent or cropped:
        assert np.abs(warped - geometry.resize(image, size, size)).mean() > 5


@settings(max_examples=20)
@given(seeds, st.booleans(), st.sampled_from([60, 240, 480]))
def test_images_are_sampled_at_the_splines_positions_to_a_twentieth_of_a_pixel(
    seed: int, mirrored: bool, size: int
) -> None:
    warp = warp_of(seed, mirrored, bent=True)
    # Pictures of the positions themselves: what is sampled is where.
    ramp = np.tile(np.arange(SIDE, dtype=np.float32), (SIDE, 1))
    for axis, picture in enumerate((ramp, np.ascontiguousarray(ramp.T))):
        exact = warp.to_original(geometry.cell_centres(size, size))[..., axis] * SIDE - 0.5
        sampled = warp._pixels(picture.shape, size, size)[axis]
        assert np.abs(sampled - exact).max() < 0.05


def test_a_crop_of_whole_pixels_is_those_pixels() -> None:
    image = textured(96, 96, 3)
    window = (0.25, 0.5, 0.75, 1.0)
    assert np.array_equal(Warp(window=window).image(image, 48), image[48:, 24:72])
    assert np.array_equal(Warp(True, window=window).image(image, 48), image[48:, 24:72][:, ::-1])


def test_fine_detail_does_not_alias_where_an_image_shrinks() -> None:
    checks = np.zeros((96, 96, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    for warp in (Warp(), Warp(True), warp_of(2, False, bent=True)):
        shrunk = warp.image(checks, 40)[2:-2, 2:-2].astype(float)
        assert shrunk.std() < 25
        assert shrunk.mean() == pytest.approx(127.5, abs=6)


@given(
    seeds, st.integers(0, 70), st.integers(0, 50), st.integers(1, 90), st.integers(1, 70),
    st.sampled_from([24, 48, 90, 160]),
)  # fmt: skip
def test_windows_keep_the_object_and_are_neither_too_small_nor_too_narrow(
    seed: int, left: int, top: int, width: int, height: int, size: int
) -> None:
    mask = np.zeros((80, 100), bool)
    mask[top : top + height, left : left + width] = True
    window = random_window(mask, size, np.random.default_rng(seed))
    assert window is not None
    low, high = np.array(window[:2]), np.array(window[2:])
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (low * (100, 80) <= (left, top)).all()
    assert (high * (100, 80) + 1e-9 >= (min(left + width, 100), min(top + height, 80))).all()
    across, down = high - low
    assert 0.8 - 1e-9 <= across / down <= 1.25 + 1e-9
    # A pixel is enlarged at most twice, where the image is large enough.
    assert across * 100 >= min(size / 2, 100) - 1e-9
    assert down * 80 >= min(size / 2, 80) - 1e-9


def test_small_objects_come_at_many_scales_and_places() -> None:
    mask = np.zeros((480, 480), bool)
    mask[100:140, 300:350] = True
    rng = np.random.default_rng(0)
    windows = np.array([random_window(mask, 240, rng) for _ in range(300)])
    zoom = 1 / (windows[:, 2] - windows[:, 0])
    assert zoom.min() < 1.1
    assert 3.5 < zoom.max() <= 4.0 + 1e-9
    assert 0.3 < (zoom > 2).mean() < 0.7
    # Where the object's centre comes to lie in the frame: nearly everywhere.
    centre = (np.array([325, 120]) / 480 - windows[:, :2]) / (windows[:, 2:] - windows[:, :2])
    assert (np.ptp(centre, axis=0) > 0.6).all()
    assert random_window(np.zeros((480, 480), bool), 240, rng) is None


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


def test_strong_light_is_seldom_a_negative_mixed_or_far_darker_or_lighter() -> None:
    image = textured(40, 48, 2)
    image[..., 0] //= 2
    shown = [augment._other_light(image, np.random.default_rng(seed)) for seed in range(400)]
    plain = np.mean([np.array_equal(image, result) for result in shown])
    assert 0.65 < plain < 0.9
    negative = np.mean([np.array_equal(255 - image, result) for result in shown])
    assert 0.02 < negative < 0.15
    levels = [result.mean() for result in shown]
    assert min(levels) < 0.5 * image.mean()
    assert max(levels) > 1.4 * image.mean()
    spread = [float(np.ptp(result.mean(axis=(0, 1)))) for result in shown]
    assert min(spread) < 0.3 * spread[int(np.argmax([np.array_equal(image, r) for r in shown]))]
    assert all(result.dtype == np.uint8 for result in shown)


def test_light_changes_strongly_only_where_asked() -> None:
    image = textured(40, 48, 2)
    for seed in range(30):
        plain = photometric(image, np.random.default_rng(seed))
        assert np.array_equal(plain, photometric(image, np.random.default_rng(seed), False))
    negatives = 0
    for seed in range(100):
        result = photometric(image, np.random.default_rng(seed), True)
        negatives += np.corrcoef(image.mean(2).ravel(), result.mean(2).ravel())[0, 1] < 0
    assert 2 < negatives < 25
