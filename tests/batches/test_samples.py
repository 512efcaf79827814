"""A sample's pixels and truth stay together; styles, roles and crops are drawn half the time."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_matches import same_batch
from made_pairs import pasted_pair
from true_grids import colour_difference

from segswap import geometry
from segswap.batches import samples
from segswap.batches.samples import PHOTOGRAPHS, choose_styled, make_sample
from segswap.data.augment import Warp
from segswap.data.shards import encode_pair
from segswap.data.truth import GridTruth, source_truth
from segswap.matchers.base import Batch, photograph_number

SIZE, STRIDE = 96, 8
CELLS = SIZE // STRIDE


@pytest.fixture
def no_photometry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "photometric", lambda image, *_: image)


def drawn(count: int, **options: int) -> Iterator[Batch]:
    for number in range(count):
        pair = pasted_pair(number % 4, size=options.get("original", SIZE))
        rng = np.random.default_rng([5, number])
        yield make_sample(pair, rng, size=SIZE, cells=CELLS)


def pixels(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def sides(item: Batch) -> list[tuple[np.ndarray, np.ndarray, GridTruth]]:
    """Own image, other image and truth, for both sides."""
    source, target = pixels(item.source.image), pixels(item.target.image)
    there = item.source.mask, item.source.positions, item.source.valid
    back = item.target.mask, item.target.positions, item.target.valid
    return [
        (source, target, GridTruth(*(part.numpy() for part in there))),
        (target, source, GridTruth(*(part.numpy() for part in back))),
    ]


@pytest.mark.parametrize("original", [SIZE, 2 * SIZE])
def test_pixels_and_truth_stay_together(original: int, no_photometry: None) -> None:
    for item in drawn(24, original=original):
        for own, other, truth in sides(item):
            exact = colour_difference(own, other, truth, 0)
            # Between the two, images may be enlarged by different factors, and so be less sharp.
            assert exact < 7
            assert colour_difference(own, other, truth, 1 / CELLS) > 2 * exact


def test_crops_make_objects_larger_and_keep_them_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "random_spline", lambda rng: None)
    pair = pasted_pair(size=2 * SIZE, matrix=geometry.scaling(0.3, 0.3))
    plain = make_sample(pair, np.random.default_rng(0), size=SIZE, cells=CELLS, augment=False)
    areas = []
    for number in range(60):
        item = make_sample(pair, np.random.default_rng(number), size=SIZE, cells=CELLS)
        areas.append(sorted([float(item.source.mask.sum()), float(item.target.mask.sum())]))
    small, large = np.array(areas).T
    original = sorted([float(plain.source.mask.sum()), float(plain.target.mask.sum())])
    # Half of the small object's images are crops of it.
    assert 0.3 < (small > 1.3 * original[0]).mean() < 0.7
    assert small.max() > 3 * original[0]
    # The object fills most of the other side's frame: there is no room for a crop.
    assert np.median(large) == pytest.approx(original[1], rel=0.5)
    assert small.min() > 0.98 * original[0]


def test_styled_members_are_chosen_half_the_time_on_each_side() -> None:
    members = {
        name.split(".", 1)[1]: data for name, data in encode_pair(pasted_pair(styled=True)).items()
    }
    rng = np.random.default_rng(0)
    chosen = [choose_styled(dict(members), rng) for _ in range(200)]
    assert all("source_styled.jpg" not in part and len(part) == 5 for part in chosen)
    styled = np.array(
        [[part[f"{s}.jpg"] == members[f"{s}_styled.jpg"] for s in ("source", "target")]
         for part in chosen]
    )  # fmt: skip
    assert (np.abs(styled.mean(axis=0) - 0.5) < 0.15).all()
    assert 0.1 < (styled[:, 0] & styled[:, 1]).mean() < 0.4
    plain = choose_styled(dict(members), rng, augment=False)
    assert plain["source.jpg"] == members["source.jpg"]
    assert len(plain) == 5


def test_sides_exchange_their_roles_half_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # The target's disc is smaller than the source's: the first is the source's own or exchanged.
    monkeypatch.setattr(samples, "random_window", lambda mask, size, rng: None)
    exchanged = np.mean(
        [float(i.source.mask.sum()) < float(i.target.mask.sum()) for i in drawn(40)]
    )
    assert 0.25 < exchanged < 0.75


def test_both_sides_are_mirrored_alike() -> None:
    # A mirrored copy is another object: the map between the two sides keeps its sense of turning.
    for item in drawn(12):
        valid = item.source.valid.numpy()
        start = geometry.cell_centres(CELLS, CELLS)[valid]
        end = item.source.positions.numpy()[valid]
        linear = np.linalg.lstsq(start - start.mean(0), end - end.mean(0), rcond=None)[0]
        assert np.linalg.det(linear) > 0.05


def test_a_sample_repeats_and_no_two_generators_give_the_same() -> None:
    first, again = list(drawn(8)), list(drawn(8))
    for one, other in zip(first, again, strict=True):
        assert same_batch(one, other)
    assert len({item.source.image.numpy().tobytes() for item in first}) == 8


def test_unaugmented_samples_are_the_pairs_as_they_are() -> None:
    pair = pasted_pair(3, styled=True)
    item = make_sample(pair, np.random.default_rng(0), size=SIZE, cells=CELLS, augment=False)
    assert np.array_equal(pixels(item.source.image), pair.source)
    assert np.array_equal(pixels(item.target.image), pair.target)
    truth = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    assert np.array_equal(item.source.mask.numpy(), truth.mask)
    assert np.array_equal(item.source.positions.numpy(), truth.positions)


def test_shapes_types_and_ranges() -> None:
    item = make_sample(pasted_pair(), np.random.default_rng(1), size=64, cells=4)
    expected = {
        "image": ((3, 64, 64), torch.uint8), "shown": ((PHOTOGRAPHS,), torch.int64),
        "mask": ((4, 4), torch.float32), "positions": ((4, 4, 2), torch.float32),
        "valid": ((4, 4), torch.bool), "same": ((4, 4), torch.float32),
    }  # fmt: skip
    for side in item:
        assert {k for k, value in side._asdict().items() if value is not None} == set(expected)
        for name, (shape, dtype) in expected.items():
            tensor = getattr(side, name)
            assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype), name
    for mask in (item.source.mask, item.target.mask):
        assert 0 <= float(mask.min()) < float(mask.max()) <= 1
    for positions, valid in (
        (item.source.positions, item.source.valid), (item.target.positions, item.target.valid)
    ):  # fmt: skip
        assert ((positions[valid] >= 0) & (positions[valid] <= 1)).all()


def test_one_sample_in_ten_shows_a_changed_copy_of_the_same_image(no_photometry: None) -> None:
    same = 0
    for item in drawn(400):
        shared = (item.source.mask.mean() + item.target.mask.mean()) / 2
        if shared > 0.6:  # the made objects are smaller, also where a crop enlarges them
            same += 1
            for own, other, truth in sides(item):
                assert colour_difference(own, other, truth, 0) < 7
    assert 20 < same < 65


def test_the_masks_grid_may_be_finer_than_that_of_the_positions() -> None:
    pair = pasted_pair(1)
    plain = make_sample(pair, np.random.default_rng(0), size=SIZE, cells=CELLS, augment=False)
    item = make_sample(
        pair, np.random.default_rng(0), size=SIZE, cells=CELLS, mask_cells=2 * CELLS, augment=False
    )
    for coarse, side in zip(plain, item, strict=True):
        assert side.mask.shape == (2 * CELLS, 2 * CELLS)
        assert torch.equal(side.positions, coarse.positions)
        assert torch.equal(side.same, coarse.mask)
        means = torch.nn.functional.avg_pool2d(side.mask[None], 2)[0]
        torch.testing.assert_close(means, coarse.mask, atol=1e-5, rtol=0)


def test_a_sample_says_which_photographs_its_images_show() -> None:
    pair = replace(
        pasted_pair(), background={"dataset": "a", "image": "behind.jpg"},
        objects=tuple(
            replace(item, segment={"dataset": "a", "image": "thing.jpg"})
            for item in pasted_pair().objects
        ),
    )  # fmt: skip
    thing, behind = photograph_number("a/thing.jpg"), photograph_number("a/behind.jpg")
    seen = set()
    for number in range(40):
        item = make_sample(pair, np.random.default_rng(number), size=SIZE, cells=CELLS)
        seen.add(tuple(frozenset(side.shown.tolist()) - {0} for side in item))
    one, both = frozenset({thing}), frozenset({thing, behind})
    assert {(one, both), (both, one)} <= seen
    # Some samples are of one image alone.
    assert seen <= {(a, b) for a in (one, both) for b in (one, both)}


def test_where_masks_are_for_others_to_tell_the_very_same_is_known_all_the_same(
    no_photometry: None,
) -> None:
    for number in range(60):
        pair, options = pasted_pair(number % 4), {"size": SIZE, "cells": CELLS, "mask_cells": 24}
        told = make_sample(pair, np.random.default_rng([5, number]), masked=False, **options)
        plain = make_sample(pair, np.random.default_rng([5, number]), **options)
        for side, other in zip(told, plain, strict=True):
            assert side.mask.isnan().all()
            assert side.mask.shape == other.mask.shape == (24, 24)
            assert not other.mask.isnan().any()
            assert torch.equal(side.same, other.same)
            assert torch.equal(side.positions, other.positions)
            assert torch.equal(side.valid, other.valid)
