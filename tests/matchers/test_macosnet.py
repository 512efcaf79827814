"""The MaCoSNet matcher: what it answers, what learns, what is saved, and its presets."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import textured
from made_matches import parts
from torch import Tensor

from segswap.matchers.base import Matches
from segswap.matchers.macosnet.layers import MaskDecoder, WarpPredictor
from segswap.matchers.macosnet.macosnet import MacosnetMatcher, _refined
from segswap.matchers.macosnet.presets import PRESETS
from segswap.matchers.macosnet.terms import AFFINE, SPLINE
from segswap.matchers.registry import build
from segswap.matchers.sampling import cell_centres
from segswap.matchers.warps import AFFINE as IDENTITY
from segswap.matchers.warps import identity_spline
from segswap.models.model import Model, load

HEIGHT, WIDTH = 96, 128
GRID = (6, 8)
STILL = torch.tensor(IDENTITY)


def built(**options: Any) -> MacosnetMatcher:
    """On a small backbone with random weights, the same each time; warps are not the identity."""
    torch.manual_seed(0)
    small = {"backbone": "tf_efficientnet_lite0", "backbone_weights": None, "refine": False}
    matcher = build("macosnet", **(small | options))
    assert isinstance(matcher, MacosnetMatcher)
    for predictor in (matcher.affine, matcher.spline):
        torch.nn.init.normal_(predictor.linear.weight, std=0.02)
    return matcher.eval()


@pytest.fixture(scope="module")
def matcher() -> MacosnetMatcher:
    return built()


def pictures(*seeds: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    made = [torch.from_numpy(textured(height, width, seed)) for seed in seeds]
    return torch.stack(made).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def matched(matcher: MacosnetMatcher, *pair: Tensor, visible: Tensor | None = None) -> Matches:
    return matcher.match(*(matcher.encode(images) for images in pair), visible)


# --- what it answers -------------------------------------------------------------------------


def test_grids_may_differ_and_masks_are_as_large_as_the_images(matcher: MacosnetMatcher) -> None:
    matches = matched(matcher, pictures(1, 2), pictures(3, 4, height=64, width=80))
    source, target = matches.source, matches.target
    assert source.positions.shape == (2, *GRID, 2)
    assert target.positions.shape == (2, 4, 5, 2)
    assert source.mask_logits.shape == (2, HEIGHT, WIDTH)
    assert target.mask_logits.shape == (2, 64, 80)
    assert torch.allclose(source.features.norm(dim=1), torch.ones(2, *GRID), atol=1e-3)
    for tensor in parts(matches):
        assert tensor.isfinite().all()


def test_exchanged_images_give_exchanged_answers(matcher: MacosnetMatcher) -> None:
    a, b = pictures(1), pictures(2)
    there, back = matched(matcher, a, b), matched(matcher, b, a).reversed()
    for one, other in zip(parts(there), parts(back), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(there.source.positions, there.target.positions, atol=1e-5)


def test_pairs_of_a_batch_are_matched_alone(matcher: MacosnetMatcher) -> None:
    together = matched(matcher, pictures(1, 2), pictures(3, 4))
    alone = matched(matcher, pictures(2), pictures(4))
    for one, other in zip(parts(together), parts(alone), strict=True):
        assert torch.allclose(one[1:], other, atol=1e-4)


def test_a_new_matcher_leaves_all_in_place() -> None:
    torch.manual_seed(0)
    new = build(
        "macosnet", backbone="tf_efficientnet_lite0", backbone_weights=None, refine=False
    ).eval()
    with torch.no_grad():
        side = new(pictures(1), pictures(2)).source
    assert torch.allclose(side.positions[0], cell_centres(*GRID, STILL), atol=1e-5)
    assert (side.mask_logits.sigmoid() - 0.5).abs().mean() < 0.25


def test_positions_are_the_affine_map_of_the_spline(matcher: MacosnetMatcher) -> None:
    """With a spline of the identity, positions move as the affine map alone says."""
    steady = built()
    torch.nn.init.zeros_(steady.spline.linear.weight)
    side = matched(steady, pictures(1), pictures(2)).source
    assert torch.allclose(side.extra[SPLINE][0], identity_spline(STILL), atol=1e-6)
    a = side.extra[AFFINE][0].view(2, 3)
    corners = (2 * cell_centres(*GRID, STILL) - 1) * 240 / 239
    expected = ((corners @ a[:, :2].T + a[:, 2]) * 239 / 240 + 1) / 2
    assert torch.allclose(side.positions[0], expected, atol=1e-5)
    bent = matched(matcher, pictures(1), pictures(2)).source
    assert not torch.allclose(bent.positions, side.positions, atol=1e-3)


def test_where_the_warp_leads_beyond_the_image_there_is_no_match() -> None:
    away = built()
    with torch.no_grad():
        away.affine.linear.weight.zero_()
        away.affine.linear.bias += torch.tensor([0, 0, 1.0, 0, 0, 0])
        away.spline.linear.weight.zero_()
    model = Model(away, {"matcher": "macosnet", "options": {}, "size": 96})
    match = model.match(textured(96, 96, 1), textured(96, 96, 2))
    inside, outside = [[0.2, 0.5]], [[0.8, 0.5]]
    assert match.points(inside)[0].tolist() == pytest.approx([0.7, 0.5], abs=0.01)
    assert match.points(outside)[0, 0] > 1
    assert match.confidence(inside)[0] > 0.1
    assert match.confidence(outside)[0] == 0


def test_places_are_refined_to_what_is_alike_around_them() -> None:
    """Of a copy two columns further on; and places far beyond the image stay there."""
    torch.manual_seed(0)
    own = F.normalize(torch.randn(1, 16, 9, 12), dim=1)
    home = cell_centres(9, 12, own)[None]
    found = _refined(own, own.roll(2, dims=3), home)
    assert torch.allclose(found[:, 1:-1, 1:9], (home + torch.tensor([2 / 12, 0]))[:, 1:-1, 1:9],
                          atol=1e-3)  # fmt: skip
    away = _refined(own, own, home + 3)
    assert (away > 2).all()


def test_the_small_one_refines_places_when_it_matches_and_the_published_one_does_not() -> None:
    assert PRESETS["small"].refine
    assert not PRESETS["published"].refine
    refining, images = built(refine=True), (pictures(1), pictures(2))
    warped, moved = (matched(each, *images).source for each in (built(), refining))
    assert (warped.positions - moved.positions).abs().max() > 0.01
    assert torch.equal(warped.mask_logits, moved.mask_logits)
    torch.manual_seed(0)
    taught = [each.train()(*images).source.positions for each in (built(), refining)]
    assert torch.allclose(*taught, atol=1e-5)


def test_hidden_target_cells_are_seen_by_no_source_cell(matcher: MacosnetMatcher) -> None:
    visible = torch.zeros(1, *GRID, dtype=torch.bool)
    visible[:, :, :4] = True
    images = pictures(1), pictures(2)
    changed = images[1].clone()
    changed[..., 100:] = 0.5  # far from what is seen, but for what the backbone makes of it
    for target in (images[1], changed):
        hidden = matched(matcher, images[0], target, visible=visible)
        assert hidden.source.extra["scores"].isfinite().all()
    whole = matched(matcher, *images)
    assert not torch.allclose(hidden.source.positions, whole.source.positions, atol=1e-4)
    scores = matched(matcher, *images, visible=visible).source.extra["scores"]
    # Column by column: of the other image's right half nothing is left.
    assert scores.unflatten(1, (15, 15))[:, 8:].abs().max() < 1e-6
    unseen = torch.zeros_like(visible)
    assert torch.equal(
        matched(matcher, *images, visible=unseen).source.positions, whole.source.positions
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_blank_images_give_numbers(matcher: MacosnetMatcher, value: float) -> None:
    blank = torch.full((1, 3, HEIGHT, WIDTH), value)
    for pair in ((blank, blank), (blank, pictures(1))):
        for tensor in parts(matched(matcher, *pair)):
            assert tensor.isfinite().all()


def test_images_that_fit_no_grid_are_refused(matcher: MacosnetMatcher) -> None:
    with pytest.raises(ValueError, match="images are 90 x 96 px, not multiples of 16"):
        matcher.encode(torch.zeros(1, 3, 96, 90))


# --- layers ----------------------------------------------------------------------------------


def test_the_published_layers_have_the_published_numbers() -> None:
    published = PRESETS["published"]
    with torch.device("meta"):
        decoder = MaskDecoder((1024 + 225, 512, 256, 64), published.decoder)
    predictors = [WarpPredictor(p, published.predictor) for p in (STILL, identity_spline(STILL))]
    counts = [sum(p.numel() for p in part.parameters()) for part in (*predictors, decoder)]
    assert counts == [1_626_182, 1_645_394, 7_084_736]


def test_the_decoders_maps_have_30_60_120_and_240_cells() -> None:
    decoder = MaskDecoder((20, 6, 5, 4), (6, 8, 4))
    finer = [torch.rand(1, channels, side, side) for channels, side in ((6, 30), (5, 60), (4, 120))]
    made = decoder(torch.rand(1, 20, 15, 15), finer)
    assert [tuple(found.shape[1:]) for found in made] == [
        (6, 30, 30), (8, 60, 60), (4, 120, 120), (1, 240, 240)
    ]  # fmt: skip
    # A map is added as it is where it has the layer's channels.
    assert torch.allclose(decoder(torch.zeros(1, 20, 15, 15), finer)[0], finer[0], atol=1e-5)


@pytest.mark.slow
def test_the_published_preset_is_resnet_101_up_to_its_third_layer() -> None:
    published = build("macosnet", preset="published", backbone_weights=None)
    assert isinstance(published, MacosnetMatcher)
    assert published.backbone.name == "resnet101"
    assert published.backbone.channels == (512, 256, 64, 1024)
    assert published.backbone.strides == (8, 4, 2, 16)
    learning = sum(p.numel() for p in published.parameters() if p.requires_grad)
    assert learning == 1_626_182 + 1_645_394 + 7_084_736
    side = matched(published.eval(), pictures(1), pictures(2)).source
    assert side.mask_logits.shape == (1, HEIGHT, WIDTH)


# --- what learns, and what is saved ----------------------------------------------------------


def test_predictors_and_decoder_alone_learn(matcher: MacosnetMatcher) -> None:
    learning = {name.split(".")[0] for name, p in matcher.named_parameters() if p.requires_grad}
    assert learning == {"affine", "spline", "decoder"}
    thawed = built(freeze_backbone=False)
    assert any(p.requires_grad for p in thawed.backbone.parameters())


def test_the_default_is_small_and_saved_without_what_it_does_not_own(tmp_path: Path) -> None:
    default = build("macosnet")
    assert isinstance(default, MacosnetMatcher)
    assert default.backbone.name == "tf_efficientnet_lite2"
    assert default.backbone.strides == (8, 4, 2, 16, 32, 32)
    parts_of = (default.affine, default.spline, default.decoder)
    assert sum(p.numel() for part in parts_of for p in part.parameters()) == 2_544_696
    model = Model(default.eval(), {"matcher": "macosnet", "options": {}, "size": 96})
    a, b = textured(96, 96, 1), textured(96, 96, 2)
    model.save(tmp_path, half=True)
    # Neither the backbone that ships nor the network that contrasts objects.
    assert (tmp_path / "model.safetensors").stat().st_size < 5.2e6
    again = load(tmp_path).predict(a, b)
    assert abs(again.to_target - model.predict(a, b).to_target).max() < 0.01
    assert abs(again.source_mask - model.predict(a, b).source_mask).max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "large"}, "preset is 'large'; expected one of small, published"),
        ({"masking": "all"}, "masking is 'all'; expected one of features, images"),
        ({"backbone": "vit_tiny_patch16_224"}, "no features of stride 8; it has 16"),
        ({"backbone": "convnext_tiny"}, "no features of stride 2; it has 4, 8, 16, 32"),
        ({"backbone": "resnett50"}, "unknown timm model 'resnett50'"),
        ({"preset": "published"}, "ships is tf_efficientnet_lite2, not resnet101"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("macosnet", **options)
