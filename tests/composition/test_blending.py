"""Blending: pasted, feathered, and Poisson against direct solutions of the same equations."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from generators.composition import blending
from generators.composition.blending import BLENDS, feather, paste, poisson, solve_poisson

SIZE = 48


def pictures(seed: int = 0, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A background and an object's pixels, smooth, away from black and white."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(2):
        noise = cv2.GaussianBlur(rng.normal(size=(size, size, 3)).astype(np.float32), (0, 0), 3)
        made.append(cv2.normalize(noise, None, 70, 180, cv2.NORM_MINMAX).astype(np.uint8))
    return made[0], made[1]


def disc(x: float, y: float, radius: float, size: int = SIZE) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


# Objects inside the frame, at its edges, in its corner, of one pixel, and as large as the frame.
MASKS = {
    "inside": disc(22, 25, 11),
    "left": disc(0, 20, 9),
    "right": disc(47, 20, 9),
    "top": disc(20, 0, 9),
    "bottom": disc(20, 47, 9),
    "corner": disc(47, 47, 14),
    "near the edge": disc(11, 24, 10),
    "one pixel": disc(30, 8, 0),
    "two parts": disc(10, 10, 6) | disc(36, 35, 8),
    "everything": np.ones((SIZE, SIZE), bool),
}


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    place = st.integers(-4, SIZE + 4)
    return disc(draw(place), draw(place), draw(st.integers(0, 30)))


@pytest.fixture(params=MASKS)
def mask(request: pytest.FixtureRequest) -> np.ndarray:
    return MASKS[request.param].copy()


@pytest.mark.parametrize("name", BLENDS)
def test_inputs_are_left_alone(name: str, mask: np.ndarray) -> None:
    """OpenCV 5's seamlessClone writes into its mask; nothing here may."""
    given_arrays = (*pictures(), mask)
    before = [array.copy() for array in given_arrays]
    for array in given_arrays:
        array.flags.writeable = False
    result = BLENDS[name](*given_arrays)
    assert result.shape == (SIZE, SIZE, 3)
    assert result.dtype == np.uint8
    assert not np.shares_memory(result, given_arrays[0])
    for array, kept in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("name", BLENDS)
def test_an_empty_mask_changes_nothing(name: str) -> None:
    background, pixels = pictures()
    result = BLENDS[name](background, pixels, np.zeros((SIZE, SIZE), bool))
    np.testing.assert_array_equal(result, background)


def test_paste_copies_exactly(mask: np.ndarray) -> None:
    background, pixels = pictures()
    result = paste(background, pixels, mask)
    np.testing.assert_array_equal(result[mask], pixels[mask])
    np.testing.assert_array_equal(result[~mask], background[~mask])


def test_feather_fades_in_from_the_rim() -> None:
    background, pixels = (
        np.full((SIZE, SIZE, 3), 40, np.uint8),
        np.full((SIZE, SIZE, 3), 200, np.uint8),
    )
    mask = disc(24, 24, 15)
    result = feather(background, pixels, mask)
    np.testing.assert_array_equal(result[~mask], background[~mask])
    np.testing.assert_array_equal(result[disc(24, 24, 8)], pixels[disc(24, 24, 8)])
    row = result[24, 9:25, 0].astype(int)
    assert 40 < row[0] < 90
    assert np.all(np.diff(row) >= 0)


def test_feather_does_not_fade_at_the_frame() -> None:
    background, pixels = pictures()
    result = feather(background, pixels, MASKS["everything"])
    np.testing.assert_array_equal(result, pixels)


def laplacian(rows: int, columns: int) -> lil_matrix:
    """The five-point Laplacian of a rectangle that is 0 on its edge, as a sparse matrix.

    The edge runs between pixels: beyond it each pixel's value is mirrored with the other sign.
    """
    matrix = lil_matrix((rows * columns, rows * columns))
    for i, j in np.ndindex(rows, columns):
        matrix[i * columns + j, i * columns + j] = -4
        for a, b in neighbours(i, j):
            if 0 <= a < rows and 0 <= b < columns:
                matrix[i * columns + j, a * columns + b] = 1
            else:
                matrix[i * columns + j, i * columns + j] -= 1
    return matrix.tocsr()


def neighbours(i: int, j: int) -> Iterator[tuple[int, int]]:
    yield from ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))


@pytest.mark.parametrize(("rows", "columns"), [(17, 23), (24, 24), (1, 9), (31, 4)])
def test_solve_poisson_against_a_sparse_direct_solver(rows: int, columns: int) -> None:
    right = np.random.default_rng(0).normal(scale=20, size=(rows, columns, 3))
    kept = right.astype(np.float32)
    ours = solve_poisson(kept)
    matrix = laplacian(rows, columns)
    direct = spsolve(matrix, right.reshape(-1, 3)).reshape(right.shape)
    np.testing.assert_allclose(ours, direct, atol=2e-5 * np.abs(direct).max())
    np.testing.assert_array_equal(kept, right.astype(np.float32))  # the input is not mutated


