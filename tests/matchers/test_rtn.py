"""The RTN matcher: what it answers, its recurrence, what learns, presets and published weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import textured
from made_matches import parts
from scipy.io import savemat
from torch import Tensor, nn

from segswap.matchers.base import Matches
from segswap.matchers.registry import build
from segswap.matchers.rtn import fields
from segswap.matchers.rtn.presets import PRESETS
from segswap.matchers.rtn.published import read_published
from segswap.matchers.rtn.regression import Regression
from segswap.matchers.rtn.rtn import RtnMatcher
from segswap.matchers.sampling import cell_centres
from segswap.matchers.windows import CENTRE
from segswap.models.model import Model, load

HEIGHT, WIDTH = 192, 256
GRID = (12, 16)


def built(**options: Any) -> RtnMatcher:
    """On a small backbone with random weights, the same each time."""
    torch.manual_seed(0)
    small = {"backbone": "resnet10t", "backbone_weights": None, "width": 4}
    matcher = build("rtn", **(small | options))
    assert isinstance(matcher, RtnMatcher)
    return matcher.eval()


def taught(**options: Any) -> RtnMatcher:
    """The same, with a head that says something."""
    matcher = built(**options)
    nn.init.normal_(matcher.regression.head.weight, std=0.002)
    return matcher


@pytest.fixture(scope="module")
def matcher() -> RtnMatcher:
    return taught()


def pictures(*seeds: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    made = [torch.from_numpy(textured(height, width, seed)) for seed in seeds]
    return torch.stack(made).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def matched(matcher: RtnMatcher, *pair: Tensor, visible: Tensor | None = None) -> Matches:
    return matcher.match(*(matcher.encode(images) for images in pair), visible)


# --- what it answers -------------------------------------------------------------------------


@pytest.mark.parametrize("height", [128, 144])
def test_grids_may_differ(matcher: RtnMatcher, height: int) -> None:
    """Also where a cell of the coarse level is cut off."""
    matches = matched(matcher, pictures(1, 2), pictures(3, 4, height=height, width=128))
    source, target = matches.source, matches.target
    assert source.positions.shape == (2, *GRID, 2)
    assert target.positions.shape == (2, height // 16, 8, 2)
    assert source.mask_logits.shape == (2, *GRID)
    assert torch.allclose(source.features.norm(dim=1), torch.ones(2, *GRID), atol=1e-5)
    for tensor in parts(matches):
        assert tensor.isfinite().all()


def test_exchanged_images_give_exchanged_answers(matcher: RtnMatcher) -> None:
    a, b = pictures(1), pictures(2)
    there, back = matched(matcher, a, b), matched(matcher, b, a).reversed()
    for one, other in zip(parts(there), parts(back), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_pairs_of_a_batch_are_matched_alone(matcher: RtnMatcher) -> None:
    together = matched(matcher, pictures(1, 2), pictures(3, 4))
    alone = matched(matcher, pictures(2), pictures(4))
    assert torch.allclose(together.source.positions[1:], alone.source.positions, atol=1e-4)


def test_hidden_target_cells_are_not_looked_at(matcher: RtnMatcher) -> None:
    """What is hidden may be anything; and where all is, nothing is."""
    images = pictures(1), pictures(2)
    visible = torch.zeros(1, *GRID, dtype=torch.bool)
    visible[:, :, :8] = True
    source, target = (matcher.encode(each) for each in images)
    with torch.no_grad():
        shown = matcher.match(source, target, visible).source.positions
        hidden = type(target)({k: v.clone() for k, v in target.items()})
        hidden["fine"][..., 8:] = 3
        hidden["coarse"][..., 4:] = 3
        assert torch.equal(matcher.match(source, hidden, visible).source.positions, shown)
        assert not torch.equal(matcher.match(source, target).source.positions, shown)
    unseen = torch.zeros_like(visible)
    assert torch.equal(
        matched(matcher, *images, visible=unseen).source.positions,
        matched(matcher, *images).source.positions,
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_blank_images_give_numbers(matcher: RtnMatcher, value: float) -> None:
    blank = torch.full((1, 3, HEIGHT, WIDTH), value)
    for pair in ((blank, blank), (blank, pictures(1))):
        assert all(part.isfinite().all() for part in parts(matched(matcher, *pair)))


# --- the recurrence --------------------------------------------------------------------------


def test_before_it_learns_every_estimate_is_the_identity() -> None:
    """Exactly; and of an image with itself each window's centre is the best, and nearly 1."""
    matcher, image = built(refine=False), pictures(1)
    side = matched(matcher, image, image).source
    for number in range(1, 6):
        field = side.extra[f"field_{number}"]
        assert torch.equal(field, fields.identity(1, field.shape[2:], field))
        window = side.extra[f"window_{number}"] / matcher.temperature
        assert (window.argmax(dim=1) == CENTRE).float().mean() > 0.99
        assert torch.allclose(window[:, CENTRE], torch.tensor(0.99504**2), atol=5e-3)
    home = cell_centres(*GRID, side.positions)
    assert torch.allclose(side.positions, home.expand_as(side.positions), atol=1e-6)


