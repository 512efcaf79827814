"""Precomputed grids against the pair that they were made of."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pairs import pasted_pair

from segswap.data.pair import Pair
from segswap.data.truth import stride_grids

PAIR = pasted_pair(size=96)


def two_objects() -> Pair:
    """The right half of the object is another one."""
    source, target = PAIR.source_mask.copy(), PAIR.target_mask.copy()
    for mask in (source, target):
        mask[:, 50:] *= 2
    (item,) = PAIR.objects
    other = replace(item, label=2, target_from_source=np.diag([0.9, 0.9, 1.0]))
    return replace(PAIR, source_mask=source, target_mask=target, objects=(item, other))


@given(st.integers(1, 120), st.booleans())
def test_each_cell_by_itself(stride: int, several: bool) -> None:
    pair = two_objects() if several else PAIR
    count = -(-96 // stride)
    for grid, mask, carry in zip(
        stride_grids(pair, stride), (pair.source_mask, pair.target_mask),
        (pair.to_target, pair.to_source), strict=True,
    ):  # fmt: skip
        assert grid.shape == (3, count, count)
        assert grid.dtype == np.float32
        for i, j in {(0, 0), (count // 2, count // 2), (count - 1, count - 1), (0, count - 1)}:
            rows, columns = (slice(k * stride, (k + 1) * stride) for k in (i, j))
            cell = mask[rows, columns]
            counts = np.bincount(cell.ravel(), minlength=3)[1:]
            label = int(np.argmax(counts)) + 1
            if not counts.any():
                assert not grid[:, i, j].any()
                continue
            assert grid[2, i, j] == pytest.approx(counts[label - 1] / cell.size)
            y, x = (np.mean(np.arange(96)[part]) + 0.5 for part in (rows, columns))
            place = carry(np.array([x, y]) / 96, label).clip(0, 1)
            np.testing.assert_allclose(grid[:2, i, j], place, atol=1e-6)
