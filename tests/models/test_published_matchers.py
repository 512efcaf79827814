"""The published matchers that ship: small, on the shared backbone, and they find places again."""

import json

import numpy as np
import pytest
from conftest import textured

import segswap
from generators.sources.photos import photos
from segswap.files.images import read_image
from segswap.models.hub import find_model
from segswap.models.model import Model

NAMES = ("macosnet", "ncnet", "rtn", "sfnet")


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Model:
    return segswap.load(request.param)


def test_together_they_take_less_than_20_megabytes() -> None:
    folders = [find_model(name) for name in NAMES]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 20e6
    shared = {json.loads((folder / "model.json").read_text())["backbone"] for folder in folders}
    assert len(shared) == 1


def test_a_picture_and_a_part_of_it(model: Model) -> None:
    """Cropped and darker: places are found again, to a twentieth of the image."""
    image = read_image(photos()[1] / "astronaut.png")
    height, width = image.shape[:2]
    left, top, right, bottom = 40, 20, 460, 440
    part = (image[top:bottom, left:right] * 0.8).astype(np.uint8)
    line = np.linspace(0.15, 0.85, 12)
    inside = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    size = np.array([right - left, bottom - top])
    true = (inside * size + [left, top]) / [width, height]
    off = np.linalg.norm(model.match(part, image).points(inside) - true, axis=1)
    assert np.mean(off < 0.05) > 0.6
    # What they would answer who know nothing is further off.
    assert np.mean(np.linalg.norm(inside - true, axis=1) < 0.05) < 0.5


def test_blank_images_are_no_nan(model: Model) -> None:
    blank = np.full((90, 120, 3), 127, np.uint8)
    match = model.match(blank, textured(80, 100, 1))
    for values in (match.source_mask, match.target_mask, match.confidence([[0.5, 0.5]])):
        assert np.isfinite(values).all()
    assert np.isfinite(match.score)
