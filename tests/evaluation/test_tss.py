"""TSS: flow in pixels becomes correspondences, mirrored pairs included."""

from pathlib import Path

import numpy as np
import pytest
from made_known import SHIFT, write_flo, write_tss

from segswap import geometry
from segswap.evaluation.known import KnownPair, score_known
from segswap.evaluation.tss import read_flo, tss_groups, tss_pairs
from segswap.models.prediction import Prediction


def the_pair(root: Path) -> KnownPair:
    (folders,) = tss_groups(root).values()
    (pair,) = tss_pairs(folders)
    return pair


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("flo", [False, True])
def test_correspondences_are_the_flow_and_pixels_along_them_agree(
    flipped: bool, flo: bool, tmp_path: Path
) -> None:
    pair = the_pair(write_tss(tmp_path, flipped, flo))
    assert pair.name == "one"
    sizes = np.array([(160, 120), (200, 140)])
    for known, image, mask, other, size, to, sign in (
        (pair.to_target, pair.source, pair.source_mask, pair.target, *sizes, 1),
        (pair.to_source, pair.target, pair.target_mask, pair.source, *sizes[::-1], -1),
    ):
        assert np.allclose(known.end * to - known.start * size, sign * np.array(SHIFT))
        assert len(known.start) == pytest.approx(50 * 60 / 16, rel=0.15)
        there, here = (
            geometry.sample(pixels, points[None])[0]
            for pixels, points in ((other, known.end), (image, known.start))
        )
        assert np.allclose(there, here, atol=1e-6)
        inside = geometry.sample(mask, known.start[None])[0]
        assert (inside == 255).all()


@pytest.mark.parametrize("flipped", [False, True])
def test_truth_scores_one_in_everything(flipped: bool, tmp_path: Path) -> None:
    pair = the_pair(write_tss(tmp_path, flipped))
    sizes = np.array([(160, 120), (200, 140)])
    grids = [geometry.cell_centres(height, width) for width, height in sizes]
    masks = [(mask > 0).astype(np.float32) for mask in (pair.source_mask, pair.target_mask)]
    there = (grids[0] * sizes[0] + SHIFT) / sizes[1]
    back = (grids[1] * sizes[1] - SHIFT) / sizes[0]

    def scores(off: float) -> tuple[float, ...]:
        prediction = Prediction(
            (there + np.array([off / 200, 0])).astype(np.float32), back.astype(np.float32), *masks
        )
        found = score_known(prediction, pair)
        return found.mask_iou, found.mask_precision, found.mask_recall, found.pck_1, found.pck_5

    assert scores(0) == (1, 1, 1, 1, 1)
    # The longer side counts, and both directions count as much: 2 px of 200 are 1%.
    assert scores(1.9) == (1, 1, 1, 1, 1)
    assert scores(2.1) == (1, 1, 1, 0.5, 1)
    assert scores(10.1) == (1, 1, 1, 0.5, 0.5)


def test_flow_is_judged_where_it_is_known_in_the_foreground(tmp_path: Path) -> None:
    folder = write_tss(tmp_path) / "cars" / "one"
    flow = np.load(folder / "flow1.npz")["flow"]
    flow[:, :80] = np.nan
    flow[:40] = 0  # known, but not of the object
    np.savez(folder / "flow1.npz", flow=flow)
    start = the_pair(tmp_path).to_target.start * (160, 120)
    assert start.min(axis=0) == pytest.approx([82.5, 42.5])
    assert start.max(axis=0) == pytest.approx([106.5, 86.5])


def test_groups_are_found_from_the_root_a_group_or_a_pair(tmp_path: Path) -> None:
    root = write_tss(tmp_path / "tss")
    other = root / "boats" / "two"
    other.parent.mkdir()
    (root / "cars" / "one").rename(other)
    write_tss(tmp_path / "more")
    (tmp_path / "more" / "cars" / "one").rename(root / "cars" / "one")
    assert {group: [p.name for p in paths] for group, paths in tss_groups(root).items()} == {
        "boats": ["two"], "cars": ["one"]
    }  # fmt: skip
    assert list(tss_groups(root / "cars")) == ["cars"]
    assert list(tss_groups(other)) == ["boats"]
    with pytest.raises(ValueError, match="none is not a folder"):
        tss_groups(tmp_path / "none")


def test_flo_files_that_are_none_or_cut_short_are_refused(tmp_path: Path) -> None:
    path, flow = tmp_path / "flow.flo", np.random.default_rng(0).normal(size=(5, 7, 2))
    write_flo(path, flow)
    whole = path.read_bytes()
    assert np.array_equal(read_flo(path), flow.astype(np.float32))
    negative = whole[:4] + np.array([-7, -5], "<i4").tobytes() + whole[12:]
    for content, message in (
        (b"", "no .flo file"), (b"PNG" + whole, "no .flo file"), (whole[:-4], "damaged"),
        (negative, "damaged"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_flo(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image2.png", None, r"image2\.png: missing"),
        ("mask1.png", None, r"mask1\.png: missing"),
        ("flow2.npz", None, r"flow2\.flo is missing"),
        ("flow2.npz", b"PK", r"flow2\.npz cannot be read"),
        ("flip_gt.txt", None, r"flip_gt\.txt holds ''; expected 0 or 1"),
        ("flip_gt.txt", b"maybe", "holds 'maybe'"),
    ],
)
def test_pairs_that_are_not_whole_are_refused_by_name(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = write_tss(tmp_path) / "cars" / "one" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        the_pair(tmp_path)


def test_files_of_different_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_tss(tmp_path) / "cars" / "one"
    np.savez(folder / "flow1.npz", flow=np.zeros((120, 159, 2), np.float32))
    with pytest.raises(ValueError, match=r"flow1 \(120, 159\); expected one height and width"):
        the_pair(tmp_path)
    np.savez(folder / "flow1.npz", flow=np.zeros((120, 160), np.float32))
    with pytest.raises(ValueError, match=r"expected \(H, W, 2\)"):
        the_pair(tmp_path)


def test_the_real_pairs_colours_agree_along_its_flow(data: Path) -> None:
    folder = data / "benchmarks" / "tss"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    pair = the_pair(folder)
    # Two cars of one kind, photographed one after the other. Masks land on masks.
    assert pair.source_mask is not None
    assert pair.target_mask is not None
    landed = geometry.sample(pair.target_mask, pair.to_target.end[None])[0]
    assert (landed > 127).mean() > 0.95
    returned = geometry.sample(pair.source_mask, pair.to_source.end[None])[0]
    assert (returned > 127).mean() > 0.95
