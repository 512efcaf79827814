"""Styled versions: another look, the same geometry, of the blended target."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, textured
from hypothesis import given
from hypothesis import strategies as st

from generators.composition.compose import generate_pair
from generators.composition.recipe import ONE_OBJECT, Look
from generators.sources.index import Pool
from generators.styles.style import (
    METHODS,
    Choice,
    Styler,
    adapt_fourier,
    adapt_pixels,
    style_pairs,
)
from pipelines.command import cli
from pipelines.command.tasks import run_inline
from pipelines.generation.config import GenerateConfig
from pipelines.generation.inputs import prepare
from segswap import geometry
from segswap.data.pair import Pair
from segswap.data.shards import read_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two style pictures: a dark one, and a dark one tinted red."""
    path = tmp_path_factory.mktemp("styles")
    dark = textured(60, 80, 5) // 3
    cv2.imwrite(str(path / "dark.png"), dark)
    (path / "more").mkdir()
    cv2.imwrite(str(path / "more" / "red.png"), dark + np.array([0, 0, 150], np.uint8))
    return str(path)


@pytest.mark.parametrize("method", METHODS)
def test_strength_0_changes_nothing_and_1_takes_the_look(method: str, folder: str) -> None:
    image = textured(100, 120, 1)
    styler = Styler.from_folder(method, folder)
    same, half, styled = styler.restyle(
        [image] * 3, [Choice("more/red.png", alpha) for alpha in (0.0, 0.5, 1.0)]
    )
    np.testing.assert_array_equal(same, image)
    wanted = styler.picture("more/red.png").mean(axis=(0, 1))
    # Dark values are clipped at 0, which raises the mean.
    np.testing.assert_allclose(styled.mean(axis=(0, 1)), wanted, atol=8)
    np.testing.assert_allclose(half, (image / 2 + styled / 2), atol=1)


def test_histograms_are_matched(folder: str) -> None:
    styler = Styler.from_folder("histogram", folder)
    image = textured(100, 120, 1)
    (styled,) = styler.restyle([image], [Choice("more/red.png", 1.0)])
    for channel in range(3):
        quantiles = [
            np.percentile(a[..., channel], [5, 25, 50, 75, 95])
            for a in (styled, styler.picture("more/red.png"))
        ]
        np.testing.assert_allclose(*quantiles, atol=6)
    # Histogram matching is monotone: what was brighter stays brighter.
    order = np.argsort(image[..., 1].ravel(), kind="stable")
    assert (np.diff(styled[..., 1].ravel()[order].astype(int)) >= 0).all()


def test_fourier_keeps_phases_and_high_frequencies() -> None:
    image, picture = textured(200, 300, 1), textured(80, 80, 2)
    before, after = (np.fft.fft2(a, axes=(0, 1)) for a in (image, adapt_fourier(image, picture)))
    wanted = np.fft.fft2(geometry.resize(picture, 300, 200), axes=(0, 1))
    low = np.zeros((200, 300), bool)
    low[np.ix_((-2, -1, 0, 1, 2), (-2, -1, 0, 1, 2))] = True  # 0.01 x 200 px to every side
    np.testing.assert_allclose(np.abs(after[low]), np.abs(wanted[low]), rtol=1e-3)
    np.testing.assert_allclose(after[~low], before[~low], atol=1e-4 * np.abs(before).max())
    turned = np.angle(after[low] / before[low])
    np.testing.assert_allclose(turned, 0, atol=1e-3)


