"""What MaCoSNet learns from: the published checks of its five terms, and its known warps."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from segswap.backbones.backbones import Backbone
from segswap.matchers.base import Answers, Batch, BatchSide, Matches, Side
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import mask_loss
from segswap.matchers.macosnet import terms
from segswap.matchers.macosnet.perceptual import (
    MARGIN,
    contrast,
    network,
    of_masked_features,
    of_masked_images,
)
from segswap.matchers.macosnet.scores import unit
from segswap.matchers.macosnet.synthetic import random_warps, synthetic_copies, warped
from segswap.matchers.macosnet.terms import (
    AFFINE,
    SCORES,
    SPLINE,
    TERMS,
    apart_loss,
    cycle_loss,
    kinds_loss,
    match_loss,
    matching,
    of_no_kinds,
    off_cycle,
    synthetic_loss,
    task_loss,
    transitivity_loss,
)
from segswap.matchers.registry import build
from segswap.matchers.sampling import cell_centres
from segswap.matchers.warps import AFFINE as IDENTITY
from segswap.matchers.warps import identity_spline

SIDE = 64
STILL = torch.tensor(IDENTITY)


def moved(x: float, y: float = 0.0) -> Tensor:
    return STILL + torch.tensor([0, 0, x, 0, 0, y])


def side(
    parameters: Tensor, mask: Tensor | None = None, scores: Tensor | None = None
) -> Side:  # fmt: skip
    """What is said of images: affine maps (B, 6), and mask logits (B, H, W), by default 0."""
    count = len(parameters)
    return Side(
        cell_centres(4, 4, STILL).expand(count, -1, -1, -1),
        torch.zeros(count, SIDE, SIDE) if mask is None else mask, torch.zeros(count, 1, 4, 4),
        {
            SCORES: torch.rand(count, 225, 15, 15) if scores is None else scores,
            AFFINE: parameters, SPLINE: identity_spline(STILL).expand(count, -1),
        },
    )  # fmt: skip


def labelled(kinds: list[int], first: int) -> BatchSide:
    """Images of one kind each, -1 for one that is not known, of photographs of their own."""
    labels = torch.full((len(kinds), 3), -1, dtype=torch.int8)
    for row, kind in zip(labels, kinds, strict=True):
        if kind >= 0:
            row[kind] = 1
    torch.manual_seed(first)
    return BatchSide(
        torch.randint(0, 256, (len(kinds), 3, SIDE, SIDE), dtype=torch.uint8),
        torch.arange(first, first + len(kinds))[:, None], labels=labels,
    )  # fmt: skip


def given(source: Side, target: Side, kinds: list[list[int]] | None = None, **more: Any) -> Answers:
    sources, targets = kinds or [[-1] * len(source.positions)] * 2
    batch = Batch(labelled(sources, 1), labelled(targets, 101))
    return Answers(Matches(source, target), batch, **more)


# --- matching, cycle, transitivity -----------------------------------------------------------


def test_masks_guide_the_matching() -> None:
    parameters, scores = STILL[None], torch.rand(1, 225, 15, 15)
    lost = [
        match_loss(given(*(side(parameters, torch.full((1, SIDE, SIDE), logit), scores),) * 2))
        for logit in (30.0, 0.0, -30.0)
    ]
    assert lost[0] < 0
    assert lost[1].item() == pytest.approx(lost[0].item() / 2, rel=1e-4)
    assert lost[2].item() == pytest.approx(0, abs=1e-6)


def test_a_cycle_costs_nothing_when_the_way_back_is_the_inverse() -> None:
    matrix = torch.tensor([[0.8, -0.3, 0.2], [0.4, 1.2, -0.1], [0, 0, 1.0]])
    inverse = torch.linalg.inv(matrix)[:2].flatten()[None]
    forth = matrix[:2].flatten()[None]
    assert off_cycle(forth, inverse).item() == pytest.approx(0, abs=2e-6)
    assert cycle_loss(given(side(forth), side(inverse))).item() == pytest.approx(0, abs=4e-6)


def test_a_cycle_that_does_not_come_back_costs_its_distance() -> None:
    t = 0.3
    assert off_cycle(moved(t)[None], STILL[None]).item() == pytest.approx(t, rel=1e-5)
    both = cycle_loss(given(side(moved(t)[None]), side(STILL[None])))
    assert both.item() == pytest.approx(2 * t, rel=1e-5)
    # The released code's number: squared pixels of an image of 240.
    assert (119.5 * t) ** 2 == pytest.approx((off_cycle(moved(t)[None], STILL[None]) * 119.5) ** 2)


class Knows:
    """A matcher whose affine maps are known: each image lies somewhere, as its features say."""

    masking = "features"

    def affine(self, way: Tensor) -> Tensor:
        return STILL + torch.nn.functional.pad(way, (2, 3))


def test_the_way_around_three_images_comes_home_where_maps_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terms, "grid_scores", lambda own, other: other - own)
    at = torch.tensor([[0.1], [0.4], [-0.2]]), torch.tensor([[0.0], [0.3], [0.5]])
    asked = Knows(), Encoding({"features": at[0]}), Encoding({"features": at[1]})
    kinds = [[0, 1, 0], [0, 1, 0]]
    there = asked[0].affine(at[1] - at[0])
    back = side(asked[0].affine(at[0] - at[1]))
    answers = given(side(there), back, kinds, asked=asked)
    assert transitivity_loss(answers).item() == pytest.approx(0, abs=2e-6)
    off = there + torch.tensor([0, 0, 0.2, 0, 0, 0])
    answers = given(side(off), back, kinds, asked=asked)
    assert transitivity_loss(answers).item() == pytest.approx(0.2, rel=1e-4)


@pytest.mark.parametrize("kinds", [[[0, 1], [0, 1]], [[-1, -1], [-1, -1]], [[0], [0]]])
def test_without_a_third_image_of_the_kind_there_is_no_way_around(kinds: list[list[int]]) -> None:
    still = side(STILL.expand(len(kinds[0]), -1))
    assert transitivity_loss(given(still, still, kinds)).item() == 0


# --- contrast --------------------------------------------------------------------------------


def test_what_is_alike_everywhere_costs_the_margin() -> None:
    features = torch.rand(2, 16)
    alike, apart = contrast((features, features), (features, features))
    assert alike.tolist() == [0, 0]
    assert apart.tolist() == [MARGIN, MARGIN]
    assert MARGIN == 2


def test_the_contrast_is_the_formulas() -> None:
    torch.manual_seed(0)
    a, b, c, d = torch.rand(4, 3, 16)
    alike, apart = contrast((a, b), (c, d), margin=1.0)
    assert torch.allclose(alike, (a - b).square().sum(1) / 16)
    halves = ((a - c).square().sum(1) + (b - d).square().sum(1)) / 32
    assert torch.allclose(apart, (1 - halves).clamp(min=0))
    assert contrast((a, b), (c + 9, d - 9))[1].tolist() == [0, 0, 0]


def test_the_frozen_network_is_one_of_photographs_that_learns_nothing() -> None:
    net = network(torch.device("cpu"))
    assert isinstance(net, Backbone)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert network(torch.device("cpu")) is net


@pytest.mark.parametrize("masking", [of_masked_features, of_masked_images])
def test_features_are_those_of_what_the_mask_leaves(masking: Any) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    left = torch.zeros(2, SIDE, SIDE)
    left[:, :, : SIDE // 2] = 1
    mask = left.clone().requires_grad_()
    objects, backgrounds = masking(images, mask)
    assert objects.shape == backgrounds.shape == (2, 120 + 208)
    exchanged = masking(images, 1 - left)
    assert torch.allclose(objects, exchanged[1], atol=1e-4)
    assert torch.allclose(backgrounds, exchanged[0], atol=1e-4)
    (gradient,) = torch.autograd.grad((objects - backgrounds).square().sum(), mask)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_a_mask_that_tells_nothing_makes_objects_and_backgrounds_alike() -> None:
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    for value in (0.0, 0.5, 1.0):
        objects, backgrounds = of_masked_features(images, torch.full((2, SIDE, SIDE), value))
        if value == 0.5:
            assert torch.allclose(objects, backgrounds, atol=1e-3)
        assert objects.isfinite().all()
        assert backgrounds.isfinite().all()


def test_objects_of_two_kinds_are_held_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects' features are given; of one kind they may be as alike as they are."""
    features = torch.tensor([[0.0], [0.0], [1.0]])
    monkeypatch.setattr(terms, "_described", lambda _: [(features, features)] * 2)
    still = side(STILL.expand(3, -1))
    same = kinds_loss(given(still, still, [[0, 0, 0]] * 2))
    assert same.item() == 0
    # Pairs 0 and 1 show kind 0, pair 2 kind 1: four meetings, each |1 - 0|^2 apart.
    assert kinds_loss(given(still, still, [[0, 0, 1]] * 2)).item() == pytest.approx(2 - 1)
    # Pairs that share nothing take no part.
    assert kinds_loss(given(still, still, [[0, 0, 1], [0, 0, 2]])).item() == 0


