"""The SFNet matcher: what it answers, what learns, presets and published weights."""

from pathlib import Path

import pytest
import torch
from conftest import textured
from torch import Tensor

from segswap.matchers.base import Matches
from segswap.matchers.registry import build
from segswap.matchers.sfnet.adaptation import Adaptation
from segswap.matchers.sfnet.sfnet import SFNetMatcher
from segswap.models.model import Model, load

HEIGHT, WIDTH = 96, 128
GRID = (6, 8)


def built(**options: str) -> SFNetMatcher:
    """On a small backbone with random weights, the same each time."""
    torch.manual_seed(0)
    matcher = build("sfnet", **({"backbone": "resnet10t", "backbone_weights": None} | options))
    assert isinstance(matcher, SFNetMatcher)
    return matcher.eval()


@pytest.fixture(scope="module")
def matcher() -> SFNetMatcher:
    return built()


def pictures(*seeds: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    made = [torch.from_numpy(textured(height, width, seed)) for seed in seeds]
    return torch.stack(made).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def matched(matcher: SFNetMatcher, *pair: Tensor, visible: Tensor | None = None) -> Matches:
    return matcher.match(*(matcher.encode(images) for images in pair), visible)


def test_grids_may_differ(matcher: SFNetMatcher) -> None:
    matches = matched(matcher, pictures(1, 2), pictures(3, 4, height=64, width=64))
    source, target = matches.source, matches.target
    assert source.positions.shape == (2, *GRID, 2)
    assert target.positions.shape == (2, 4, 4, 2)
    assert source.mask_logits.shape == (2, *GRID)
    assert torch.allclose(source.features.norm(dim=1), torch.ones(2, *GRID), atol=1e-5)
    for side, _ in matches.both():
        assert 0 <= side.positions.min() < side.positions.max() <= 1
        assert side.mask_logits.isfinite().all()


def test_exchanged_images_give_exchanged_answers(matcher: SFNetMatcher) -> None:
    a, b = pictures(1), pictures(2)
    there, back = matched(matcher, a, b), matched(matcher, b, a).reversed()
    for one, other in ((there.source, back.source), (there.target, back.target)):
        assert torch.allclose(one.mask_logits, other.mask_logits, atol=1e-3)
        assert torch.allclose(one.positions, other.positions, atol=1e-4)


def test_pairs_of_a_batch_are_matched_alone(matcher: SFNetMatcher) -> None:
    together = matched(matcher, pictures(1, 2), pictures(3, 4))
    alone = matched(matcher, pictures(2), pictures(4))
    assert torch.allclose(together.source.positions[1:], alone.source.positions, atol=1e-4)


def test_kinds_of_argmax_differ_and_the_discrete_one_learns_softly() -> None:
    found = {}
    for kind in ("kernel", "soft", "discrete"):
        matcher = built(argmax=kind)
        found[kind] = matched(matcher, pictures(1), pictures(2)).source.positions
    centres = (torch.arange(GRID[1]) + 0.5) / GRID[1]
    assert (found["discrete"][..., :1] - centres).abs().amin(-1).max() < 1e-6
    assert not torch.allclose(found["kernel"], found["soft"], atol=1e-3)
    learning = built(argmax="discrete").train()
    side = learning(pictures(1, 2), pictures(3, 4)).source
    side.positions.sum().backward()
    grads = [p.grad for p in learning.adaptation.parameters()]
    assert all(grad is not None for grad in grads)


def test_hidden_target_cells_are_matched_by_none(matcher: SFNetMatcher) -> None:
    visible = torch.zeros(1, *GRID, dtype=torch.bool)
    visible[:, :, :4] = True
    images = pictures(1), pictures(2)
    assert matched(matcher, *images, visible=visible).source.positions[..., 0].max() < 0.5
    unseen = torch.zeros_like(visible)
    assert torch.equal(
        matched(matcher, *images, visible=unseen).source.positions,
        matched(matcher, *images).source.positions,
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_blank_images_give_numbers(matcher: SFNetMatcher, value: float) -> None:
    blank = torch.full((1, 3, HEIGHT, WIDTH), value)
    for pair in ((blank, blank), (blank, pictures(1))):
        for side, _ in matched(matcher, *pair).both():
            for tensor in (side.positions, side.mask_logits, side.features):
                assert tensor.isfinite().all()


# --- what learns -----------------------------------------------------------------------------


def test_the_adaptation_layers_alone_learn(matcher: SFNetMatcher) -> None:
    learning = {name for name, p in matcher.named_parameters() if p.requires_grad}
    assert learning == {f"adaptation.{name}" for name, _ in matcher.adaptation.named_parameters()}


def test_the_default_is_the_backbone_that_ships(tmp_path: Path) -> None:
    matcher = build("sfnet")
    assert isinstance(matcher, SFNetMatcher)
    assert matcher.backbone.name == "tf_efficientnet_lite2"
    assert matcher.backbone.channels == (120, 208)
    assert matcher.backbone.strides == (16, 32)
    # 5 x 5 and 3 x 3 convolutions with biases, each with scale and shift of a normalisation.
    counts = [2 * (120 * 120 * 25 + 3 * 120), 2 * (208 * 208 * 9 + 3 * 208)]
    assert sum(p.numel() for p in matcher.adaptation.parameters()) == sum(counts) == 1_500_720
    model = Model(matcher.eval(), {"matcher": "sfnet", "options": {}, "size": 96})
    model.save(tmp_path, half=True)
    assert (tmp_path / "model.safetensors").stat().st_size < 3.1e6  # without the backbone
    a, b = textured(96, 96, 1), textured(96, 96, 2)
    again = load(tmp_path).predict(a, b)
    assert abs(again.to_target - model.predict(a, b).to_target).max() < 0.02


# --- as published ----------------------------------------------------------------------------


def test_the_published_network_has_the_published_numbers() -> None:
    with torch.device("meta"):
        adaptation = Adaptation((1024, 2048))
    counts = [sum(p.numel() for p in level.parameters()) for level in adaptation.levels]
    assert counts == [52_434_944, 75_509_760]
    assert sum(counts) == 127_944_704


@pytest.mark.slow
def test_the_published_preset_is_resnet_101s_third_and_fourth_layer() -> None:
    published = build("sfnet", preset="published", backbone_weights=None)
    assert isinstance(published, SFNetMatcher)
    assert published.backbone.name == "resnet101"
    assert published.backbone.channels == (1024, 2048)
    assert published.backbone.strides == (16, 32)
    assert sum(p.numel() for p in published.parameters() if p.requires_grad) == 127_944_704
    assert matched(published.eval(), pictures(1), pictures(2)).source.positions.shape[1:3] == GRID


def published_file(path: Path, matcher: SFNetMatcher) -> str:
    """A file in the layout of the released code, of other weights than the matcher's."""
    states = [
        {k: v + 0.5 if v.is_floating_point() else v for k, v in level.state_dict().items()}
        for level in matcher.adaptation.levels
    ]
    assert {"conv1.0.weight", "conv1.1.running_mean", "conv2.0.bias"} <= states[0].keys()
    torch.save({"state_dict1": states[0], "state_dict2": states[1], "epoch": 3}, path)
    return str(path)


def test_published_weights_are_taken_over(matcher: SFNetMatcher, tmp_path: Path) -> None:
    file = published_file(tmp_path / "best_checkpoint.pt", matcher)
    filled = built(adaptation=file).adaptation.state_dict()
    own = matcher.adaptation.state_dict()
    assert filled.keys() == own.keys()
    for name, value in own.items():
        expected = value + 0.5 if value.is_floating_point() else value
        assert torch.equal(filled[name], expected)


def test_other_files_are_refused(matcher: SFNetMatcher, tmp_path: Path) -> None:
    file = published_file(tmp_path / "best_checkpoint.pt", matcher)
    with pytest.raises(ValueError, match=r"state_dict1 of .* does not fit.*--preset published"):
        build("sfnet", backbone_weights=None, adaptation=file)
    torch.save({"conv1": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no weights of SFNet's adaptation layers"):
        built(adaptation=str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"none\.pt does not exist"):
        built(adaptation=str(tmp_path / "none.pt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "large"}, "preset is 'large'; expected one of shipped, published"),
        ({"argmax": "hard"}, "argmax is 'hard'; expected one of kernel, soft, discrete"),
        ({"backbone": "vit_tiny_patch16_224"}, "no features of stride 32; it has 16"),
        ({"backbone": "resnett50"}, "unknown timm model 'resnett50'"),
        ({"preset": "published"}, "ships is tf_efficientnet_lite2, not resnet101"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("sfnet", **options)


def test_the_margin_surrounds_what_is_matched_and_leaves_positions_where_they_are() -> None:
    """The picture with itself: every cell is found in its place, without the published grid's
    shrinking by 17 / 19 * 10 / 9.
    """
    matcher = built(argmax="discrete")
    matcher.margin = 1
    image = pictures(1, height=128, width=128)
    side = matched(matcher, image, image).source
    assert side.positions.shape == (1, 8, 8, 2)
    centres = (torch.arange(8) + 0.5) / 8
    assert torch.allclose(side.positions[0, 3, :, 0], centres, atol=1e-5)
    assert torch.allclose(side.positions[0, :, 3, 1], centres, atol=1e-5)
    assert matcher.encode(image)["features"].shape[2:] == (10, 10)
    assert matcher.train().encode(image)["features"].shape[2:] == (8, 8)
