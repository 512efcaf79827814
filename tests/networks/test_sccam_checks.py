"""Checks of SC-CAM's specification on its maps as they are used: at several scales, mirrored."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_classes import tiny_trunk

from generators.networks.classes.predictor import SCALES, Predictor, threshold_of
from generators.networks.classes.sccam import SCCAM
from generators.networks.trained import Trained
from segswap import geometry


@pytest.fixture
def network() -> SCCAM:
    """The head of classes sees everywhere something, of the class 1 nothing."""
    torch.manual_seed(0)
    made = SCCAM(tiny_trunk(), 3, 2)
    with torch.no_grad():
        made.parent.weight.abs_()
        made.parent.weight[1] = 0
    return made


@pytest.fixture
def predictor(network: SCCAM) -> Predictor:
    return Predictor(network, "sccam", ["a", "b", "c"], 64)


IMAGE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)


@torch.no_grad()
def summed_by_hand(network: SCCAM) -> np.ndarray:
    """Maps (C, 64, 80) of all scales, and of the mirrored image turned back, together."""
    total = torch.zeros(1, 3, 64, 80)
    for scale in SCALES:
        factor = scale * 64 / 80
        small = geometry.resize(IMAGE, round(80 * factor), round(64 * factor))
        batch = torch.from_numpy(small).permute(2, 0, 1)[None] / 255
        for mirrored in (False, True):
            maps = network.parent(network.trunk(batch.flip(3) if mirrored else batch)[2]).relu()
            maps = maps.flip(3) if mirrored else maps
            total += F.interpolate(maps, (64, 80), mode="bilinear", align_corners=False)
    return np.asarray(total[0])


def test_maps_of_an_image_keep_their_least_value(predictor: Predictor, network: SCCAM) -> None:
    """The sums are divided by their largest value M and 1e-5; what is absent is exactly 0."""
    total = summed_by_hand(network)
    found = predictor.seen(IMAGE, (80, 64), [0, 1, 2]).maps
    top = total.max(axis=(1, 2))
    expected = total / (top[:, None, None] + 1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.max(axis=(1, 2)), top / (top + 1e-5), atol=1e-6)
    assert found.max() < 1
    assert min(found[0].min(), found[2].min()) > 0.01
    assert not found[1].any()


def test_a_mirrored_image_has_mirrored_maps_of_sub_categories(predictor: Predictor) -> None:
    one = predictor.sub_seen(IMAGE, (80, 64), [0, 2])
    other = predictor.sub_seen(np.ascontiguousarray(IMAGE[:, ::-1]), (80, 64), [0, 2])
    assert np.abs(one - one[..., ::-1]).max() > 0.1
    np.testing.assert_allclose(one, other[..., ::-1], atol=5e-3)


@pytest.mark.parametrize(
    ("method", "backbone", "affinity", "threshold"),
    [("seam", "resnet38", False, 0.26), ("sccam", "resnet38", False, 0.15),
     ("seam", "resnet38", True, 0.5), ("seam", "lite2", False, 0.5), ("sccam", "lite2", True, 0.5)],
)  # fmt: skip
def test_published_background_scores_are_of_the_published_network(
    method: str, backbone: str, affinity: bool, threshold: float
) -> None:
    said = Trained(method, {"backbone": backbone, "affinity": affinity})
    assert threshold_of(said) == threshold