def test_masks_of_pairs_that_share_no_kind_should_be_empty() -> None:
    still = side(STILL.expand(2, -1))
    answers = given(still, still)
    assert apart_loss(answers).item() == 0
    logits = torch.stack([torch.full((SIDE, SIDE), 0.0), torch.full((SIDE, SIDE), 5.0)])
    wrong = side(STILL.expand(2, -1), logits)
    negatives = Matches(wrong, side(STILL.expand(2, -1), torch.full((2, SIDE, SIDE), -30.0)))
    for counted, lost in (((1, 0), math.log(2)), ((1, 1), (math.log(2) + 5.0067) / 2), ((0, 0), 0)):
        told = replace(
            answers, negatives=negatives, counted_apart=torch.tensor(counted, dtype=torch.float)
        )
        assert apart_loss(told).item() == pytest.approx(lost, rel=1e-4)


# --- task ------------------------------------------------------------------------------------


def test_masks_of_one_half_cost_twice_the_logarithm_of_2() -> None:
    still = side(STILL[None])
    assert task_loss(given(still, still)).item() == pytest.approx(2 * math.log(2), rel=1e-5)


def test_equal_masks_that_were_carried_as_they_lie_cost_nothing() -> None:
    mask = torch.full((1, SIDE, SIDE), -30.0)
    mask[:, 16:48, 16:40] = 30
    source = mask
    target = mask.roll(8, dims=2)
    there, back = moved(2 * 8 / SIDE * 240 / 239), moved(-2 * 8 / SIDE * 240 / 239)
    lost = task_loss(given(side(there[None], source), side(back[None], target)))
    off = task_loss(given(side(STILL[None], source), side(STILL[None], target)))
    assert lost < 0.05 * off


