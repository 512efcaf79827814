"""Planar sequences: homographies in pixels become correspondences, in both files' layouts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from made_known import HOMOGRAPHY, MOVED, write_sequence

from segswap import geometry
from segswap.evaluation.baselines import sift
from segswap.evaluation.known import score_known
from segswap.evaluation.planar import planar_pairs, planar_sequences, read_homography
from segswap.files.images import ImageError
from segswap.models.prediction import Prediction


@pytest.mark.parametrize("kind", ["oxford", "hpatches"])
def test_correspondences_are_the_homography_in_pixels(kind: str, tmp_path: Path) -> None:
    pairs = list(planar_pairs(write_sequence(tmp_path / "wall", kind)))
    assert [pair.name for pair in pairs] == ["wall-2", "wall-3"]
    for pair, matrix in zip(pairs, (HOMOGRAPHY, MOVED), strict=True):
        assert pair.source.shape == (150, 200, 3)
        assert pair.target.shape == (160, 220, 3)
        for first, second in (
            (pair.to_target.start, pair.to_target.end), (pair.to_source.end, pair.to_source.start)
        ):  # fmt: skip
            # The centre of OpenCV's pixel (x, y) is at (x + 0.5, y + 0.5).
            pixels = first * (200, 150) - 0.5
            expected = cv2.perspectiveTransform(pixels[None], matrix)[0]
            assert np.allclose(second * (220, 160) - 0.5, expected)
            assert geometry.inside(first).all()
            assert geometry.inside(second).all()
            assert len(first) > 1000


def test_pixels_along_the_correspondences_agree(tmp_path: Path) -> None:
    for pair in planar_pairs(write_sequence(tmp_path / "wall")):
        for known, a, b in (
            (pair.to_target, pair.source, pair.target), (pair.to_source, pair.target, pair.source)
        ):  # fmt: skip
            there, here = (
                geometry.sample(image, points[None])[0].astype(float)
                for image, points in ((b, known.end), (a, known.start))
            )
            assert np.median(np.abs(there - here)) < 6
            assert np.median(np.abs(np.roll(there, 3, axis=0) - here)) > 12


def test_points_beyond_the_horizon_are_left_out(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "wall")
    # The plane's horizon is the column x = 100: what is right of it is behind the camera, though
    # the division alone would put (150, 20) at (30, 24).
    matrix = np.array([[-0.5, 0, 60], [0, 0.4, -20], [-0.01, 0, 1]])
    assert np.allclose(geometry.transform_points(matrix, (150, 20)), (30, 24))
    np.savetxt(folder / "H1to2p", matrix)
    start = next(planar_pairs(folder)).to_target.start
    assert len(start) > 100
    assert (start[:, 0] < 0.5025).all()


def test_truth_scores_one_and_its_inverse_does_not(tmp_path: Path) -> None:
    pair = next(planar_pairs(write_sequence(tmp_path / "wall")))
    grid = geometry.cell_centres(100, 100)
    matrix = (
        np.linalg.inv(geometry.pixels_from_normalised(220, 160))
        @ HOMOGRAPHY
        @ geometry.pixels_from_normalised(200, 150)
    )
    there = geometry.transform_points(matrix, grid).astype(np.float32)
    back = geometry.transform_points(np.linalg.inv(matrix), grid).astype(np.float32)
    mask = np.ones((100, 100), np.float32)
    right = score_known(Prediction(there, back, mask, mask), pair)
    assert (right.pck_1, right.pck_3, right.pck_5) == (1, 1, 1)
    assert np.isnan([right.mask_iou, right.false_area]).all()
    assert score_known(Prediction(back, there, mask, mask), pair).pck_3 < 0.2
    # A method without an answer in one direction has half.
    half = score_known(Prediction(there, back * np.nan, mask, mask), pair)
    assert half.pck_1 == 0.5


def test_a_folder_of_sequences_is_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    paths = [write_sequence(tmp_path / name) for name in ("wall", "boat")]
    assert planar_sequences(tmp_path) == sorted(paths)
    assert planar_sequences(paths[0]) == [paths[0]]
    for wrong, message in (
        (tmp_path / "notes", "no planar sequence"),
        (tmp_path / "none", "not a folder"),
        (paths[0] / "img1.png", "not a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            planar_sequences(wrong)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("img1.png", None, r"lacks image 1; expected img1\.png"),
        ("img3.png", None, "lacks image 3"),
        ("H1to2p", None, r"lacks the homography of img2\.png; expected H1to2p"),
        ("H1to2p", b"1 0 0\n0 1\n", "cannot be read as a homography"),
        ("H1to2p", b"1 0 0 1 0 0", "3 x 3 numbers"),
        ("H1to2p", b"1 0 0\n0 1 0\n1 1 0\n", "3 x 3 numbers with an inverse"),
        ("H1to2p", b"1 0 0\n0 nan 0\n0 0 1\n", "3 x 3 numbers"),
        ("img2.png", b"no image", r"img2\.png: not an image"),
    ],
)
def test_unusable_sequences_are_refused_by_name(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    folder = write_sequence(tmp_path / "wall")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(planar_pairs(folder))


def test_damaged_portable_images_are_refused(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "wall", "hpatches")
    for content in (b"no image", (folder / "2.ppm").read_bytes()[:500]):
        (folder / "2.ppm").write_bytes(content)
        with pytest.raises(ImageError, match=r"2\.ppm: (not an image|cannot be decoded)"):
            list(planar_pairs(folder))


def test_a_file_of_a_homography_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="H1to9p cannot be read"):
        read_homography(tmp_path / "H1to9p")


def test_sift_finds_the_plane_of_graf(data: Path) -> None:
    folder = data / "benchmarks" / "oxford_graf"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    pair = next(planar_pairs(folder))
    scores = score_known(sift(pair.source, pair.target), pair)
    assert scores.pck_5 > 0.95
    assert scores.pck_1 > 0.4
