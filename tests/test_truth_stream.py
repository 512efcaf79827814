"""Ground truth on the grid is where the pixels are; the stream shows every pair once an epoch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import textured
from made_pairs import PLACEMENT, pasted_pair, write_dataset

from segswap import geometry, stream
from segswap.augment import Warp, random_spline
from segswap.pair import Pair, PairObject
from segswap.shards import DatasetError, Shard
from segswap.stream import Batch, PairStream, batches
from segswap.truth import GridTruth, source_truth, target_truth

SIZE, STRIDE = 96, 8
CELLS = SIZE // STRIDE


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven train pairs in three shards, with styled versions of flat grey; two val pairs."""
    pairs = [pasted_pair(index, styled=True) for index in range(7)]
    val = [pasted_pair(index) for index in range(2)]
    return write_dataset(tmp_path_factory.mktemp("made") / "pairs", pairs, val)


@pytest.fixture
def no_photometry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "photometric", lambda image, rng: image)


def stream_of(*datasets: str, **options: object) -> PairStream:
    settings = {"split": "train", "size": SIZE, "stride": STRIDE} | options
    return PairStream(datasets, **settings)  # type: ignore[arg-type]


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def colour_difference(own: np.ndarray, other: np.ndarray, truth: GridTruth, shift: float) -> float:
    """Mean difference between cell centres and their matches, moved by a share of the frame.

    Cells at the object's rim are left out: a pasted neighbour would be interpolated with it.
    """
    rows, columns = truth.mask.shape
    inner = truth.valid & (truth.mask > 0.99)
    assert inner.sum() >= 12
    here = geometry.sample(own, geometry.cell_centres(rows, columns)).astype(float)
    there = geometry.sample(other, truth.positions + np.float32(shift)).astype(float)
    return float(np.abs(here - there).mean(axis=2)[inner].mean())


# --- truth -----------------------------------------------------------------------------------


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


def test_stream_keeps_pixels_and_truth_together(dataset: str, no_photometry: None) -> None:
    plain = write_dataset(
        Path(dataset).parent / "unstyled", [pasted_pair(index) for index in range(4)]
    )
    for number in range(12):
        item = stream_of(plain, seed=5)[number]
        source, target = pixels(item.source), pixels(item.target)
        for own, other, mask, positions, valid in (
            (source, target, item.source_mask, item.to_target, item.source_valid),
            (target, source, item.target_mask, item.to_source, item.target_valid),
        ):
            truth = GridTruth(mask.numpy(), positions.numpy(), valid.numpy())
            exact = colour_difference(own, other, truth, 0)
            assert exact < 5
            assert colour_difference(own, other, truth, 1 / CELLS) > 3 * exact


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
    assert np.array_equal(mirrored.mask, plain.mask[:, ::-1])
    valid = plain.valid[:, ::-1] & mirrored.valid
    expected = plain.positions[:, ::-1] * (-1, 1) + (1, 0)
    assert valid.sum() > 20
    assert np.allclose(mirrored.positions[valid], expected[valid], atol=1e-6)


def test_positions_are_the_pairs_own_map() -> None:
    pair = pasted_pair()
    truth = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    centres = geometry.cell_centres(CELLS, CELLS)
    assert np.allclose(
        truth.positions[truth.valid], geometry.transform(PLACEMENT, centres[truth.valid]), atol=1e-6
    )
    assert np.allclose(truth.positions[~truth.valid], centres[~truth.valid], atol=1e-6)


def test_identity_placement_gives_the_grid_itself_and_equal_masks() -> None:
    pair = pasted_pair(matrix=np.eye(3))
    there = source_truth(pair, CELLS, CELLS, Warp(), Warp())
    back = target_truth(pair, CELLS, CELLS, Warp(), Warp())
    assert np.allclose(there.positions, geometry.cell_centres(CELLS, CELLS), atol=1e-6)
    assert np.array_equal(there.mask, back.mask)
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
    assert (truth.mask[gone] == 0).all()
    assert not truth.valid[gone].any()
    assert (truth.mask[~gone] == 1).all()
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


# --- stream ----------------------------------------------------------------------------------


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def order(items: PairStream, monkeypatch: pytest.MonkeyPatch, numbers: range) -> list[int]:
    """Positions in the split of a run's samples."""
    seen: list[int] = []
    original = PairStream._find

    def noted(self: PairStream, position: int) -> tuple[Shard, int]:
        seen.append(position)
        return original(self, position)

    monkeypatch.setattr(PairStream, "_find", noted)
    for number in numbers:
        items[number]
    return seen


