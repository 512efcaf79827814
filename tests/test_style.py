"""Styled versions: another look, the same geometry, of the blended target."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import textured

from generators.compose import ONE_OBJECT, Look, RejectedDraw, generate_pair
from generators.sources.index import Pool
from generators.style import Styler
from segswap.pair import Pair
from segswap.shards import read_pairs


class Fixed:
    """A random generator that draws a chosen picture and strength."""

    def __init__(self, picture: int, alpha: float) -> None:
        self._picture, self._alpha = picture, alpha

    def integers(self, _: int) -> int:
        return self._picture

    def uniform(self) -> float:
        return self._alpha


@pytest.fixture
def styler(tmp_path: Path) -> Styler:
    dark = textured(60, 80, 5) // 3
    cv2.imwrite(str(tmp_path / "dark.png"), dark)
    cv2.imwrite(str(tmp_path / "red.png"), dark + np.array([0, 0, 150], np.uint8))
    return Styler.from_folder("histogram", str(tmp_path))


def test_strength_0_changes_nothing_and_1_takes_the_distribution(styler: Styler) -> None:
    image = textured(100, 120, 1)
    same, record = styler(image, Fixed(0, 0.0))
    np.testing.assert_array_equal(same, image)
    assert record == {"method": "histogram", "alpha": 0.0, "image": "dark.png"}
    styled, record = styler(image, Fixed(1, 1.0))
    assert record["image"] == "red.png"
    wanted = styler.pictures["red.png"]
    for channel in range(3):
        quantiles = [np.percentile(a[..., channel], [5, 25, 50, 75, 95]) for a in (styled, wanted)]
        np.testing.assert_allclose(*quantiles, atol=6)


def test_styles_change_values_and_no_places(styler: Styler) -> None:
    """Histogram matching is monotone: what was brighter stays brighter."""
    image = textured(100, 120, 1)
    styled, _ = styler(image, Fixed(0, 1.0))
    order = np.argsort(image[..., 1].ravel(), kind="stable")
    assert (np.diff(styled[..., 1].ravel()[order].astype(int)) >= 0).all()


def styled_pair(pool: Pool, styler: Styler | None, seed: int = 0) -> Pair:
    look = Look(128, {"paste": 1.0}, styler)
    rng = np.random.default_rng(seed)
    while True:
        try:
            return generate_pair(pool, replace(ONE_OBJECT, dilation=4), look, rng)
        except RejectedDraw:
            continue


def test_the_blended_target_is_styled(shapes_pool: Pool, styler: Styler) -> None:
    """The published two-object generator styled the background before the objects were in it."""
    pair = styled_pair(shapes_pool, styler)
    names = sorted(styler.pictures)
    for side in ("source", "target"):
        record = pair.styles[side]
        again, _ = styler(getattr(pair, side), Fixed(names.index(record["image"]), record["alpha"]))
        shown = getattr(pair, f"{side}_styled")
        # The record holds the strength to four digits.
        assert np.abs(again.astype(int) - shown).max() <= 1
    assert pair.styles["source"] != pair.styles["target"]


def test_style_changes_nothing_else(shapes_pool: Pool, styler: Styler) -> None:
    plain, styled = styled_pair(shapes_pool, None), styled_pair(shapes_pool, styler)
    for name in ("source", "target", "source_mask", "target_mask"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(styled, name))


def test_styled_datasets_hold_both_versions(photos_dataset: Path) -> None:
    for pair in read_pairs(photos_dataset, "train"):
        for side in ("source", "target"):
            assert pair.styles[side]["method"] == "histogram"
            assert 0 <= pair.styles[side]["alpha"] <= 1
            shown = getattr(pair, f"{side}_styled")
            assert shown is not None
            assert shown.shape == pair.source.shape
