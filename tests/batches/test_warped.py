"""Pictures as pairs with their own warps: positions and masks are true, samples are repeatable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import textured
from made_kinds import BOX, HEIGHT, WIDTH, write_coco, write_folder
from made_matches import same_batch
from torch import Tensor

from segswap import geometry
from segswap.batches import warped
from segswap.batches.categories import CategoryStream
from segswap.batches.foregrounds import read_foregrounds
from segswap.batches.mixed import MixedStream
from segswap.batches.pictures import read_pictures
from segswap.batches.warped import WarpedStream, held_out_warps, warped_pair
from segswap.matchers.base import Batch, BatchSide

SIZE, STRIDE = 96, 8


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write_folder(tmp_path / "kinds", {"cat": [0, 1, 2], "dog": [3, 4]})


def stream_of(source: str, **changes: Any) -> WarpedStream:
    options = {"size": SIZE, "stride": STRIDE} | changes
    return WarpedStream(read_foregrounds(source), **options)


def sides(item: Batch) -> list[tuple[BatchSide, BatchSide]]:
    return list(item.both())


def sampled(image: Tensor, points: Tensor) -> np.ndarray:
    return geometry.sample(image.permute(1, 2, 0).numpy(), points.double().numpy())


def test_positions_show_the_same_spot(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warped, "photometric", lambda image, *_: image)
    stream = stream_of(folder)
    wrong, moved = [], []
    for number in range(12):
        for own, other in sides(stream[number]):
            assert own.positions is not None
            assert own.valid is not None
            centres = torch.from_numpy(geometry.cell_centres(12, 12))
            here, there = centres[own.valid], own.positions[own.valid].double()
            apart = np.abs(sampled(own.image, here) - sampled(other.image, there)).mean(-1)
            chance = np.abs(sampled(own.image, here) - sampled(other.image, here)).mean(-1)
            wrong.append(np.median(apart))
            moved.append(np.median(chance))
    assert np.mean(wrong) < 0.35 * np.mean(moved)


def test_masks_are_of_the_foreground_that_both_show(folder: str) -> None:
    stream = stream_of(folder)
    shares, beyond = [], 0
    for number in range(16):
        for own, _ in sides(stream[number]):
            assert own.mask is not None
            assert own.same is not None
            assert own.valid is not None
            # What belongs to the foreground belongs to what both show.
            assert (own.mask <= own.same + 1e-5).all()
            assert own.valid[own.mask > 0.99].all()
            shares.append(own.mask.mean().item())
            beyond += int((~own.valid).sum())
    assert beyond > 0
    whole = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1]) / (HEIGHT * WIDTH)
    assert 0.6 * whole < np.mean(shares) < 1.3 * whole


def test_maps_are_spread_as_published() -> None:
    """I + N(0, 0.15^2), where the image's corners lie at -1 and 1, from views to the picture."""
    rng = np.random.default_rng(0)
    to_corners = geometry.translation(-1, -1) @ geometry.scaling(2, 2)
    drawn = [
        to_corners @ np.linalg.inv(warped._affine(rng)) @ np.linalg.inv(to_corners)
        for _ in range(3000)
    ]
    assert np.mean(drawn, axis=0) == pytest.approx(np.eye(3), abs=0.02)
    assert np.std(drawn, axis=0)[:2] == pytest.approx(0.15, abs=0.02)


def test_the_pair_s_matrix_maps_one_view_to_the_other() -> None:
    image = textured(90, 120, 1)
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30:80] = True
    for seed in range(8):
        whole, foreground = warped_pair(image, mask, np.random.default_rng(seed), 160, key="k")
        matrix = whole.objects[0].target_from_source
        carried = geometry.warp(whole.source, matrix, 160, 160).astype(float)
        shown = geometry.warp_labels(whole.source_mask, matrix, 160, 160) * whole.target_mask > 0
        assert shown.mean() > 0.1
        assert np.abs(carried - whole.target)[shown].mean() < 9
        assert (foreground.source_mask <= whole.source_mask).all()
        both = geometry.warp_labels(foreground.source_mask, matrix, 160, 160) * shown
        assert np.mean(both != foreground.target_mask * shown) < 0.02


def test_a_sample_follows_from_its_number_alone(folder: str) -> None:
    one, other = stream_of(folder), stream_of(folder, workers=1)
    (batch,) = one.batches(3, 2, 3)
    (loaded,) = other.batches(3, 2, 3)
    assert same_batch(batch, loaded)
    assert same_batch(Batch.joined([other[6], other[7], other[8]]), batch)
    assert not same_batch(one[6], stream_of(folder, seed=1)[6])
    assert one.name(6).endswith(".png, warped")
    assert torch.equal(one[6].source.shown, one[6].target.shown)
    assert len({one[n].source.shown[0].item() for n in range(40)}) == 5


def test_a_matcher_of_kinds_is_told_no_masks(folder: str) -> None:
    stream = stream_of(folder, masked=False, mask_stride=4)
    assert stream.truth == {"pair", "positions", "same"}
    assert stream[0].source.mask is None
    finer = stream_of(folder, mask_stride=4)
    assert finer[0].truth == finer.truth == {"pair", "positions", "same", "mask"}
    assert finer[0].source.mask is not None
    assert finer[0].source.mask.shape == (24, 24)


def test_they_mix_with_pairs_of_kinds(folder: str, tmp_path: Path) -> None:
    pictures = read_pictures(write_coco(tmp_path / "coco"))
    grids = {"size": SIZE, "stride": STRIDE}
    parts = [CategoryStream(pictures, **grids), stream_of(folder)]
    mixed = MixedStream(
        parts, [1, 1], **grids, kinds=len(pictures.kinds), keypoints=len(pictures.keypoints)
    )
    (batch,) = mixed.batches(8, 0, 1)
    assert batch.truth == {"pair", "mask", "positions", "same", "keypoints", "label"}


def test_a_picture_that_cannot_be_read_is_passed_over(folder: str) -> None:
    found = read_foregrounds(folder)
    bad = Path(found.pictures[0].path)
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])  # since it was looked at
    with pytest.raises(ValueError, match=bad.name):
        list(WarpedStream(found, size=SIZE, stride=STRIDE).batches(8, 0, 4))
    stream = WarpedStream(found, size=SIZE, stride=STRIDE, skip_bad=True)
    list(stream.batches(8, 0, 4))
    assert list(stream.skipped) == [0]
    for picture in found.pictures[1:]:
        Path(picture.path).write_bytes(b"")
    with pytest.raises(ValueError, match="no picture can be read: "):
        stream[0]


def test_held_out_pictures_are_warped_for_scores(folder: str) -> None:
    (Path(folder) / "heldout.txt").write_text("cat/0.png\ndog/3.png\ncat/2.png\n")
    found = read_foregrounds(folder)
    pairs = held_out_warps([found], 2, SIZE)
    assert [pair.source.shape for pair in pairs] == [(SIZE, SIZE, 3)] * 2
    assert np.array_equal(pairs[0].source, held_out_warps([found], 2, SIZE)[0].source)
    assert all(pair.source_mask.any() and len(pair.objects) == 1 for pair in pairs)
    assert held_out_warps([read_foregrounds(folder)], 9, SIZE)[2].index == 2
    bad = Path(found.held_out[0].path)
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(ValueError, match=bad.name):
        held_out_warps([found], 2, SIZE)
    assert len(held_out_warps([found], 3, SIZE, skip_bad=True)) == 2
