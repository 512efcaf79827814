"""Checks of SEAM's specification: a constant map's spread, the walk by hand, absent classes."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from made_classes import CLASSES, picture, tiny_trunk
from torch import Tensor

from generators.networks.cam import ClassMap
from generators.networks.classes.affinity import transitions, walked
from generators.networks.classes.predictor import Predictor
from generators.networks.classes.seam import SEAM, spread
from generators.segments.common.classes import class_regions


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def test_a_constant_map_is_spread_to_itself() -> None:
    """To 1e-6, as specified: among as many places, what the sums are kept from 0 by is little."""
    constant = torch.full((1, 2, 24, 24), 0.7).double()
    found = spread(constant, drawn(1, 8, 24, 24))
    torch.testing.assert_close(found, constant, atol=1e-6, rtol=0)
    torch.manual_seed(0)
    network = SEAM(tiny_trunk(), 3).eval()
    assert network.pcm is not None
    first, second, _ = network.trunk(torch.rand(1, 3, 96, 96))
    refined = network.pcm(torch.rand(1, 3, 96, 96), first, second, torch.full((1, 4, 12, 12), 0.7))
    assert refined.shape == (1, 4, 24, 24)
    torch.testing.assert_close(refined, torch.full_like(refined, 0.7), atol=1e-6, rtol=0)


def step_by_hand(features: Tensor) -> Tensor:
    """One step among all places nearer than 5 cells: eighth powers of affinities, by column."""
    rows, columns = features.shape[-2:]
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    values = features.double().flatten(1).T
    apart = (values[:, None] - values).abs().mean(dim=2)
    matrix = torch.exp(-apart) ** 8 * (torch.cdist(places, places) < 5)
    return matrix / matrix.sum(dim=0)


def test_a_step_by_hand() -> None:
    features = 0.5 * drawn(6, 7, 9).float()
    expected = step_by_hand(features)
    torch.testing.assert_close(transitions(features).double(), expected, atol=1e-6, rtol=0)


def test_the_walk_is_of_64_steps() -> None:
    """With a background of (1 - max)^6, of all of which each class then has its share."""
    features = 0.7 * drawn(6, 7, 9).float()
    maps = torch.rand(2, 14, 18, generator=torch.Generator().manual_seed(1))
    background = (1 - maps.amax(dim=0, keepdim=True)) ** 6
    cells = F.avg_pool2d(torch.cat([background, maps]), 2).double().flatten(1)
    step, shares = step_by_hand(features), {}
    for steps in (32, 64, 128):
        moved = cells @ torch.linalg.matrix_power(step, steps)
        shares[steps] = (moved / moved.sum(dim=0))[1:].view(2, 7, 9)
    found = walked(maps, features).double()
    torch.testing.assert_close(found, shares[64], atol=1e-4, rtol=0)
    assert min(float((found - shares[other]).abs().max()) for other in (32, 128)) > 1e-2


@torch.no_grad()
def test_a_class_that_is_nowhere_seen_has_no_map_after_the_walk() -> None:
    torch.manual_seed(0)
    network = SEAM(tiny_trunk(), 3, affinity=True)
    network.classifier.weight[1:3].abs_()  # the class 0 and, to be nowhere, the class 1
    network.classifier.weight[2] = 0
    predictor = Predictor(network, "seam", ["a", "b", "c"], 64)
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    found = predictor.seen(image, (80, 64), [0, 1])
    assert found.chosen.tolist() == [0, 1]
    assert found.maps[0].any()
    assert not found.maps[1].any()
    alone = predictor.seen(image, (80, 64), [0])
    np.testing.assert_allclose(alone.maps[0], found.maps[0], atol=1e-5)


def test_maps_of_an_image_begin_at_0() -> None:
    """Sums of scales and mirrors are brought to 0 to 1 by their least and largest values."""
    torch.manual_seed(0)
    predictor = Predictor(SEAM(tiny_trunk(), 3), "seam", ["a", "b", "c"], 64)
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    found = predictor.seen(image, (80, 64), [0, 1, 2]).maps
    assert found.max(axis=(1, 2)).max() > 0.99
    assert found.max() < 1
    assert not found.min(axis=(1, 2)).any()


def test_refinement_gives_a_class_that_is_nowhere_seen_nothing() -> None:
    """GrabCut stands in the place of a CRF."""
    image, masks = picture(0, CLASSES[:1])
    rgb = np.ascontiguousarray(image[..., ::-1])
    seen = ClassMap("disc", 0.9, cv2.GaussianBlur(masks["disc"].astype(np.float32), (0, 0), 3))
    absent = ClassMap("square", 0.8, np.zeros_like(seen.map))
    (alone,) = class_regions(rgb, [seen], 0.5)
    one, other = class_regions(rgb, [seen, absent], 0.5)
    assert np.asarray(alone.labels).any()
    np.testing.assert_array_equal(one.labels, alone.labels)
    assert not np.asarray(other.labels).any()
