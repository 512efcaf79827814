"""A sample's pixels and truth stay together; styles, roles and crops are drawn half the time."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from made_pairs import pasted_pair
from true_grids import colour_difference

from segswap import geometry
from segswap.batches import samples
from segswap.batches.samples import choose_styled, make_sample
from segswap.data.augment import Warp
from segswap.data.shards import encode_pair
from segswap.data.truth import GridTruth, source_truth
from segswap.matchers.base import Batch

SIZE, STRIDE = 96, 8
CELLS = SIZE // STRIDE


@pytest.fixture
def no_photometry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "photometric", lambda image, rng: image)


def drawn(count: int, **options: int) -> Iterator[Batch]:
    for number in range(count):
        pair = pasted_pair(number % 4, size=options.get("original", SIZE))
        rng = np.random.default_rng([5, number])
        yield make_sample(pair, rng, size=SIZE, cells=CELLS)


def pixels(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def sides(item: Batch) -> list[tuple[np.ndarray, np.ndarray, GridTruth]]:
    """Own image, other image and truth, for both sides."""
    source, target = pixels(item.source), pixels(item.target)
    there = item.source_mask, item.to_target, item.source_valid
    back = item.target_mask, item.to_source, item.target_valid
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
        areas.append(sorted([float(item.source_mask.sum()), float(item.target_mask.sum())]))
    small, large = np.array(areas).T
    original = sorted([float(plain.source_mask.sum()), float(plain.target_mask.sum())])
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
        [float(i.source_mask.sum()) < float(i.target_mask.sum()) for i in drawn(40)]
    )
    assert 0.25 < exchanged < 0.75


def test_both_sides_are_mirrored_alike() -> None:
    # A mirrored copy is another object: the map between the two sides keeps its sense of turning.
    for item in drawn(12):
        valid = item.source_valid.numpy()
        start = geometry.cell_centres(CELLS, CELLS)[valid]
        end = item.to_target.numpy()[valid]
        linear = np.linalg.lstsq(start - start.mean(0), end - end.mean(0), rcond=None)[0]
        assert np.linalg.det(linear) > 0.05


def test_a_sample_repeats_and_no_two_generators_give_the_same() -> None:
    first, again = list(drawn(8)), list(drawn(8))
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({item.source.numpy().tobytes() for item in first}) == 8


def test_unaugmented_samples_are_the_pairs_as_they_are() -> None:
    pair = pasted_pair(3, styled=True)
    item = make_sample(pair, np.random.default_rng(0), size=SIZE, cells=CELLS, augment=False)
    assert np.array_equal(pixels(item.source), pair.source)
    assert np.array_equal(pixels(item.target), pair.target)
    truth = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    assert np.array_equal(item.source_mask.numpy(), truth.mask)
    assert np.array_equal(item.to_target.numpy(), truth.positions)


def test_shapes_types_and_ranges() -> None:
    item = make_sample(pasted_pair(), np.random.default_rng(1), size=64, cells=4)
    expected = {
        "source": ((3, 64, 64), torch.uint8), "target": ((3, 64, 64), torch.uint8),
        "source_mask": ((4, 4), torch.float32), "target_mask": ((4, 4), torch.float32),
        "to_target": ((4, 4, 2), torch.float32), "to_source": ((4, 4, 2), torch.float32),
        "source_valid": ((4, 4), torch.bool), "target_valid": ((4, 4), torch.bool),
    }  # fmt: skip
    for name, (shape, dtype) in expected.items():
        tensor = getattr(item, name)
        assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype), name
    for mask in (item.source_mask, item.target_mask):
        assert 0 <= float(mask.min()) < float(mask.max()) <= 1
    for positions, valid in (
        (item.to_target, item.source_valid), (item.to_source, item.target_valid)
    ):  # fmt: skip
        assert ((positions[valid] >= 0) & (positions[valid] <= 1)).all()


def test_one_sample_in_ten_shows_a_changed_copy_of_the_same_image(no_photometry: None) -> None:
    same = 0
    for item in drawn(400):
        shared = (item.source_mask.mean() + item.target_mask.mean()) / 2
        if shared > 0.6:  # the made objects are smaller, also where a crop enlarges them
            same += 1
            for own, other, truth in sides(item):
                assert colour_difference(own, other, truth, 0) < 7
    assert 20 < same < 65