def cloned_directly(
    background: np.ndarray, pixels: np.ndarray, mask: np.ndarray, mixed: bool
) -> np.ndarray:
    """Perez's equation 7, with the guidance of 11 or of 12 and 13, written out pixel by pixel, on
    the rectangle that `poisson` chooses.
    """
    top, left, rows, columns = blending.patch_around(mask)
    size = background.shape[0]

    def at(image: np.ndarray, i: int, j: int) -> np.ndarray:
        return image[np.clip(i, 0, size - 1), np.clip(j, 0, size - 1)]

    right = np.zeros((rows * columns, 3))
    for i, j in np.ndindex(rows, columns):
        y, x = top + i, left + j
        for a, b in neighbours(y, x):
            step, other = (at(image, y, x).astype(float) - at(image, a, b)
                           for image in (background, pixels))  # fmt: skip
            if at(mask, y, x) and at(mask, a, b):
                step = np.where(np.abs(other) > np.abs(step), other, step) if mixed else other
            right[i * columns + j] -= step
            if not (top <= a < top + rows and left <= b < left + columns):
                # The neighbour differs from the background by as much as this pixel, negated.
                right[i * columns + j] -= at(background, a, b) + at(background, y, x).astype(float)
    matrix = laplacian(rows, columns)
    solved = np.stack([spsolve(matrix, right[:, c]) for c in range(3)], axis=-1)
    result = background.astype(float)
    for i, j in np.ndindex(rows, columns):
        if 0 <= top + i < size and 0 <= left + j < size:
            result[top + i, left + j] = solved[i * columns + j]
    return np.clip(result, 0, 255)


@pytest.mark.parametrize("name", ["poisson", "poisson-mixed"])
def test_poisson_against_a_sparse_direct_solver(name: str, mask: np.ndarray) -> None:
    background, pixels = pictures()
    ours = BLENDS[name](background, pixels, mask)
    direct = cloned_directly(background, pixels, mask, name == "poisson-mixed")
    # Half a level of rounding to bytes, and nothing else.
    assert np.abs(ours - direct).max() < 0.502


@given(masks(), st.integers(-45, 45))
def test_poisson_takes_gradients_alone(mask: np.ndarray, brighter: int) -> None:
    """An object that differs from the background by a constant disappears in it."""
    background, _ = pictures()
    result = poisson(background, (background.astype(int) + brighter).astype(np.uint8), mask)
    np.testing.assert_array_equal(result, background)


@given(masks())
def test_poisson_leaves_no_seam(mask: np.ndarray) -> None:
    """Across the mask's rim the result steps as the background does, to a level of rounding."""
    background, pixels = pictures()
    result = poisson(background, pixels, mask)
    for axis in (0, 1):
        rim = np.diff(mask.astype(int), axis=axis) != 0
        seam = np.diff(result.astype(int), axis=axis) - np.diff(background.astype(int), axis=axis)
        # The equation spreads what is left of a step over the neighbourhood.
        assert np.abs(seam[rim]).max(initial=0) < 25


def test_mixed_gradients_keep_the_background_behind_a_plain_object() -> None:
    background, pixels = pictures()
    plain = np.full_like(background, 120)
    result = BLENDS["poisson-mixed"](background, plain, MASKS["inside"])
    np.testing.assert_array_equal(result, background)
    over_plain = BLENDS["poisson-mixed"](plain, pixels, MASKS["inside"])
    np.testing.assert_array_equal(over_plain, poisson(plain, pixels, MASKS["inside"]))


@pytest.mark.parametrize(
    ("name", "flag", "apart"),
    [("poisson", cv2.NORMAL_CLONE, 1.0), ("poisson-mixed", cv2.MIXED_CLONE, 5.0)],
)
def test_poisson_against_seamless_clone(name: str, flag: int, apart: float) -> None:
    """OpenCV wears the mask off by 3 px and solves on the tight rectangle: alike, not equal. Its
    mixed clone also compares other gradients: the difference of those along x and along y.
    """
    background, pixels = pictures(3, 128)
    mask = disc(60, 66, 28, 128).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    theirs = cv2.seamlessClone(
        pixels, background, mask * 255, (left + width // 2, top + height // 2), flag
    )
    worn = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=3).astype(bool)
    ours = BLENDS[name](background, pixels, worn).astype(int)
    assert np.abs(ours - background)[worn].mean() > 7
    assert np.abs(ours - theirs)[worn].mean() < apart
    assert np.abs(ours - theirs).mean() < 0.2 * apart
