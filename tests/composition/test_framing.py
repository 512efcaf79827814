"""Which part of an image becomes a square."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from generators.composition.framing import room, square
from segswap import geometry

sides = st.integers(1, 90)


@given(sides, sides)
def test_squashing_takes_the_whole_image(width: int, height: int) -> None:
    assert square("squash", width, height) == (0, 0, width, height)
    assert room(width, height, (0, 0, width, height)) == (0.0, 0.0, 1.0, 1.0)


@given(sides, sides)
def test_padding_puts_the_whole_image_into_a_square(width: int, height: int) -> None:
    image = np.random.default_rng(0).integers(1, 256, (height, width, 3), np.uint8)
    window = square("pad", width, height)
    padded = geometry.cut(image, window)
    assert padded.shape == (max(width, height), max(width, height), 3)
    left, top, right, bottom = (
        round(edge * max(width, height)) for edge in room(width, height, window)
    )
    np.testing.assert_array_equal(padded[top:bottom, left:right], image)
    assert padded.any(axis=-1).sum() == width * height
    assert abs((right + left) - padded.shape[1]) <= 1
    assert abs((bottom + top) - padded.shape[0]) <= 1


@given(sides, sides, st.data())
def test_a_crop_holds_as_much_of_an_object_as_any_could(
    width: int, height: int, data: st.DataObject
) -> None:
    left, right = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    top, bottom = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    mask = np.zeros((height, width), bool)
    mask[top : bottom + 1, left : right + 1] = True
    mask[height // 2, width // 2] = True
    window = square("crop", width, height, [mask])
    side = min(width, height)
    assert (window[2] - window[0], window[3] - window[1]) == (side, side)
    assert 0 <= window[0] <= width - side
    assert 0 <= window[1] <= height - side
    around = geometry.window_of(mask)
    for axis in (0, 1):
        shown = min(window[axis + 2], around[axis + 2]) - max(window[axis], around[axis])
        assert shown >= min(side, around[axis + 2] - around[axis])
    assert room(width, height, window) == (0.0, 0.0, 1.0, 1.0)