class Constant(nn.Module):
    """In place of the regression."""

    def __init__(self) -> None:
        super().__init__()
        self.said = torch.tensor([0.1, -0.2, 0.03, 0.2, 0.05, -0.04])[:, None, None]

    def forward(self, correlation: Tensor) -> Tensor:
        return self.said.expand(len(correlation), 6, *correlation.shape[2:])


@pytest.mark.parametrize(("coarse", "fine"), [(1, 0), (2, 3), (0, 2)])
def test_corrections_are_added_to_the_six_parameters(coarse: int, fine: int) -> None:
    matcher = built(coarse_estimates=coarse, fine_estimates=fine)
    matcher.regression = Constant()  # type: ignore[assignment]
    side = matched(matcher, pictures(1), pictures(2)).source
    found = [value for key, value in side.extra.items() if key.startswith("field_")]
    grids = [(6, 8)] * coarse + [GRID] * fine
    assert [tuple(field.shape[2:]) for field in found] == grids
    for number, field in enumerate(found, 1):
        expected = fields.identity(1, field.shape[2:], field) + number * Constant().said
        assert torch.allclose(field, expected, atol=1e-5)


def test_fewer_estimates_are_the_first_ones(matcher: RtnMatcher) -> None:
    """So that each can be scored: the places of estimate n are those of a matcher with n."""
    whole = matched(matcher, pictures(1), pictures(2)).source
    for number, counts in enumerate([(1, 0), (2, 0), (2, 1), (2, 2)], 1):
        fewer = taught(coarse_estimates=counts[0], fine_estimates=counts[1], refine=False)
        side = matched(fewer, pictures(1), pictures(2)).source
        field = side.extra[f"field_{number}"]
        assert torch.equal(field, whole.extra[f"field_{number}"])
        other = torch.Size(GRID if counts[1] else (6, 8))
        places = fields.positions(field, other, torch.Size(GRID))
        assert torch.equal(side.positions, places)
        assert side.mask_logits.shape == (1, *GRID)


@pytest.mark.parametrize("counts", [(2, 3), (2, 0)])
def test_places_are_refined_after_the_last_estimate(counts: tuple[int, int]) -> None:
    """In the window around them, on the last estimate's grid; not by the published network."""
    given = dict(zip(("coarse_estimates", "fine_estimates"), counts, strict=True))
    fields_alone, both = (
        matched(taught(refine=refine, **given), pictures(1), pictures(2)).source
        for refine in (False, True)
    )
    last = f"field_{sum(counts)}"
    assert torch.equal(both.extra[last], fields_alone.extra[last])
    grid = both.extra[last].shape[:1:-1]  # columns, rows
    moved = (both.positions - fields_alone.positions).abs() * torch.tensor(grid)
    assert 0.1 < moved.max() < 4.5
    assert taught().refine
    assert not PRESETS["published"].refine


def test_what_the_other_image_shows_is_seen_turned() -> None:
    """Activations are computed under the map: not the same as moved descriptors."""
    matcher, images = built(), pictures(1)
    level, taken = matcher.levels["fine"], matcher.encode(images)["fine"]
    with torch.no_grad():
        level.convolutions[0].change.normal_()
        field = fields.identity(1, taken.shape[2:], taken)
        field[:, :] = torch.tensor([0.0, -1, 0, 1, 0, 0])[:, None, None]
        assert not torch.allclose(level(taken, field), level(taken), atol=1e-2)


