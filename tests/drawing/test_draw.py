"""Pictures of matches and curves show what they are meant to."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.training.curves import draw_curves
from segswap.drawing.draw import spread_points
from segswap.models.prediction import Prediction


def test_what_is_not_shared_is_darkened_and_points_are_joined() -> None:
    image = np.full((60, 60, 3), 200, np.uint8)
    mask = np.zeros((12, 12), np.float32)
    mask[:, 6:] = 1
    grid = np.full((12, 12, 2), 0.75, np.float32)
    picture = Prediction(grid, grid, mask, mask).draw(image, image, height=60, points=3)
    assert picture.shape == (60, 128, 3)
    assert picture[30, 5].tolist() == [66, 66, 66]
    assert (picture[2, 55] == 200).all()
    # The points meet at three quarters of the right image.
    met = picture[40:50, 68 + 40 : 68 + 50].astype(int)
    assert (np.ptp(met, axis=2) > 50).any()
    # Without a shared region nothing is joined, and without an answer neither.
    for prediction in (
        Prediction(grid, grid, 0 * mask, 0 * mask),
        Prediction(grid * np.nan, grid * np.nan, mask, mask),
    ):
        plain = prediction.draw(image, image, height=60)
        assert (np.ptp(plain[:, 60:68].astype(int), axis=2) == 0).all()


def test_points_are_spread_over_the_mask() -> None:
    mask = np.zeros((50, 80), bool)
    mask[10:40, 20:70] = True
    points = spread_points(mask, 9)
    assert points.shape == (9, 2)
    assert mask[(points[:, 1] * 50).astype(int), (points[:, 0] * 80).astype(int)].all()
    distances = np.linalg.norm((points[:, None] - points) * (80, 50), axis=2)
    assert distances[~np.eye(9, dtype=bool)].min() > 8
    assert len(spread_points(mask, 10**6)) == mask.sum()
    assert spread_points(mask & False, 5).shape == (0, 2)


def test_curves_of_an_empty_history_are_drawn(tmp_path: Path) -> None:
    draw_curves([], {"loss": ("mask",), "val scores": ("val_pck_5",)}, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height
