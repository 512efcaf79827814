"""The baselines find what is there to be found."""

import numpy as np
import pytest
from conftest import textured
from skimage.data import astronaut

from segswap import geometry
from segswap.evaluation.baselines import ELLIPSES, ellipse, ellipse_mask, nearest_features, sift
from segswap.evaluation.segmentation import jaccard
from segswap.models.prediction import enlarge


def test_sift_finds_a_known_affine_map_of_a_photograph() -> None:
    photo = geometry.resize(astronaut(), 320, 320)
    matrix = (
        geometry.translation(0.5, 0.45) @ geometry.rotation(15) @ geometry.scaling(0.8, 0.7)
        @ geometry.translation(-0.5, -0.5)
    )  # fmt: skip
    target = geometry.warp(photo, matrix, 280, 360, constant=0)
    found = sift(photo, target)
    centres = geometry.cell_centres(*found.source_mask.shape)
    inside = found.source_mask > 0.5
    assert inside.mean() > 0.3
    error = np.linalg.norm(found.to_target - geometry.transform_points(matrix, centres), axis=-1)
    assert error.max() < 0.01
    back = np.linalg.norm(
        found.to_source - geometry.transform_points(np.linalg.inv(matrix), centres), axis=-1
    )
    assert back[found.target_mask > 0.5].max() < 0.01
    # The hull of the target's inliers lies where the photograph was put.
    shown = geometry.inside(geometry.transform_points(np.linalg.inv(matrix), centres))
    assert (shown | (found.target_mask < 0.5)).mean() > 0.99


def test_sift_says_nothing_with_too_few_inliers() -> None:
    photo = geometry.resize(astronaut(), 160, 160)
    assert sift(photo, photo, 20).source_mask.any()
    nothing = sift(photo, photo, 100_000)
    assert not nothing.source_mask.any()
    assert np.isnan(nothing.to_target).all()


def test_sift_says_nothing_of_flat_images() -> None:
    flat = np.full((96, 128, 3), 90, np.uint8)
    for source, target in ((flat, flat), (flat, textured(96, 96, 0)), (textured(96, 96, 0), flat)):
        found = sift(source, target)
        assert np.isnan(found.to_target).all()
        assert np.isnan(found.to_source).all()
        assert not found.source_mask.any()
        assert not found.target_mask.any()


def test_nearest_features_find_a_shift_and_what_is_mutual() -> None:
    # The target shows the source's columns 2 to 5, and two of its own.
    features = np.random.default_rng(0).normal(size=(16, 5, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=0)
    source, target = features[..., :6], np.roll(features[..., :6], -2, axis=2)
    target[..., 4:] = features[..., 6:]
    found = nearest_features(source, target)
    assert found.to_target.shape == found.to_source.shape == (5, 6, 2)
    centres = geometry.cell_centres(5, 6)
    assert np.allclose(found.to_target[:, 2:], centres[:, :4])
    assert np.allclose(found.to_source[:, :4], centres[:, 2:])
    assert (found.source_mask[:, 2:] == 1).all()
    assert (found.target_mask[:, :4] == 1).all()


def test_nearest_features_against_a_plain_loop() -> None:
    generator = np.random.default_rng(3)
    source, target = generator.normal(size=(3, 4, 5)), generator.normal(size=(3, 2, 6))
    found = nearest_features(source.astype(np.float32), target.astype(np.float32))

    def nearest(a: np.ndarray, cell: tuple[int, int], b: np.ndarray) -> tuple[int, int]:
        return max(np.ndindex(b.shape[1:]), key=lambda other: a[(..., *cell)] @ b[(..., *other)])

    for a, b, positions, mask in (
        (source, target, found.to_target, found.source_mask),
        (target, source, found.to_source, found.target_mask),
    ):
        for cell in np.ndindex(a.shape[1:]):
            there = nearest(a, cell, b)
            centre = (there[1] + 0.5) / b.shape[2], (there[0] + 0.5) / b.shape[1]
            assert np.allclose(positions[cell], centre)
            back = nearest(b, there, a)
            assert mask[cell] == (max(abs(back[0] - cell[0]), abs(back[1] - cell[1])) <= 1)
    assert 0 < found.source_mask.mean() < 1


def test_an_ellipse_lies_in_the_middle_and_leaves_everything_at_its_place() -> None:
    mask = ellipse_mask(400, 200, 0.25)
    assert mask.shape == (200, 400)
    # Semi-axes of 100 and 50 px.
    assert mask.mean() == pytest.approx(np.pi / 16, rel=0.01)
    assert mask.any(axis=0).sum() == 200
    assert mask.any(axis=1).sum() == 100
    assert (mask == mask[::-1, ::-1]).all()
    source, target = textured(60, 80, 0), textured(90, 40, 1)
    for share in ELLIPSES:
        found = ellipse(source, target, share)
        points = np.array([[0.1, 0.2], [0.9, 0.5]])
        assert found.points(points) == pytest.approx(points)
        assert found.points_back(points) == pytest.approx(points)
        assert jaccard(enlarge(found.source_mask, 80, 60) > 0.5, ellipse_mask(80, 60, share)) > 0.95
