"""What segswap-base, the model that everybody gets by default, says of real and of odd images."""

import os
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import segswap
from generators.sources.photos import persons
from segswap.files.images import read_image
from segswap.models.match import Match
from segswap.models.model import Model

DATA = Path(os.environ.get("SEGSWAP_DATA", Path(__file__).parents[2] / "../shared/data"))
# Normalised (x, y) on each person, and in what is around them.
ON = [[(0.43, 0.2), (0.4, 0.75)], [(0.42, 0.25), (0.4, 0.5)], [(0.5, 0.3), (0.3, 0.75)]]
BESIDE = [[(0.9, 0.08)], [(0.85, 0.15), (0.9, 0.6)], [(0.05, 0.3), (0.95, 0.2)]]

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def base() -> Model:
    return segswap.load()


def shown(mask: NDArray[np.float32], points: list[tuple[float, float]]) -> list[bool]:
    """Whether a mask covers normalised points."""
    height, width = mask.shape
    return [bool(mask[int(y * height), int(x * width)] > 0.5) for x, y in points]


def test_three_persons_are_what_their_photographs_share(base: Model) -> None:
    for one, other in combinations(range(3), 2):
        match = base.match(*(persons()[n] for n in (one, other)))
        for number, mask in ((one, match.source_mask), (other, match.target_mask)):
            assert all(shown(mask, ON[number])), (one, other, number)
            assert not any(shown(mask, BESIDE[number])), (one, other, number)
        # None of them is another.
        assert match.confidence(np.array(ON[one])).max() < 0.5


def test_a_photograph_is_the_very_same_as_its_crop(base: Model) -> None:
    image = read_image(persons()[0])
    match = base.match(image, np.ascontiguousarray(image[40:472, 60:492]))
    start = np.array([[0.4, 0.3], [0.5, 0.6]])
    end = (start * 512 - (60, 40)) / 432
    assert np.abs(match.points(start) - end).max() < 0.01
    assert match.confidence(start).min() > 0.5


def finite(match: Match) -> bool:
    found = [v for v in vars(match.prediction).values() if v is not None]
    return all(np.isfinite(v).all() for v in found) and np.isfinite(match.score)


@pytest.mark.parametrize(
    "colours",
    [(0, 0), (255, 255), (60, 200),
     *(pytest.param(c, marks=pytest.mark.slow) for c in ((128, 128), (0, 255)))],
)  # fmt: skip
def test_images_of_one_colour_share_nothing(base: Model, colours: tuple[int, int]) -> None:
    match = base.match(*(np.full((200, 300, 3), colour, np.uint8) for colour in colours))
    assert finite(match)
    assert (match.source_mask > 0.5).mean() == (match.target_mask > 0.5).mean() == 0
    assert match.score < 1


def test_an_image_of_one_colour_shares_nothing_with_a_photograph(base: Model) -> None:
    for colour in (0, 128, 255):
        blank = np.full((240, 320, 3), colour, np.uint8)
        match = base.match(persons()[0], blank)
        assert finite(match)
        assert (match.source_mask > 0.5).mean() < 0.02
        assert (match.target_mask > 0.5).mean() < 0.02


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (7, 2000), *(pytest.param(s, marks=pytest.mark.slow) for s in ((2, 3), (3000, 5)))],
)
def test_tiny_and_very_long_images_get_an_answer(base: Model, shape: tuple[int, int]) -> None:
    image = read_image(persons()[0])
    odd = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
    for pair in ((image, odd), (odd, image)):
        match = base.match(*pair)
        assert finite(match)
        assert match.source_mask.shape == pair[0].shape[:2]
        assert match.target_mask.shape == pair[1].shape[:2]


def test_an_image_of_a_hundred_megapixels(base: Model) -> None:
    image = read_image(persons()[0])
    large = cv2.resize(image, (10_000, 10_000), interpolation=cv2.INTER_LINEAR)
    match = base.match(large, image)
    assert finite(match)
    np.testing.assert_allclose(match.points(np.array([[0.5, 0.4]])), [[0.5, 0.4]], atol=0.01)


@pytest.mark.parametrize(
    "scene", ["camel", *(pytest.param(s, marks=pytest.mark.slow) for s in ("dog", "libby"))]
)
def test_frames_of_one_scene_rank_above_other_things_of_its_kind(base: Model, scene: str) -> None:
    """Whoever looks for this horse does not want all horses."""
    if not (DATA / "animals").is_dir():
        pytest.skip(f"needs the pictures of {DATA}; SEGSWAP_DATA names another folder")
    others = [
        path
        for folder in ("animals/images/horse", "animals/images/dog", "benchmarks/coseg/images/Bus")
        for path in sorted((DATA / folder).glob("*.jpg"))[:3]
    ]
    assert len(others) == 9
    first, later = sorted((DATA / "benchmarks/davis/images" / scene).glob("*.jpg"))[:2]
    own = base.match(first, later).score
    assert own > max(base.match(first, other).score for other in others)
