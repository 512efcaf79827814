"""Placement: boxes that keep apart, and maps that put an object whole into its box."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.composition.placement import Box, layouts, outline, place
from segswap import geometry

SIZE = 480
GAP = 16 / SIZE
SCALE, ROTATION, RATIO, STEPS = (0.7, 1.0), 15.0, (0.2, 1.0), 10
seeds = st.integers(0, 2**32 - 1)


def draw(points: np.ndarray, box: Box, seed: int) -> np.ndarray:
    return place(
        points, box, SIZE, scale=SCALE, rotation=ROTATION, ratio=RATIO, ratio_steps=STEPS,
        rng=np.random.default_rng(seed),
    )  # fmt: skip


@st.composite
def hulls(draw: st.DrawFn) -> np.ndarray:
    """Points that span an object somewhere in the image, at least 4% of it wide and high."""
    rng = np.random.default_rng(draw(seeds))
    low, high = np.sort(rng.uniform(size=(2, 2)), axis=0)
    high = np.maximum(high, low + 0.04)
    inner = rng.uniform(low, high, (9, 2))
    return np.concatenate([inner, [low, high, (low[0], high[1])]])


def sixteen_layouts() -> set[frozenset[str]]:
    """The published table, written out: halves and quadrants that do not overlap."""
    beside = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    quadrants = ["top left", "top right", "bottom left", "bottom right"]
    halves = {frozenset(pair) for pair in beside.items()}
    mixed = {
        frozenset((half, quadrant))
        for half, other in beside.items()
        for quadrant in quadrants
        if other in quadrant.split()
    }
    return halves | mixed | {frozenset(pair) for pair in combinations(quadrants, 2)}


def name_of(box: Box) -> str:
    left, top, right, bottom = (round(2 * edge) / 2 for edge in box)
    row = "top " * (bottom == 0.5) + "bottom " * (top == 0.5)
    return (row + "left" * (right == 0.5) + "right" * (left == 0.5)).strip()


def test_two_objects_have_the_sixteen_published_layouts() -> None:
    made = layouts(2, GAP)
    assert len(made) == 16
    assert {frozenset(map(name_of, boxes)) for boxes in made} == sixteen_layouts()


def test_one_object_has_the_whole_frame() -> None:
    assert layouts(1, GAP) == [((0.0, 0.0, 1.0, 1.0),)]


@pytest.mark.parametrize("objects", [2, 3, 4])
def test_boxes_keep_one_stride_apart(objects: int) -> None:
    made = layouts(objects, GAP)
    assert made
    for boxes in made:
        assert len(boxes) == objects
        for a, b in combinations(boxes, 2):
            apart = max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
            assert apart >= GAP - 1e-12
        assert all(0 <= edge <= 1 for box in boxes for edge in box)


@given(hulls(), st.integers(0, 15), st.booleans(), seeds)
def test_the_object_fits_whole_into_its_box(
    points: np.ndarray, layout: int, second: bool, seed: int
) -> None:
    for box in (layouts(1, GAP)[0][0], layouts(2, GAP)[layout][second]):
        placed = geometry.transform_points(draw(points, box, seed), points)
        assert (placed >= np.array(box[:2]) - 1e-9).all()
        assert (placed <= np.array(box[2:]) + 1e-9).all()


@given(hulls(), st.integers(0, 15), seeds)
def test_scale_rotation_and_ratio_keep_their_limits(
    points: np.ndarray, layout: int, seed: int
) -> None:
    box = layouts(2, GAP)[layout][0]
    matrix = draw(points, box, seed)
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])
    # Source and target are squares of one size, so that the matrix' part holds for pixels too.
    right, down = matrix[:2, 0], matrix[:2, 1]
    assert abs(right @ down) < 1e-9 * np.linalg.norm(right) * np.linalg.norm(down)
    assert abs(np.degrees(np.arctan2(right[1], right[0]))) <= ROTATION + 1e-6
    assert np.linalg.det(matrix[:2, :2]) > 0
    stretch = np.linalg.norm(right) / np.linalg.norm(down)
    assert SCALE[0] / SCALE[1] - 1e-9 <= stretch <= SCALE[1] / SCALE[0] + 1e-9
    placed = geometry.transform_points(matrix, points)
    filled = (placed.max(axis=0) - placed.min(axis=0)) / (np.array(box[2:]) - box[:2])
    ratios = np.linspace(*RATIO, STEPS)
    assert np.abs(ratios - filled.max()).min() < 1e-9


def test_small_ratios_are_favoured() -> None:
    """Frequencies proportional to exp(-k/10), within three standard deviations."""
    points = np.array([[0.2, 0.2], [0.7, 0.2], [0.7, 0.7], [0.2, 0.7]])
    count = Counter()
    draws = 3000
    for seed in range(draws):
        placed = geometry.transform_points(draw(points, (0, 0, 1, 1), seed), points)
        filled = (placed.max(axis=0) - placed.min(axis=0)).max()
        count[round((filled - RATIO[0]) / (RATIO[1] - RATIO[0]) * (STEPS - 1))] += 1
    weights = np.exp(-np.arange(STEPS) / STEPS)
    expected = draws * weights / weights.sum()
    for step in range(STEPS):
        assert abs(count[step] - expected[step]) < 3.5 * np.sqrt(expected[step])


def test_the_place_is_uniform_where_the_object_fits() -> None:
    points = np.array([[0.2, 0.2], [0.7, 0.2], [0.7, 0.7], [0.2, 0.7]])
    shares = []
    for seed in range(2000):
        placed = geometry.transform_points(draw(points, (0.0, 0.0, 0.5, 1.0), seed), points)
        low, high = placed.min(axis=0), placed.max(axis=0)
        room = np.array([0.5, 1.0]) - (high - low)
        shares.append(low[room > 0.05] / room[room > 0.05])
    drawn = np.concatenate(shares)
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert np.abs(counts / len(drawn) - 0.1).max() < 0.02


@given(seeds, st.floats(-180, 180), st.floats(0.5, 2))
def test_the_outline_spans_every_pixel(seed: int, degrees: float, stretch: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((30, 40), bool)
    for _ in range(3):
        top, left = rng.integers(0, 25), rng.integers(0, 35)
        mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
    rows, columns = np.nonzero(mask)
    corners = np.concatenate(
        [np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)]
    ) / (40, 30)
    matrix = geometry.rotation(degrees) @ geometry.scaling(stretch, 1)
    spanned = geometry.transform_points(matrix, outline(mask))
    whole = geometry.transform_points(matrix, corners)
    np.testing.assert_allclose(spanned.min(axis=0), whole.min(axis=0), atol=1e-12)
    np.testing.assert_allclose(spanned.max(axis=0), whole.max(axis=0), atol=1e-12)