def test_the_task_teaches_masks_and_warps_but_not_the_mask_that_is_carried() -> None:
    masks = [torch.randn(1, SIDE, SIDE).requires_grad_() for _ in range(2)]
    warp = moved(0.1)[None].requires_grad_()
    # Nothing of the target lies where the source is: it learns from its own direction alone.
    far = moved(5.0)[None]
    lost = task_loss(given(side(warp, masks[0]), side(far, masks[1])))
    gradients = torch.autograd.grad(lost, [*masks, warp])
    assert all(g.abs().sum() > 0 for g in gradients)
    # Beyond the source nothing is shared: the target's mask goes to 0, whatever the source's is.
    assert (gradients[1] >= 0).all()


# --- pairs that share nothing ----------------------------------------------------------------


@pytest.mark.parametrize("term", ["match", "cycle", "task", "contrast"])
def test_pairs_that_share_no_kind_take_no_part(term: str) -> None:
    (compute,) = (own.compute for own in TERMS if own.name == term)
    torch.manual_seed(0)
    masks, maps = torch.randn(2, 2, SIDE, SIDE), STILL + 0.1 * torch.randn(2, 2, 6)
    scores = torch.rand(2, 225, 15, 15)
    sides = [side(m, k, scores) for m, k in zip(maps, masks, strict=True)]
    both = compute(given(*sides, [[0, 1], [0, 2]], asked=(Knows(), None, None)))
    alone = [side(m[:1], k[:1], scores[:1]) for m, k in zip(maps, masks, strict=True)]
    answers = given(*sides, [[0, 1], [0, 2]], asked=(Knows(), None, None))
    first = Batch(*(BatchSide._make(v if v is None else v[:1] for v in s) for s in answers.batch))
    one = compute(replace(answers, matches=Matches(*alone), batch=first))
    assert both.item() == pytest.approx(one.item(), rel=1e-5)
    assert matching(answers.batch).tolist() == [True, False]


