"""SEAM: its pixel correlation module, what each loss is, and what it teaches."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from made_classes import tiny_trunk
from torch import Tensor, nn

from generators.networks.classes.network import soft_margin
from generators.networks.classes.predictor import Predictor, from_least
from generators.networks.classes.seam import SEAM, alike, pcm_input, spread
from generators.networks.classes.seam_losses import (
    SEAMLoss,
    classified,
    difference,
    lowest,
    one_hot,
    rescaled,
    scaled,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def network() -> SEAM:
    torch.manual_seed(0)
    return SEAM(tiny_trunk(), 3)


IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[1.0, 0, 1], [0, 1, 0]])

# --- the pixel correlation module --------------------------------------------------------------


def test_the_published_module_has_as_many_weights() -> None:
    trunk = tiny_trunk()
    trunk.channels = (512, 1024, 4096)
    made = SEAM(trunk, 20)
    assert made.pcm is not None
    counts = [p.numel() for p in made.pcm.parameters()]
    assert counts == [64 * 512, 128 * 1024, 192 * 195]
    assert made.classifier.weight.shape == (21, 4096, 1, 1)
    assert made.classifier.bias is None


def test_affinities_to_a_place_sum_to_one() -> None:
    found = alike(drawn(2, 8, 30))
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 30).double(), atol=1e-4, rtol=0)


def test_spread_maps_stay_what_they_are() -> None:
    """A constant map is kept, values stay in their range, and shares of a place sum to one."""
    features = drawn(1, 8, 5, 6)
    constant = torch.full((1, 2, 5, 6), 0.7).double()
    torch.testing.assert_close(spread(constant, features), constant, atol=1e-4, rtol=0)
    maps = drawn(1, 4, 5, 6, seed=1).softmax(dim=1)
    found = spread(maps, features)
    assert found.max() <= maps.max()
    assert found.min() >= maps.min() - 1e-4
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 5, 6).double(), atol=1e-4, rtol=0)


def test_orthogonal_features_spread_nothing_and_equal_ones_all() -> None:
    maps = drawn(1, 3, 2, 4)
    apart = torch.eye(8).double().view(1, 8, 2, 4)
    torch.testing.assert_close(spread(maps, apart), maps, atol=1e-4, rtol=0)
    same = drawn(1, 8, 1, 1).expand(1, 8, 2, 4)
    means = maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)
    torch.testing.assert_close(spread(maps, same), means, atol=1e-4, rtol=0)


def test_what_the_module_is_given() -> None:
    maps = torch.tensor([[[[9.0, 9]], [[2.0, 1]], [[1.0, 4]], [[-3.0, -1]]]])
    found = pcm_input(maps)[0, :, 0]
    # Divided by 2 and 4; the second class is the larger one at the second place alone.
    expected = [[0, 0], [1, 0], [0, 1], [0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected).float(), atol=2e-5, rtol=0)
    weak = pcm_input(torch.tensor([[[[0.0, 0]], [[1.0, 0.25]], [[0.1, 0.05]]]]))[0, :, 0]
    expected_weak = [[0, 0.5], [1, 0], [0, 0.5]]
    torch.testing.assert_close(weak, torch.tensor(expected_weak).float(), atol=3e-4, rtol=0)


# --- losses ------------------------------------------------------------------------------------


def test_soft_margin_of_zero_logits() -> None:
    assert float(soft_margin(torch.zeros(2, 3), LABELS)) == pytest.approx(math.log(2))
    assert float(classified(torch.zeros(2, 4, 5, 5), LABELS)) == pytest.approx(math.log(2))


def equivariance(layer: Callable[[Tensor], Tensor], change: Callable[[Tensor], Tensor]) -> float:
    """L_ER of maps as they are."""
    images = drawn(2, 3, 24, 24)
    return float(difference(change(layer(images)), layer(change(images))))


def smaller(maps: Tensor) -> Tensor:
    return rescaled(maps, (7, 7))


def mirrored(maps: Tensor) -> Tensor:
    return maps.flip(3)


@torch.no_grad()
def test_equivariance_of_layers() -> None:
    """Linear layers of 1 x 1 commute with a change of size, symmetrical ones with a mirror."""
    torch.manual_seed(0)
    pixel = nn.Conv2d(3, 4, 1, bias=False).double()
    assert equivariance(pixel, smaller) < 1e-15
    assert equivariance(nn.Sequential(pixel, nn.ReLU()), smaller) > 1e-3
    wide = nn.Conv2d(3, 4, 3, padding=1, bias=False).double()
    assert equivariance(wide, mirrored) > 1e-3
    wide.weight.copy_((wide.weight + wide.weight.flip(3)) / 2)
    assert equivariance(wide, mirrored) < 1e-15


@torch.no_grad()
def test_an_unchanged_image_has_no_loss_without_dropout(network: SEAM) -> None:
    loss = SEAMLoss(network, rescale=1.0)
    network.eval()
    assert float(loss(IMAGES, LABELS)["er"]) == 0
    network.train()
    assert float(loss(IMAGES, LABELS)["er"]) > 0


def test_scaled_maps() -> None:
    maps = drawn(2, 3, 6, 7).float() * 4 + 1
    found = scaled(maps)
    assert found.min() == 0
    assert 0.999 < found.max() < 1
    torch.testing.assert_close(scaled(7 * maps), found, atol=1e-5, rtol=0)
    for constant in (3.0, 0.0, -2.0):
        assert not scaled(torch.full((1, 2, 4, 4), constant)).any()
    inference = from_least(maps[0].relu())
    assert inference.min() == 0
    assert 0.999 < inference.max() < 1


def test_a_quarter_of_the_places_should_be_empty() -> None:
    maps = torch.ones(1, 2, 4, 4)
    assert float(lowest(maps)) == 1
    maps[:, :, 0] = 0
    assert float(lowest(maps)) == 0
    maps[:, 1, 0] = 0.5  # the largest class counts
    assert float(lowest(maps)) == 0.5


def test_the_largest_class_is_kept() -> None:
    maps = torch.tensor([[[[0.3]], [[0.2]], [[0.6]]]])
    torch.testing.assert_close(one_hot(maps).flatten(), torch.tensor([0.4, 0, 0.6]))


def test_the_hardest_fifth_counts(network: SEAM) -> None:
    told = torch.arange(100.0).view(1, 1, 10, 10)
    mined, all_ = SEAMLoss(network), SEAMLoss(network, without=("mining",))
    assert float(mined._apart(told, 0 * told)) == np.arange(80, 100).mean()
    assert float(all_._apart(told, 0 * told)) == np.arange(100).mean()
    assert int(21 * 134 * 134 * 0.2) == 75_415  # as published


@torch.no_grad()
def test_the_loss_is_the_sum_of_its_terms_by_hand(network: SEAM) -> None:
    network.eval()
    found = SEAMLoss(network, 0.5)(IMAGES, LABELS)
    little = torch.nn.functional.interpolate(
        IMAGES, scale_factor=0.5, mode="bilinear", align_corners=True
    )
    (o, rv_o), (t, rv_t) = network(IMAGES), network(little)
    assert rv_o is not None
    assert rv_t is not None
    assert o.shape == rv_o.shape == (2, 4, 64, 64)
    y = torch.cat([torch.ones(2, 1), LABELS], dim=1)[:, :, None, None]

    def n(x: Tensor) -> Tensor:
        x = x.relu()
        low, high = (f(x.flatten(2), dim=2)[..., None, None] for f in (torch.amin, torch.amax))
        return ((x - low - 1e-5) / (high - low + 1e-5)).relu()

    def hard(x: Tensor) -> float:
        values = np.sort(x.abs().flatten(1).numpy(), axis=1)
        return float(values[:, -(values.shape[1] // 5) :].mean())

    one, other = rescaled(n(o), (32, 32)) * y, n(t) * y
    cls = [soft_margin(maps[:, 1:].mean(dim=(2, 3)), LABELS) for maps in (o, t)]
    expected = {
        "cls": float(cls[0] + cls[1]) / 2,
        "er": float((one - other)[:, 1:].abs().mean()),
        "ecr": hard(one_hot(other) - rescaled(n(rv_o), (32, 32)) * y)
        + hard(one_hot(one) - n(rv_t) * y),
        "rvmin": float(lowest((rv_o * y)[:, 1:]) + lowest((rv_t * y)[:, 1:])) / 2,
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5), name
    assert float(found["loss"]) == pytest.approx(sum(expected.values()), rel=1e-5)


@pytest.mark.parametrize("term", ["ecr", "rvmin"])
def test_refined_maps_teach_their_module_alone(term: str, network: SEAM) -> None:
    SEAMLoss(network)(IMAGES, LABELS)[term].backward()
    for name, value in network.named_parameters():
        taught = value.grad is not None and bool(value.grad.any())
        assert taught == name.startswith("pcm."), name


def test_the_other_terms_teach_trunk_and_classifier(network: SEAM) -> None:
    """All but the row of the background, which nothing teaches."""
    found = SEAMLoss(network)(IMAGES, LABELS)
    (found["cls"] + found["er"]).backward()
    assert network.pcm is not None
    assert all(p.grad is None or not p.grad.any() for p in network.pcm.parameters())
    assert network.trunk.net.get_parameter("last.weight").grad is not None
    gradient = network.classifier.weight.grad
    assert gradient is not None
    assert not gradient[0].any()
    assert gradient[1:].any()


def test_parts_that_are_left_out() -> None:
    plain = SEAM(tiny_trunk(), 3, pcm=False)
    assert plain.pcm is None
    found = SEAMLoss(plain, 0.3, ("er", "pcm", "mining"))(IMAGES, LABELS)
    assert set(found) == {"cls", "loss"}
    logits, maps = plain.eval().seen(IMAGES)
    own = plain.classifier(plain.trunk(IMAGES)[2])[:, 1:]
    torch.testing.assert_close(maps, own.relu())
    torch.testing.assert_close(logits, own.mean(dim=(2, 3)))


@torch.no_grad()
def test_what_is_seen_are_the_refined_maps(network: SEAM) -> None:
    """At the cells of the trunk's finest map; a mirrored image has mirrored ones."""
    network.eval()
    maps = network.seen(IMAGES)[1]
    assert maps.shape == (2, 3, 16, 16)
    assert maps.min() >= 0
    predictor = Predictor(network, "seam", ["a", "b", "c"], 64)
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    one = predictor.seen(image, (80, 64), [1, 2])
    other = predictor.seen(np.ascontiguousarray(image[:, ::-1]), (80, 64), [1, 2])
    assert one.maps.shape == (2, 64, 80)
    np.testing.assert_allclose(one.maps, other.maps[..., ::-1], atol=2e-2)
    assert 0 <= one.maps.min() <= one.maps.max() < 1
