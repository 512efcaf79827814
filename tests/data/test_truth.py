"""Ground truth on the grid is where the pixels are, and a mask's cell is the share of its area."""

import numpy as np
import pytest
from conftest import textured
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import PLACEMENT, pasted_pair
from true_grids import colour_difference, plain_mask

from segswap import geometry
from segswap.data.augment import Warp, random_spline, random_window
from segswap.data.pair import Pair, PairObject
from segswap.data.truth import source_truth, target_truth

SIZE, STRIDE = 96, 8
CELLS = SIZE // STRIDE


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_pixels_agree_along_the_positions(mirrored: bool, seed: int | None) -> None:
    pair = pasted_pair(size=SIZE)
    spline = None if seed is None else random_spline(np.random.default_rng(seed))
    warps = Warp(mirrored), Warp(mirrored, spline)
    source, target = warps[0].image(pair.source, SIZE), warps[1].image(pair.target, SIZE)
    there = source_truth(pair, CELLS, CELLS, *warps)
    back = target_truth(pair, CELLS, CELLS, *warps)
    for own, other, truth in ((source, target, there), (target, source, back)):
        exact = colour_difference(own, other, truth, 0)
        assert exact < 5
        for cell in (1 / CELLS, -1 / CELLS):
            assert colour_difference(own, other, truth, cell) > 3 * exact


def test_soft_mask_is_the_mean_over_the_cell() -> None:
    # Moved by a quarter of the frame at the same scale: nothing leaves the frame.
    pair = pasted_pair(matrix=geometry.translation(0.1, 0.0))
    for truth, labels in (
        (source_truth(pair, CELLS, CELLS, Warp(), Warp()), pair.source_mask),
        (target_truth(pair, CELLS, CELLS, Warp(), Warp()), pair.target_mask),
    ):
        means = labels.reshape(CELLS, STRIDE, CELLS, STRIDE).mean(axis=(1, 3))
        assert np.allclose(truth.mask, means, atol=1e-6)
        assert ((truth.mask > 0.05) & (truth.mask < 0.95)).sum() > 8


def test_mirrored_truth_is_the_truth_mirrored() -> None:
    pair = pasted_pair()
    plain = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    mirrored = source_truth(pair, CELLS, CELLS, Warp(True), Warp(True))
    # Sums from the other side.
    assert np.allclose(mirrored.mask, plain.mask[:, ::-1], atol=1e-6)
    valid = plain.valid[:, ::-1] & mirrored.valid
    expected = plain.positions[:, ::-1] * (-1, 1) + (1, 0)
    assert valid.sum() > 20
    assert np.allclose(mirrored.positions[valid], expected[valid], atol=1e-6)


def test_positions_are_the_pairs_own_map() -> None:
    pair = pasted_pair()
    truth = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    centres = geometry.cell_centres(CELLS, CELLS)
    assert np.allclose(
        truth.positions[truth.valid],
        geometry.transform_points(PLACEMENT, centres[truth.valid]),
        atol=1e-6,
    )
    assert np.allclose(truth.positions[~truth.valid], centres[~truth.valid], atol=1e-6)


def test_identity_placement_gives_the_grid_itself_and_equal_masks() -> None:
    pair = pasted_pair(matrix=np.eye(3))
    there = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    back = target_truth(pair, CELLS, CELLS, Warp(), Warp())
    assert np.allclose(there.positions, geometry.cell_centres(CELLS, CELLS), atol=1e-6)
    assert np.allclose(there.mask, back.mask, atol=1e-6)
    assert np.array_equal(there.valid, back.valid)


def test_what_left_the_frame_is_neither_valid_nor_in_the_mask() -> None:
    size = 96
    # Everything is shared, moved to the right by 30%: the source's right part has no match.
    matrix = geometry.translation(0.3, 0)
    image, mask = textured(size, size, 0), np.ones((size, size), np.uint8)
    item = PairObject(1, matrix, None, {}, "paste")
    pair = Pair(0, image, image, mask, mask, (item,))
    truth = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    gone = geometry.cell_centres(CELLS, CELLS)[..., 0] > 0.7
    assert (truth.mask[:, 9:] == 0).all()
    assert np.allclose(truth.mask[:, 8], 0.4, atol=0.13)  # 0.7 is at 8.4 cells, to a pixel
    assert (truth.mask[:, :8] == 1).all()
    assert not truth.valid[gone].any()
    assert truth.valid[~gone].all()


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (7, 11), (200, 200)])
def test_any_grid_fits(rows: int, columns: int) -> None:
    pair = pasted_pair()
    truth = source_truth(pair, rows, columns, Warp(), Warp())
    assert truth.mask.shape == truth.valid.shape == (rows, columns)
    assert truth.positions.shape == (rows, columns, 2)
    assert (truth.mask.dtype, truth.positions.dtype) == (np.float32, np.float32)
    assert truth.mask.mean() == pytest.approx((pair.source_mask > 0).mean(), abs=0.02)


