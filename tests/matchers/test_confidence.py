"""Masks from confidence and agreement, and the two numbers that make probabilities of them."""

from pathlib import Path

import pytest
import torch
from conftest import textured
from made_matches import batch_of
from torch import Tensor

import segswap
from segswap.matchers.base import Batch, Matches
from segswap.matchers.confidence import Calibration, calibrate, fitted, mask_from_confidence
from segswap.matchers.registry import build
from segswap.matchers.sampling import cell_centres
from segswap.models.model import Model

GRID = (6, 8)
SIZE = 96


def home(rows: int = 6, columns: int = 8) -> Tensor:
    return cell_centres(rows, columns, torch.zeros(1))[None]


@pytest.mark.parametrize("confidence", [0.001, 0.3, 0.9])
def test_where_the_way_back_leads_home_it_is_the_confidence(confidence: float) -> None:
    sure = torch.full((1, *GRID), confidence)
    shift = torch.tensor([0.125, 0.0])
    logits = mask_from_confidence(sure, home() + shift, home(3, 4) - shift)
    assert torch.allclose(logits.sigmoid(), sure, atol=1e-4)


def test_a_way_that_ends_a_twentieth_off_counts_half() -> None:
    sure = torch.full((1, *GRID), 0.8)
    for times, off in ((0.5, 0.05), (0.25, 0.1)):
        there = home() + torch.tensor([0.0, off])
        # Towards the edge, too: beyond the outermost cells the way goes on.
        assert torch.allclose(
            mask_from_confidence(sure, there, home()).sigmoid(), times * sure, atol=1e-3
        )


def test_gradients_are_finite_and_reach_even_what_is_most_unsure() -> None:
    sure = torch.tensor([0.0, 1e-6, 0.5, 1.0]).view(1, 2, 2).requires_grad_()
    there = home(2, 2).clone().requires_grad_()
    logits = mask_from_confidence(sure, there, home(2, 2) + 0.3)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert there.grad is not None
    assert there.grad.isfinite().all()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()
    assert (sure.grad.flatten()[1:] > 0).all()


def test_the_fit_finds_the_numbers_that_made_the_masks() -> None:
    torch.manual_seed(0)
    evidence = 3 * torch.randn(20_000) - 4
    mask = torch.bernoulli((0.8 * evidence + 3).sigmoid())
    scale, offset = fitted(evidence, mask)
    assert scale == pytest.approx(0.8, rel=0.1)
    # Both sorts weigh the same: that moves the offset by the logarithm of their ratio.
    share = float(mask.mean())
    ratio = torch.tensor((1 - share) / share).log().item()
    assert offset == pytest.approx(3 + ratio, abs=0.3)


def test_cells_that_are_told_apart_without_fail_give_numbers_with_an_end() -> None:
    evidence = torch.cat([torch.full((50,), -6.0), torch.full((50,), 2.0)])
    scale, offset = fitted(evidence, (evidence > 0).float())
    assert 0.5 < scale < 10
    assert scale * -6 + offset < -2 < 2 < scale * 2 + offset


def test_evidence_that_tells_nothing_or_the_contrary_is_taken_for_little() -> None:
    torch.manual_seed(0)
    evidence = torch.randn(1000)
    scale, offset = fitted(evidence, (evidence < 0).float())
    assert scale == 0.05
    assert abs(scale * float(evidence.median()) + offset) < 0.5


def test_one_sort_of_cells_fits_nothing() -> None:
    with pytest.raises(ValueError, match="inside and cells outside"):
        fitted(torch.randn(9), torch.ones(9))


# --- of a matcher ----------------------------------------------------------------------------


def batch(mask: Tensor) -> Batch:
    images = torch.from_numpy(textured(SIZE, SIZE, 3)).permute(2, 0, 1)[None]
    nowhere = home(*mask.shape[1:])
    valid = torch.ones(mask.shape, dtype=torch.bool)
    return batch_of(images, mask, mask, nowhere, nowhere, valid, valid)


def half() -> Tensor:
    mask = torch.zeros(1, 6, 6)
    mask[:, :, 3:] = 1
    return mask


def test_a_matcher_is_calibrated_on_known_masks_whatever_its_numbers_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    matcher = build("ncnet", backbone="tf_efficientnet_lite0", backbone_weights=None)
    own = matcher.get_submodule("calibration")
    assert isinstance(own, Calibration)
    unknown = torch.full((1, 6, 6), torch.nan)
    assert calibrate(matcher, [batch(unknown), batch(half())])
    found = float(own.scale), float(own.offset)
    own.set(3.0, -7.0)
    assert calibrate(matcher, [batch(half())])
    assert (float(own.scale), float(own.offset)) == found
    # They are saved with the model.
    options = {"backbone": "tf_efficientnet_lite0"}
    Model(matcher, {"matcher": "ncnet", "options": options, "size": SIZE}).save(tmp_path)
    kept = segswap.load(tmp_path).matcher.get_submodule("calibration")
    assert isinstance(kept, Calibration)
    assert (float(kept.scale), float(kept.offset)) == found


@pytest.mark.parametrize("value", [0.0, 1.0, torch.nan])
def test_without_both_sorts_of_cells_the_numbers_stay(value: float) -> None:
    matcher = build("ncnet", backbone="tf_efficientnet_lite0", backbone_weights=None)
    own = matcher.get_submodule("calibration")
    assert isinstance(own, Calibration)
    before = float(own.scale), float(own.offset)
    assert not calibrate(matcher, [batch(torch.full((1, 6, 6), value))])
    assert (float(own.scale), float(own.offset)) == before


def test_a_matcher_with_a_head_for_masks_is_left_alone() -> None:
    class NeverAsked:
        def __iter__(self) -> "NeverAsked":
            raise AssertionError

    assert not calibrate(build("correlation"), NeverAsked())  # type: ignore[arg-type]


def test_masks_follow_the_numbers() -> None:
    matcher = build("ncnet", backbone="tf_efficientnet_lite0", backbone_weights=None).eval()
    own = matcher.get_submodule("calibration")
    assert isinstance(own, Calibration)
    images = batch(half()).source.image.float() / 255
    found = []
    with torch.no_grad():
        for numbers in ((1.0, 0.0), (2.0, 1.0)):
            own.set(*numbers)
            matches: Matches = matcher(images, images)
            found.append(matches.source.mask_logits)
    assert torch.allclose(2 * found[0] + 1, found[1], atol=1e-4)