def test_masks_of_kinds_teach_nothing() -> None:
    logits = torch.randn(3, SIDE, SIDE)
    sides = side(STILL.expand(3, -1), logits)
    answers = given(sides, sides, [[-1, 0, 0], [-1, 0, 1]])
    mask = (torch.rand(3, SIDE, SIDE) > 0.5).float()
    labels = answers.batch.source.labels
    assert labels is not None
    # The last pair's kinds are all known, and none is shared.
    known = [torch.tensor([[-1, -1, -1], row, other], dtype=torch.int8)
             for row, other in (([1, 0, 0], [1, 0, 0]), ([1, 0, 0], [0, 1, 0]))]  # fmt: skip
    batch = Batch(*(
        truth._replace(mask=mask, labels=labels)
        for truth, labels in zip(answers.batch, known, strict=True)
    ))  # fmt: skip
    found = of_no_kinds(mask_loss)(replace(answers, batch=batch))
    untold = mask.clone()
    untold[1] = torch.nan
    expected = mask_loss(
        replace(answers, batch=Batch(*(t._replace(mask=untold) for t in answers.batch)))
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


# --- known warps -----------------------------------------------------------------------------


def test_random_warps_are_as_far_as_published() -> None:
    torch.manual_seed(0)
    affines, splines = random_warps(4000, torch.device("cpu"))
    shifts = affines[:, [2, 5]]
    assert shifts.abs().max() <= 0.5
    assert shifts.abs().max() > 0.49
    noise = splines - identity_spline(STILL)
    assert 0.39 < noise.abs().max() <= 0.4
    diagonal, across = affines[:, [0, 4]], affines[:, [1, 3]]
    assert 0.5 * math.cos(math.radians(30)) <= diagonal.min()
    assert diagonal.max() <= 1.5
    assert across.abs().max() <= 1.5 * 0.5


def test_a_warped_image_shows_what_its_warp_says() -> None:
    ramp = cell_centres(SIDE, SIDE, STILL).permute(2, 0, 1)[None]
    images = torch.cat([ramp, ramp[:, :1]], dim=1)
    shift = 2 * 240 / 239 * 5 / SIDE
    shown = warped(images, moved(shift)[None])
    assert torch.allclose(shown[..., 5:-5], images.roll(-5, dims=3)[..., 5:-5], atol=1e-5)
    # Mirrored at the border.
    assert torch.allclose(shown[..., -5:], images[..., -5:].flip(3), atol=1e-5)
    assert torch.allclose(warped(images, STILL[None], identity_spline(STILL)[None]), images)


def test_copies_lie_where_their_warps_say_and_another_image_around_them() -> None:
    torch.manual_seed(0)
    cells = unit(torch.randn(40, 64, 15, 15))
    affines, splines = STILL.expand(40, -1), identity_spline(STILL).expand(40, -1)
    copies, shown = synthetic_copies(cells, affines, splines)
    assert torch.allclose(copies.square().sum(1), torch.ones(40, 15, 15), atol=1e-3)
    pasted = (shown == 0).flatten(1).any(1)
    assert 10 < pasted.sum() < 40
    own, others = ((copies * each).sum(1) for each in (cells, cells.roll(1, 0)))
    assert own[shown == 1].min() > 0.1
    assert torch.allclose(others[shown == 0], torch.ones(int((shown == 0).sum())), atol=1e-3)
    # Blended by at most four fifths, each copy as it is.
    assert own[shown == 1].max() > 0.9


def test_known_warps_are_learned_by_both_predictors() -> None:
    torch.manual_seed(0)
    matcher = build("macosnet", backbone="tf_efficientnet_lite0", backbone_weights=None).train()
    still = side(STILL.expand(2, -1))
    answers = given(still, still)
    encodings = tuple(matcher.encode(s.image.float() / 255) for s in answers.batch)
    learning = replace(answers, asked=(matcher, *encodings))
    lost = synthetic_loss(learning)
    lost.backward()
    for predictor in (matcher.affine, matcher.spline):
        assert predictor.linear.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in matcher.decoder.parameters())
    # Nothing is predicted yet: it costs what the warps move.
    assert 0.2 < lost.item() < 4