def test_every_pair_comes_once_an_epoch_in_another_order(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = stream_of(dataset)
    assert len(items) == 7
    seen = order(items, monkeypatch, range(21))
    epochs = [seen[:7], seen[7:14], seen[14:]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[1] != epochs[2]
    assert seen[:7] != order(stream_of(dataset, seed=1), monkeypatch, range(7))


def test_samples_depend_on_seed_and_number_alone(dataset: str) -> None:
    items, again = stream_of(dataset, seed=3), stream_of(dataset, seed=3)
    backwards = {number: again[number] for number in (9, 4, 0)}
    assert all(same(items[number], sample) for number, sample in backwards.items())
    assert not same(items[4], stream_of(dataset, seed=4)[4])
    # The same pair of the next epoch is augmented anew.
    assert not any(same(items[0], items[number]) for number in range(7, 14))


def test_neither_loader_workers_nor_the_first_batch_change_a_batch(dataset: str) -> None:
    items = stream_of(dataset, seed=1)
    alone = list(batches(items, 2, 0, 5, workers=0))
    shared = list(batches(items, 2, 0, 5, workers=2))
    later = list(batches(items, 2, 3, 5, workers=1))
    assert len(alone) == len(shared) == 5
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert all(same(a, b) for a, b in zip(alone[3:], later, strict=True))


def test_loading_draws_nothing_from_the_global_generator(dataset: str) -> None:
    # Otherwise a resumed run's dropout differs: its loader starts once more.
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(batches(stream_of(dataset), 2, 0, 1, workers=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_plain_stream_shows_the_pairs_as_they_are(dataset: str) -> None:
    items = stream_of(dataset, augment=False)
    for index in range(7):
        pair, item = pasted_pair(index), items[index]
        # Up to JPEG; the styled versions are of flat grey and would be far off.
        assert np.abs(pixels(item.source).astype(float) - pair.source).mean() < 3
        assert np.abs(pixels(item.target).astype(float) - pair.target).mean() < 3
        truth = source_truth(pair, CELLS, CELLS, Warp(), Warp())
        assert np.array_equal(item.source_mask.numpy(), truth.mask)
        assert np.array_equal(item.to_target.numpy(), truth.positions)


def test_styled_versions_come_half_the_time_on_each_side(dataset: str, no_photometry: None) -> None:
    items = stream_of(dataset, seed=2)
    # Styled images of this dataset are flat.
    flat = np.array(
        [
            [pixels(image).astype(float).std() < 5 for image in (item.source, item.target)]
            for item in (items[number] for number in range(40))
        ]
    )
    assert 0.25 < flat.mean() < 0.75
    assert (flat[:, 0] != flat[:, 1]).any()


def test_sides_exchange_their_roles_half_the_time(dataset: str, no_photometry: None) -> None:
    # The target's disc is smaller than the source's: the first is the source's own or exchanged.
    items = [stream_of(dataset)[number] for number in range(40)]
    exchanged = np.mean([float(i.source_mask.sum()) < float(i.target_mask.sum()) for i in items])
    assert 0.25 < exchanged < 0.75


def test_both_sides_are_mirrored_alike(dataset: str) -> None:
    # A mirrored copy is another object: the map between the two sides keeps its sense of turning.
    for number in range(12):
        item = stream_of(dataset)[number]
        valid = item.source_valid.numpy()
        start = geometry.cell_centres(CELLS, CELLS)[valid]
        end = item.to_target.numpy()[valid]
        linear = np.linalg.lstsq(start - start.mean(0), end - end.mean(0), rcond=None)[0]
        assert np.linalg.det(linear) > 0.1


def test_batch_shapes_and_types(dataset: str) -> None:
    batch = next(batches(stream_of(dataset), 3, 0, 1, workers=0))
    assert isinstance(batch, Batch)
    expected = {
        "source": ((3, 3, SIZE, SIZE), torch.uint8),
        "target": ((3, 3, SIZE, SIZE), torch.uint8),
        "source_mask": ((3, CELLS, CELLS), torch.float32),
        "target_mask": ((3, CELLS, CELLS), torch.float32),
        "to_target": ((3, CELLS, CELLS, 2), torch.float32),
        "to_source": ((3, CELLS, CELLS, 2), torch.float32),
        "source_valid": ((3, CELLS, CELLS), torch.bool),
        "target_valid": ((3, CELLS, CELLS), torch.bool),
    }
    for name, (shape, dtype) in expected.items():
        tensor = getattr(batch, name)
        assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype), name
    for mask in (batch.source_mask, batch.target_mask):
        assert 0 <= float(mask.min()) < float(mask.max()) <= 1
    for positions, valid in (
        (batch.to_target, batch.source_valid), (batch.to_source, batch.target_valid)
    ):  # fmt: skip
        assert ((positions[valid] >= 0) & (positions[valid] <= 1)).all()


def test_images_are_shown_at_the_asked_size(dataset: str) -> None:
    item = stream_of(dataset, size=64, stride=16)[0]
    assert item.source.shape == (3, 64, 64)
    assert item.source_mask.shape == (4, 4)


def test_a_size_between_cells_is_refused(dataset: str) -> None:
    with pytest.raises(ValueError, match=r"100.*stride 8"):
        stream_of(dataset, size=100)


def test_datasets_with_val_alone_are_passed_over(dataset: str, tmp_path: Path) -> None:
    val_only = write_dataset(tmp_path / "val", [], [pasted_pair(0)])
    assert len(stream_of(val_only, dataset)) == 7
    assert len(stream_of(val_only, dataset, split="val")) == 3
    assert same(stream_of(val_only, dataset)[3], stream_of(dataset)[3])
    with pytest.raises(DatasetError, match="train"):
        stream_of(val_only)