def test_fourier_agrees_with_albumentations() -> None:
    """Its square of frequencies is not quite centred, so that the two differ a little."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from albumentations.augmentations.mixing.domain_adaptation_functional import (
        fourier_domain_adaptation,
    )

    image, picture = textured(300, 300, 1), textured(300, 300, 2) // 2
    theirs = fourier_domain_adaptation(image, picture, 0.01).astype(float)
    ours = np.clip(adapt_fourier(image, picture), 0, 255)
    change = np.abs(theirs - image).mean()
    assert np.abs(ours - theirs).mean() < 0.15 * change


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_pixels_take_mean_and_covariance(image_seed: int, picture_seed: int) -> None:
    image, picture = textured(60, 70, image_seed), textured(50, 40, picture_seed)
    adapted, wanted = (a.reshape(-1, 3) for a in (adapt_pixels(image, picture), picture))
    np.testing.assert_allclose(adapted.mean(axis=0), wanted.mean(axis=0), atol=1e-6)
    found, expected = (np.cov(a, rowvar=False) for a in (adapted, wanted))
    # But for the least deviation that is assumed of the image.
    np.testing.assert_allclose(found, expected, atol=0.03 * np.trace(expected))


def test_a_grey_photograph_keeps_its_noise_small() -> None:
    grey = np.repeat(textured(100, 100, 1)[..., :1], 3, axis=-1).astype(int)
    faint = np.clip(grey + np.random.default_rng(0).integers(-1, 2, grey.shape), 0, 255)
    adapted = adapt_pixels(faint.astype(np.uint8), textured(80, 80, 2))
    plain = adapt_pixels(grey.astype(np.uint8), textured(80, 80, 2))
    assert np.abs(adapted - plain).max() < 40


@pytest.mark.parametrize("method", METHODS)
def test_flat_images_and_styles_give_finite_colours(method: str) -> None:
    flat, picture = np.full((64, 64, 3), 90, np.uint8), textured(64, 64, 1)
    for pair in ((flat, picture), (picture, flat), (flat, flat)):
        assert np.isfinite(METHODS[method](*pair)).all()


def test_choices_are_drawn_over_all_pictures_and_strengths(folder: str) -> None:
    styler, rng = Styler.from_folder("pixel", folder), np.random.default_rng(0)
    choices = [styler.draw(rng) for _ in range(200)]
    assert {choice.image for choice in choices} == {"dark.png", "more/red.png"}
    alphas = [choice.alpha for choice in choices]
    assert min(alphas) < 0.05
    assert max(alphas) > 0.95
    assert np.mean(alphas) == pytest.approx(0.5, abs=0.07)


def test_style_pictures_at_a_url(folder: str) -> None:
    import fsspec

    store, image = fsspec.filesystem("memory"), textured(64, 64, 3)
    store.put(folder, "/style-pictures", recursive=True)
    choice = Choice("more/red.png", 0.7)
    there, here = (
        Styler.from_folder("histogram", place) for place in ("memory://style-pictures", folder)
    )
    assert there.names == here.names
    np.testing.assert_array_equal(there.restyle([image], [choice]), here.restyle([image], [choice]))


def test_a_broken_style_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no usable picture: broken\.png: not an image"):
        Styler.from_folder("histogram", str(tmp_path))


def test_a_run_is_not_finished_with_other_style_pictures(
    generate: Run, shapes: tuple[Path, Path], folder: str, tmp_path: Path
) -> None:
    styles, out = tmp_path / "styles", tmp_path / "out"
    shutil.copytree(folder, styles)
    flags = ["--annotations", shapes[0], "--images", shapes[1], "--size", 96, "--objects", 1,
             "--pairs", 4, "--workers=0", "--style", "pixel", "--styles", styles]  # fmt: skip
    config = cli.parse(GenerateConfig, [str(out), *map(str, flags)])
    prepare(config, config.settings, str(out / ".segswap"), run_inline)  # and then it was killed
    (styles / "dark.png").unlink()
    assert "have changed since" in generate(out, *flags, status=1).stderr
    shutil.rmtree(styles)
    shutil.copytree(folder, styles)  # with the files' times
    generate(out, *flags)


def styled_pair(pool: Pool, styler: Styler | None, seed: int = 0) -> Pair:
    look = Look(size=128, blends={"paste": 1.0}, styler=styler)
    recipe = replace(ONE_OBJECT, dilation=4)
    return generate_pair(pool, recipe, np.random.default_rng(seed), look=look)


@pytest.mark.parametrize("method", METHODS)
def test_the_blended_target_is_styled(method: str, shapes_pool: Pool, folder: str) -> None:
    """The published two-object generator styled the background before the objects were in it."""
    styler = Styler.from_folder(method, folder)
    pair = styled_pair(shapes_pool, styler)
    for side in ("source", "target"):
        record = pair.styles[side]
        assert record["method"] == method
        (again,) = styler.restyle([getattr(pair, side)], [Choice(record["image"], record["alpha"])])
        np.testing.assert_array_equal(again, getattr(pair, f"{side}_styled"))
    assert pair.styles["source"] != pair.styles["target"]


def test_style_changes_nothing_else(shapes_pool: Pool, folder: str) -> None:
    styler = Styler.from_folder("fda", folder)
    plain, styled = styled_pair(shapes_pool, None), styled_pair(shapes_pool, styler)
    for name in ("source", "target", "source_mask", "target_mask"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(styled, name))


def test_pairs_are_styled_together_as_alone(shapes_pool: Pool, folder: str) -> None:
    styler = Styler.from_folder("histogram", folder)
    pairs = [styled_pair(shapes_pool, None, seed) for seed in range(3)]
    together = style_pairs(pairs, styler, [np.random.default_rng(n) for n in range(3)])
    for number, pair in enumerate(pairs):
        (alone,) = style_pairs([pair], styler, [np.random.default_rng(number)])
        assert together[number].styles == alone.styles
        np.testing.assert_array_equal(together[number].target_styled, alone.target_styled)


def test_styled_datasets_hold_both_versions(photos_dataset: Path) -> None:
    for pair in read_pairs(photos_dataset, "train"):
        for side in ("source", "target"):
            assert pair.styles[side]["method"] == "histogram"
            assert 0 <= pair.styles[side]["alpha"] <= 1
            shown = getattr(pair, f"{side}_styled")
            assert shown is not None
            assert shown.shape == pair.source.shape