def test_objects_keep_their_own_maps() -> None:
    size = 96
    labels = np.zeros((size, size), np.uint8)
    labels[8:40, 8:40], labels[56:88, 56:88] = 1, 7
    maps = {1: geometry.translation(0.4, 0.0), 7: geometry.translation(-0.4, 0.0)}
    target = np.zeros_like(labels)
    for label, matrix in maps.items():
        moved = geometry.warp_labels((labels == label).astype(np.uint8), matrix, size, size)
        target[moved > 0] = label
    items = tuple(PairObject(label, m, None, {}, "paste") for label, m in maps.items())
    pair = Pair(0, textured(size, size, 0), textured(size, size, 1), labels, target, items)
    for truth, own, sign in (
        (source_truth(pair, CELLS, CELLS, Warp(), Warp()), labels, 1),
        (target_truth(pair, CELLS, CELLS, Warp(), Warp()), target, -1),
    ):
        shift = truth.positions - geometry.cell_centres(CELLS, CELLS)
        at_cells = own[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
        for label, along_x in ((1, 0.4), (7, -0.4)):
            assert (at_cells == label).sum() >= 9
            assert np.allclose(shift[at_cells == label], (sign * along_x, 0), atol=1e-6)


@settings(max_examples=16)
@given(st.integers(0, 2**32), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_masks_are_areas_of_what_both_warped_images_show(
    seed: int, mirrored: bool, bent: bool, source_cropped: bool, target_cropped: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Often a part of the disc lies outside of the target's frame.
    matrix = geometry.translation(rng.uniform(-0.5, 0.2), rng.uniform(-0.2, 0.2)) @ PLACEMENT
    pair = pasted_pair(size=160, matrix=matrix)
    source = Warp(mirrored, window=window(pair.source_mask, rng) if source_cropped else None)
    target = Warp(
        mirrored, random_spline(rng) if bent else None,
        window(pair.target_mask, rng) if target_cropped else None,
    )  # fmt: skip
    for truth, slow in (
        (source_truth(pair, CELLS, CELLS, source, target),
         plain_mask(pair, CELLS, source, target, of_source=True)),
        (target_truth(pair, CELLS, CELLS, source, target),
         plain_mask(pair, CELLS, target, source, of_source=False)),
    ):  # fmt: skip
        # Where the other image's frame cuts, to a pixel, of which a cell is 13 wide.
        assert np.abs(truth.mask - slow).max() < 0.09
        assert np.abs(truth.mask - slow).mean() < 0.004
        assert (truth.mask[truth.valid] > 0).all()


def window(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    found = random_window(mask > 0, mask.shape[0], rng)
    assert found is not None
    return found


def test_what_a_crop_leaves_out_is_not_shared() -> None:
    pair = pasted_pair(size=240, matrix=np.eye(3))
    right = Warp(window=(0.5, 0, 1, 1))  # shows the right half at twice its width
    whole = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    there = source_truth(pair, CELLS, CELLS, Warp(), right)
    back = target_truth(pair, CELLS, CELLS, Warp(), right)
    half = CELLS // 2
    assert whole.mask[:, :half].max() == 1
    assert there.mask[:, :half].max() == 0
    assert not there.valid[:, :half].any()
    assert np.allclose(there.mask[:, half:], whole.mask[:, half:], atol=1e-6)
    # Two cells of the crop's for one of the whole's.
    pairs = back.mask.reshape(CELLS, half, 2).mean(axis=2)
    assert np.allclose(pairs, whole.mask[:, half:], atol=1e-6)


@given(st.integers(0, 2**32))
def test_cropped_positions_meet_the_other_sides(seed: int) -> None:
    # There and back through both truths' own maps: to a pixel's hundredth.
    rng = np.random.default_rng(seed)
    pair = pasted_pair(size=240)
    source = Warp(True, window=window(pair.source_mask, rng))
    target = Warp(True, random_spline(rng), window(pair.target_mask, rng))
    truth = source_truth(pair, CELLS, CELLS, source, target)
    assert truth.valid.sum() > 12
    there = target.to_original(truth.positions[truth.valid].astype(np.float64))
    back = source.from_original(pair.to_source(there, 1))
    centres = geometry.cell_centres(CELLS, CELLS)[truth.valid]
    assert np.abs(back - centres).max() * 480 < 0.05


def test_a_matrix_counts_up_to_scale() -> None:
    pair = pasted_pair()
    item = PairObject(1, -3 * PLACEMENT, "disc", {}, "paste")
    scaled = Pair(0, pair.source, pair.target, pair.source_mask, pair.target_mask, (item,))
    for truth in (source_truth, target_truth):
        expected, found = (truth(p, CELLS, CELLS, Warp(), Warp(True)) for p in (pair, scaled))
        assert expected.mask.sum() > 10
        assert np.allclose(found.mask, expected.mask, atol=1e-6)
        assert np.allclose(found.positions, expected.positions, atol=1e-6)
