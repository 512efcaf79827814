"""Checks of recurrent transformer networks that are stricter than those of their parts."""

import pytest
import torch
import torch.nn.functional as F
from conftest import textured

from segswap.matchers.registry import build
from segswap.matchers.rtn import fields
from segswap.matchers.rtn.rtn import RtnMatcher
from segswap.matchers.windows import CENTRE


def test_of_an_image_with_itself_the_centre_of_each_window_is_the_best() -> None:
    """Before it learns: everywhere, and as alike as descriptors are to themselves."""
    torch.manual_seed(0)
    matcher = build("rtn", backbone="resnet10t", backbone_weights=None, width=4).eval()
    assert isinstance(matcher, RtnMatcher)
    image = torch.from_numpy(textured(128, 160, 1)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        images = matcher.encode(image)
        found = matcher.estimates(images, images)
    assert len(found.fields) == len(found.windows) == 5
    for field, window in zip(found.fields, found.windows, strict=True):
        assert not field[:, [2, 5]].any()
        alike = window / matcher.temperature
        assert (alike.argmax(dim=1) == CENTRE).all()
        # 1, but for what is added to squared lengths of 1: 0.01.
        assert torch.allclose(alike[:, CENTRE], torch.tensor(1 / 1.01), atol=1e-4)


def test_the_identity_survives_three_steps_that_transposed_convolutions_let_decay() -> None:
    """The published ones take what is beyond the border for 0."""
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = (line[:, None] * line)[None, None]
    decayed = torch.ones(1, 1, 4, 4)
    field = fields.identity(1, torch.Size((4, 4)), decayed)
    for side in (8, 16, 32):
        grid = torch.Size((side, side))
        field = fields.upsampled(field, grid)
        assert torch.equal(field, fields.identity(1, grid, field))
        decayed = F.conv_transpose2d(decayed, kernel, stride=2, padding=1)
        if side == 8:
            assert decayed[0, 0, 0, 3].item() == pytest.approx(0.75)
            assert decayed[0, 0, 0, 0].item() == pytest.approx(0.5625)
    assert decayed[0, 0, 0, 16].item() == pytest.approx(0.42, abs=0.005)