def test_corrections_are_in_cells_but_for_the_published_network() -> None:
    """So that the same window means the same on a grid twice as fine."""
    for in_cells, scales in ((True, (2 / 7, 2 / 15)), (False, (1.0, 1.0))):
        regression = Regression(2, in_cells)
        nn.init.ones_(regression.head.bias)
        for cells, scale in zip((8, 16), scales, strict=True):
            said = regression(torch.zeros(1, 81, cells, cells))[0, :, 0, 0]
            assert torch.allclose(said, torch.tensor([1, 1, scale, 1, 1, scale]))


# --- what learns -----------------------------------------------------------------------------


def test_regression_and_added_convolutions_alone_learn() -> None:
    matcher = taught().train()
    learning = {name for name, p in matcher.named_parameters() if p.requires_grad}
    own = {name for name, _ in matcher.named_parameters() if not name.startswith("backbone.")}
    assert learning == own
    side = matcher(pictures(1), pictures(2)).source
    (side.extra["window_5"].logsumexp(1).sum() + side.mask_logits.sum()).backward()
    for name, parameter in matcher.named_parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name
    free = built(freeze_backbone=False)
    assert all(p.requires_grad for p in free.parameters())


def test_the_default_is_small_and_on_the_backbone_that_ships(tmp_path: Path) -> None:
    matcher = build("rtn")
    assert isinstance(matcher, RtnMatcher)
    assert matcher.backbone.name == "tf_efficientnet_lite2"
    assert matcher.backbone.channels == (120, 208, 208)
    counts = [sum(p.numel() for p in part.parameters())
              for part in (matcher.regression, matcher.levels)]  # fmt: skip
    assert counts == [2_054_066, 9 * (120**2 + 2 * 208**2) + 536]
    nn.init.normal_(matcher.regression.head.weight, std=0.002)
    model = Model(matcher.eval(), {"matcher": "rtn", "options": {}, "size": 128})
    model.save(tmp_path, half=True)
    assert (tmp_path / "model.safetensors").stat().st_size < 6.0e6  # without the backbone
    a, b = textured(128, 128, 1), textured(128, 128, 2)
    again = load(tmp_path).predict(a, b)
    assert abs(again.to_target - model.predict(a, b).to_target).max() < 0.02


# --- as published ----------------------------------------------------------------------------


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        regression = Regression(64)
    assert sum(p.numel() for p in regression.parameters()) == 20_030_662
    shapes = [tuple(layer.weight.shape) for layer in regression.layers()]
    assert shapes[0] == (64, 81, 9, 9)
    assert shapes[-1] == (6, 64, 9, 9)
    assert shapes[10] == (512, 1024, 3, 3)
    assert len(shapes) == 19


@pytest.mark.slow
def test_the_published_preset_is_conv5_1_and_conv4_1_of_vgg_19() -> None:
    published = build("rtn", preset="published", backbone_weights=None).eval()
    assert isinstance(published, RtnMatcher)
    assert published.backbone.name == "vgg19"
    assert sum(p.numel() for p in published.parameters() if p.requires_grad) == 20_030_662
    images = published.encode(pictures(1, height=256, width=256))
    assert images["coarse"].shape == (1, 512, 16, 16)
    assert images["fine"].shape == (1, 256, 32, 32)
    net = published.backbone.net
    pooled = torch.nn.functional.max_pool2d(published.backbone(pictures(1))[1], 2)
    expected = net.get_submodule("features_28")(pooled).relu()
    level = published.levels["coarse"]
    taken = published.encode(pictures(1))["coarse"]
    assert torch.allclose(level.convolve(taken, 1, 1), expected, atol=1e-4)
    assert level.convolve(taken, 1, 1).shape[1] == 512
    pair = pictures(1, height=96, width=128), pictures(2, height=96, width=128)
    assert matched(published, *pair).source.positions.shape == (1, *GRID, 2)


