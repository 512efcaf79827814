"""Masks at images' sizes, by GrabCut."""

import cv2
import numpy as np
import pytest
from conftest import textured

from segswap.discovery.refine import refine


def blob(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A red textured disc on a green textured ground, and its mask."""
    y, x = np.mgrid[:height, :width] + 0.5
    disc = np.hypot((x - 0.45 * width), (y - 0.55 * height)) < 0.25 * height
    image = textured(height, width, 0) // 4
    image[..., 0] += np.where(disc, 160, 10).astype(np.uint8)
    image[..., 1] += np.where(disc, 20, 120).astype(np.uint8)
    return image, disc


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize(("height", "width"), [(200, 300), (900, 1200)])
def test_the_edge_goes_to_the_edge_of_the_image(height: int, width: int) -> None:
    image, disc = blob(height, width)
    values = cv2.resize(disc.astype(np.float32), (15, 10), interpolation=cv2.INTER_AREA)
    values[values < 0.5] = 0
    cut = cv2.resize(values, (width, height)) > 0.6 * values.max()
    mask = refine(image, values)
    assert mask.shape == (height, width)
    assert mask.dtype == bool
    assert overlap(mask, disc) > 0.97 > overlap(cut, disc)
    np.testing.assert_array_equal(mask, refine(image, values))


def test_any_range_of_values_gives_the_same_mask() -> None:
    image, disc = blob(120, 120)
    values = cv2.resize(disc.astype(np.float32), (12, 12), interpolation=cv2.INTER_AREA)
    # By a power of two, which rounds nothing: a value at a threshold stays on its side of it.
    np.testing.assert_array_equal(refine(image, values), refine(image, values * 2.0**-13))


def test_nothing_far_from_the_map_is_foreground() -> None:
    """Of two discs of the same colours, the one that the map does not know."""
    image, disc = blob(200, 200)
    both = np.concatenate([image, image], axis=1)
    values = cv2.resize(disc.astype(np.float32), (20, 20), interpolation=cv2.INTER_AREA)
    mask = refine(both, np.concatenate([values, np.zeros_like(values)], axis=1))
    assert overlap(mask[:, :200], disc) > 0.9
    assert not mask[:, 215:].any()


def test_a_map_of_zeros_gives_an_empty_mask() -> None:
    assert not refine(blob(64, 64)[0], np.zeros((8, 8), np.float32)).any()


def test_without_background_it_is_the_cut_map() -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[:, :4] = 1
    mask = refine(blob(64, 64)[0], values)
    assert mask[:, :30].all()
    assert not mask[:, 34:].any()


def test_an_image_of_one_colour() -> None:
    values = np.zeros((8, 8), np.float32)
    values[2:6, 2:6] = 1
    mask = refine(np.full((64, 64, 3), 90, np.uint8), values)
    assert mask[20:44, 20:44].all()
    assert not mask[:4].any()
