"""LDF: labels by hand, losses by hand, and a network whose passes and sizes are as published."""

import math

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from generators.networks.ldf.labels import METHODS, decoupled
from generators.networks.ldf.losses import LDFLoss, iou_loss, pass_terms
from generators.networks.ldf.network import LDF, Head, Pass, build_ldf

# --- labels ------------------------------------------------------------------------------------


def square() -> np.ndarray:
    mask = np.zeros((41, 41), bool)
    mask[10:31, 10:31] = True
    return mask


def blob(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(60, 80)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 5) > 0.02


def test_linear_labels_of_a_square() -> None:
    """The centre is 11 pixels from the background, the edge one."""
    body, detail = decoupled(square(), "linear")
    assert body.max() == body[20, 20] == 1
    assert body[10, 20] == pytest.approx(1 / 11)
    assert detail[10, 20] == pytest.approx(0.9091, abs=5e-5)


@pytest.mark.parametrize("seed", range(3))
def test_linear_labels_add_up_to_the_mask(seed: int) -> None:
    mask = blob(seed)
    body, detail = decoupled(mask, "linear")
    np.testing.assert_array_equal(body + detail, mask.astype(np.float32))
    for part in (body, detail):
        assert part.min() >= 0
        assert part.max() <= 1
        assert not part[~mask].any()
    deepest = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert body[deepest == deepest.max()].min() == 1


@pytest.mark.parametrize("method", METHODS)
def test_labels_turn_with_the_mask(method: str) -> None:
    mask = blob(3)
    for turned in (np.fliplr, np.rot90):
        for one, other in zip(
            decoupled(np.ascontiguousarray(turned(mask)), method), decoupled(mask, method),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_allclose(one, turned(other), atol=1e-6)


def test_released_labels_go_on_outside_the_mask() -> None:
    mask = square()
    body, detail = (np.rint(part * 255).astype(int) for part in decoupled(mask, "released"))
    np.testing.assert_array_equal((body + detail)[mask], 255)
    # One and two pixels outside the edge, on its middle; then nothing.
    assert [body[20, column] for column in (9, 8, 7)] == [100, 70, 0]
    assert body[20, 10] == 122
    assert int(((body > 0) & ~mask).sum()) == 184
    assert not detail[~mask].any()


@pytest.mark.parametrize("method", METHODS)
def test_labels_without_a_thing_or_without_background(method: str) -> None:
    for part in decoupled(np.zeros((20, 30), bool), method):
        assert not part.any()
    body, detail = decoupled(np.ones((20, 30), bool), method)
    assert body.min() == 1
    assert not detail.any()


# --- losses ------------------------------------------------------------------------------------


def test_iou_loss_by_hand() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    assert iou_loss(mask, mask) == 0
    mask[..., :4, :4] = 1
    assert iou_loss(mask, mask) == 0
    assert float(iou_loss(torch.zeros_like(mask), mask)) == pytest.approx(0.94118, abs=5e-6)


def test_soft_labels_leave_their_entropy() -> None:
    """No logits reach 0: the best are the labels' own, and leave ln 2 at a half."""
    half = torch.full((1, 1, 4, 4), 0.5)
    zero = torch.zeros_like(half)
    terms = pass_terms(Pass(zero, zero, zero), half, half, half)
    assert float(terms["body"]) == pytest.approx(math.log(2))
    soft = torch.tensor([0.1, 0.3, 0.8, 0.95]).view(1, 1, 2, 2)
    entropy = float(-(soft * soft.log() + (1 - soft) * (1 - soft).log()).mean())
    best = pass_terms(Pass(soft.logit(), soft.logit(), zero[..., :2, :2]), soft, soft, soft)
    assert float(best["body"]) == pytest.approx(entropy)
    for shift in (-0.5, 0.5):
        other = Pass(soft.logit() + shift, soft.logit(), zero[..., :2, :2])
        assert float(pass_terms(other, soft, soft, soft)["body"]) > entropy + 0.01


@torch.no_grad()
def test_the_loss_is_the_mean_of_the_passes_and_iou_is_of_saliency_alone(tiny: LDF) -> None:
    torch.manual_seed(1)
    images, mask, body, detail = torch.rand(2, 3, 64, 64), *torch.rand(3, 2, 1, 64, 64)
    tiny.eval()
    found = LDFLoss(tiny)(images, mask, body, detail)
    both = [pass_terms(each, mask, body, detail) for each in tiny(images)]
    for name in ("body", "detail", "saliency", "iou"):
        assert float(found[name]) == pytest.approx(float(both[0][name] + both[1][name]) / 2)
    total = sum(float(value) for terms in both for value in terms.values())
    assert float(found["loss"]) == pytest.approx(total / 2)
    alone = LDFLoss(tiny, decouple=False)(images, mask, body, detail)
    assert set(alone) == {"saliency", "iou", "loss"}


# --- the network -------------------------------------------------------------------------------


@pytest.fixture
def tiny() -> LDF:
    """A width of 8 on a random ResNet-18."""
    from segswap.backbones.backbones import build_backbone

    torch.manual_seed(0)
    return LDF(build_backbone("resnet18", (4, 8, 16, 32)), 8)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_preset_has_as_many_parameters() -> None:
    network = build_ldf("resnet50", 64)
    assert network.backbone.channels == (256, 512, 1024, 2048)
    head = network.head
    assert parameters(head) == 1_642_115
    laterals = parameters(head.body_laterals) + parameters(head.detail_laterals)
    decoders = parameters(head.body_decoder) + parameters(head.detail_decoder)
    heads = sum(parameters(each) for each in (head.body, head.detail, head.saliency))
    assert (laterals, decoders, heads) == (788_480, 296_448, 75_651)
    assert parameters(head.interaction) == 481_536


def test_the_default_stands_on_the_backbone_that_ships() -> None:
    network = build_ldf("lite2", 48, weights="shipped")
    assert network.backbone.has_shipped_weights()
    assert network.backbone.channels == (24, 48, 120, 208)
    assert network.backbone.strides == (4, 8, 16, 32)
    assert not any(p.requires_grad for p in network.backbone.parameters())
    assert parameters(network.head) == 687_075


@pytest.mark.parametrize("size", [(224, 224), (352, 352), (64, 160)])
def test_six_maps_of_the_images_size(tiny: LDF, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        passes = tiny.eval()(torch.rand(1, 3, *size))
    assert [logits.shape for each in passes for logits in each] == [(1, 1, *size)] * 6


def test_the_second_pass_without_feedback_is_the_first(
    tiny: LDF, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both passes share decoders and heads."""
    head: Head = tiny.eval().head
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        first, second = tiny(images)
        assert not torch.equal(first.saliency, second.saliency)
        inner = head.interaction.forward
        monkeypatch.setattr(
            head.interaction, "forward",
            lambda *maps: tuple([0 * each for each in side] for side in inner(*maps)),
        )  # fmt: skip
        first, second = tiny(images)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_biases_begin_at_zero(tiny: LDF) -> None:
    biases = [m.bias for m in tiny.head.modules() if isinstance(m, nn.Conv2d)]
    assert biases
    assert all(not bias.any() for bias in biases if bias is not None)