class Vgg(nn.Module):
    """A backbone with as many convolutions as VGG-19, and few channels."""

    def __init__(self) -> None:
        super().__init__()
        counts = [3] + [4] * 16
        self.net = nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in pairwise(counts)))
        self.mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        self.std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


NAMES = [
    *(f"conv{block}_{n}" for block in range(1, 6) for n in range(1, (3, 3, 5, 5, 2)[block - 1])),
    *(f"geo_conv{n}{part}_" for n in range(1, 10) for part in ("", "b")), "geo_conv10_",
]  # fmt: skip


def published_file(path: Path, **changed: Any) -> tuple[str, dict[str, Tensor]]:
    """A file in the layout of the released code, and its filters as torch has them."""
    torch.manual_seed(1)
    layers = [*Vgg().net[:13], *Regression(4).layers()]
    entries, filters = [], {}
    for name, layer in zip(NAMES, layers, strict=True):
        filters[name] = torch.randn_like(layer.weight)
        value = filters[name].permute(2, 3, 1, 0).numpy()
        entries.append({"name": f"{name}f", "value": value})
        bias = np.full((1, len(layer.bias)), 0.5, np.float32)
        entries.append({"name": f"{name}b", "value": bias})
    entries.append({"name": "deconv_aff_x2", "value": np.ones((4, 4, 1, 6))})
    for entry in entries:
        entry["value"] = changed.get(entry["name"], entry["value"])
    array = np.array([(e["name"], e["value"]) for e in entries], [("name", "O"), ("value", "O")])
    savemat(path, {"net": {"params": array}})
    return str(path), filters


def test_published_weights_are_taken_over(tmp_path: Path) -> None:
    file, filters = published_file(tmp_path / "net-epoch.mat")
    backbone, regression = Vgg(), Regression(4)
    read_published(file).fill(backbone, regression)  # type: ignore[arg-type]
    for name, layer in zip(NAMES[13:], regression.layers(), strict=True):
        assert torch.equal(layer.weight, filters[name])
        assert (layer.bias == 0.5).all()
    assert torch.equal(backbone.net[12].weight, filters["conv5_1"])
    # The first layer says of an image what it said of 0 to 255 less the mean.
    image = torch.rand(1, 3, 9, 9)
    plain = 255 * image - torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    expected = torch.nn.functional.conv2d(plain, filters["conv1_1"]) + 0.5
    found = backbone.net[0]((image - backbone.mean) / backbone.std)
    assert torch.allclose(found, expected, atol=1e-2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for change, message in (
        ({"geo_conv5_f": np.ones((3, 3))}, r"geo_conv5_f is \(3, 3\), expected \(3, 3, 32, 32\)"),
        ({"conv1_1b": np.full((1, 4), np.nan)}, "NaN or infinite"),
    ):  # fmt: skip
        file, _ = published_file(tmp_path / "net.mat", **change)
        with pytest.raises(ValueError, match=message):
            read_published(file).fill(Vgg(), Regression(4))  # type: ignore[arg-type]
    savemat(tmp_path / "other.mat", {"flow": np.zeros(3)})
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    for name, message in (
        ("other.mat", "holds no weights of recurrent transformer networks: expected net.params"),
        ("broken.mat", "is not a readable MATLAB file"),
        ("none.mat", "does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            read_published(str(tmp_path / name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "large"}, "preset is 'large'; expected one of shipped, published"),
        ({"backbone": "vit_tiny_patch16_224"}, "no features of stride 32; it has 16"),
        ({"backbone": "resnett50"}, "unknown timm model 'resnett50'"),
        ({"coarse_estimates": -1}, "--coarse-estimates is -1; expected 0 or more"),
        ({"coarse_estimates": 0, "fine_estimates": 0}, "and one estimate at least"),
        ({"width": 0}, "--width is 0; expected 1 or more"),
        ({"temperature": 0.0}, "--temperature is 0.0; expected a positive number"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"published_weights": "a.mat"}, "are of VGG-19; give --preset published"),
        ({"published_weights": "a.mat", "preset": "published", "backbone_weights": "timm"},
         "leave one of them out"),
        ({"preset": "large"}, "unknown preset 'large'"),
        ({"preset": "published"}, "not vgg19; give --backbone-weights timm"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RtnMatcher.check_new(options)
