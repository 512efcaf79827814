"""The correlation matcher matches before it has learned anything; consensus and descriptors."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import textured
from made_matches import answers, batch_of, parts
from skimage.data import astronaut
from torch import Tensor

from segswap import geometry
from segswap.matchers.base import Answers, Matches, Side
from segswap.matchers.correlation import consensus
from segswap.matchers.correlation.correlation import SHIFTS, WINDOWS, CorrelationMatcher
from segswap.matchers.correlation.descriptors import CHANNELS, describe, normalise
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import correlation_loss, correspondence_loss, mask_loss, transfer_loss
from segswap.matchers.registry import build
from segswap.matchers.sampling import cell_centres

SIZE, STRIDE = 128, 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def untrained() -> CorrelationMatcher:
    torch.manual_seed(0)
    return CorrelationMatcher().eval()


@pytest.fixture(scope="module")
def trained() -> CorrelationMatcher:
    """Weights that are no longer where they started: the adaptation acts, masks vary."""
    torch.manual_seed(1)
    matcher = CorrelationMatcher().eval()
    with torch.no_grad():
        matcher.scale_bias += 0.3 * torch.randn_like(matcher.scale_bias)
        for part, spread in ((matcher.adapt, 0.02), (matcher.stem, 0.02), (matcher.head, 0.05)):
            for parameter in part.parameters():
                parameter += spread * torch.randn_like(parameter)
    return matcher


def tensor_of(*images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def photo(size: int = SIZE) -> np.ndarray:
    return geometry.resize(astronaut()[:420, 60:480], size, size)


def picture(height: int, width: int, seed: int) -> Tensor:
    return tensor_of(textured(height, width, seed))


# --- consensus -------------------------------------------------------------------------------

GRID = (14, 16)


def affine_field(matrix: Tensor, shift: Tensor) -> Tensor:
    """Positions in cells (1, 2, h, w) of an affine map of the grid's cell centres, in cells."""
    centres = cell_centres(*GRID, shift) * torch.tensor([GRID[1], GRID[0]])
    return (centres @ matrix.T + shift).permute(2, 0, 1)[None]


def similarity(scale: float, degrees: float) -> Tensor:
    return scale * torch.tensor(geometry.rotation(degrees)[:2, :2], dtype=torch.float32)


SHIFT = torch.tensor([1.5, -0.7])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_local_affine_keeps_a_field_of_its_own_scale(scale: float) -> None:
    field, one = affine_field(similarity(scale, 0), SHIFT), torch.ones(1, 1, *GRID)
    positions, _, total = consensus.local_affine(field, scale * one, one)
    assert (positions - field).abs().max() < 0.02
    assert total.min() > 5


def test_local_affine_keeps_any_affine_field_where_many_matches_agree() -> None:
    matrix = torch.tensor([[1.1, 0.25], [-0.2, 0.8]])
    field, one = affine_field(matrix, SHIFT), torch.ones(1, 1, *GRID)
    positions, _, _ = consensus.local_affine(field, one, one)
    error = (positions - field).norm(dim=1)[0]
    assert error[3:-3, 3:-3].max() < 0.02
    # At the rim the pull towards the mean scale is all that is left on one side.
    assert error.max() < 0.25


def test_local_affine_resists_a_third_of_outliers() -> None:
    field, one = affine_field(similarity(0.9, 8), SHIFT), torch.ones(1, 1, *GRID)
    wrong = torch.rand(1, 1, *GRID) < 0.3
    anywhere = torch.rand(1, 2, *GRID) * 14
    spoilt = torch.where(wrong, anywhere, field)
    # Weights as the matcher gives them: by the support of the others.
    _, weight = consensus.support(spoilt, 0.9 * one, one)
    positions, _, _ = consensus.local_affine(spoilt, 0.9 * one, weight)
    error = (positions - field).norm(dim=1)[0]
    assert (error < 0.35).float().mean() > 0.97
    # Outliers themselves are carried along by their neighbours.
    assert error[wrong[0, 0]].median() < 0.2
    assert (spoilt - field).norm(dim=1)[0][wrong[0, 0]].median() > 3


def test_without_weight_anywhere_local_affine_stays_finite() -> None:
    field, one = affine_field(similarity(1, 0), SHIFT), torch.ones(1, 1, *GRID)
    positions, _, total = consensus.local_affine(field, one, 0 * one)
    assert positions.isfinite().all()
    assert total.max() == 0


def test_support_is_for_consistent_matches() -> None:
    one = torch.ones(1, 1, *GRID)
    field = affine_field(similarity(1, 6), SHIFT)
    agreed, kept = consensus.support(field, one, one)
    scattered, dropped = consensus.support(torch.rand(1, 2, *GRID) * 14, one, one)
    assert agreed.min() > 5 * scattered.median()
    assert agreed.median() > 20 * scattered.median()
    assert kept.min() > 0.8
    assert dropped.median() < 0.7
    # Consistent at another scale than the one that was found is not consistent.
    wrong_scale, _ = consensus.support(field, 2 * one, one)
    assert wrong_scale.median() < agreed.median() / 3


def test_support_comes_from_others_alone() -> None:
    weight = torch.zeros(1, 1, *GRID)
    weight[..., 5, 5] = 1
    field = affine_field(similarity(1, 0), SHIFT)
    gained, kept = consensus.support(field, torch.ones_like(weight), weight)
    assert gained[..., 5, 5] == 0
    assert kept.sum() == 0


def test_gradient_of_local_affine_reaches_the_matches_around() -> None:
    one = torch.ones(1, 1, *GRID)
    matched = affine_field(similarity(1, 5), SHIFT).requires_grad_()
    positions, _, _ = consensus.local_affine(matched, one, one)
    positions[0, 0, 7, 8].backward()
    assert matched.grad is not None
    reached = matched.grad[0, 0].abs() > 1e-6
    assert reached[7, 8]
    assert 9 < reached.sum() <= 13 * 13
    assert not reached[0].any()
    # x depends on x alone, and moving all matches alike moves the position by as much.
    assert (matched.grad[0, 1] == 0).all()
    assert float(matched.grad[0, 0].sum()) == pytest.approx(1, abs=0.01)


# --- descriptors -----------------------------------------------------------------------------


def test_descriptors_have_length_one_and_flat_images_none() -> None:
    images = torch.cat([picture(48, 64, 0), torch.full((1, 3, 48, 64), 0.4)])
    histograms = describe(images, WINDOWS, STRIDE)
    assert histograms.shape == (2, len(WINDOWS), CHANNELS, 6, 8)
    assert (histograms >= 0).all()
    descriptors = normalise(histograms)
    assert torch.allclose(descriptors[0].norm(dim=1), torch.ones(()), atol=1e-5)
    assert histograms[1].abs().max() < 1e-4
    assert descriptors.isfinite().all()


def test_a_doubled_image_looks_the_same_through_doubled_windows() -> None:
    image = picture(64, 64, 1)
    double = torch.nn.functional.interpolate(image, scale_factor=2, mode="bicubic").clamp(0, 1)
    small, large = (18.0, 26.0), (36.0, 52.0)
    a = normalise(describe(image, small, STRIDE))
    # Twice the stride: the same 8 x 8 cells.
    b = normalise(describe(double, large, 2 * STRIDE))
    alike = (a * b).sum(dim=2)
    assert alike.mean() > 0.97
    assert alike.min() > 0.85
    other = normalise(describe(picture(64, 64, 2), small, STRIDE))
    assert (a * other).sum(dim=2).mean() < alike.mean() - 0.2
    unscaled = normalise(describe(double, small, 2 * STRIDE))
    assert (a * unscaled).sum(dim=2).mean() < alike.mean() - 0.1


def test_gradient_directions_are_told_apart() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    images = torch.cat([ramp, ramp.flip(3), ramp.transpose(2, 3), ramp.transpose(2, 3).flip(2)])
    inner = describe(images, (16.0,), STRIDE)[:, 0, :, 4, 4].unflatten(1, (8, 16)).sum(2)
    # Right, left, down, up: bins of 0, 180, 90 and 270 degrees.
    assert inner.argmax(dim=1).tolist() == [0, 4, 2, 6]


def test_brightness_and_contrast_do_not_matter() -> None:
    image = picture(64, 64, 3)
    a = normalise(describe(image, (26.0,), STRIDE))
    b = normalise(describe(0.6 * image + 0.3, (26.0,), STRIDE))
    assert (a * b).sum(dim=2).min() > 0.99


# --- the matcher -----------------------------------------------------------------------------


def test_shapes_of_images_of_any_size(trained: CorrelationMatcher) -> None:
    source = torch.cat([picture(64, 96, n) for n in range(2)])
    target = torch.cat([picture(80, 48, n) for n in range(2)])
    with torch.no_grad():
        matches = trained(source, target)
    assert matches.source.positions.shape == (2, 8, 12, 2)
    assert matches.target.positions.shape == (2, 10, 6, 2)
    assert matches.source.mask_logits.shape == (2, 8, 12)
    assert matches.target.mask_logits.shape == (2, 10, 6)
    assert matches.source.features.shape == (2, CHANNELS, 8, 12)
    assert matches.target.features.shape == (2, CHANNELS, 10, 6)
    assert matches.source.extra["correlation"] is not None
    assert matches.source.extra["correlation"].shape == (2, 96, 60)
    for positions in (matches.source.positions, matches.target.positions):
        assert 0 <= positions.min() <= positions.max() <= 1
    for features in (matches.source.features, matches.target.features):
        assert torch.allclose(features.norm(dim=1), torch.ones(()), atol=1e-5)


def test_it_is_known_by_its_name() -> None:
    assert isinstance(build("correlation", width=8), CorrelationMatcher)
    with pytest.raises(ValueError, match=r"'nothing'.*correlation"):
        build("nothing")


def test_identical_images_map_to_themselves(untrained: CorrelationMatcher) -> None:
    image = tensor_of(photo())
    with torch.no_grad():
        matches = untrained(image, image)
    cells = SIZE // STRIDE
    for positions in (matches.source.positions, matches.target.positions):
        off = (positions[0] - cell_centres(cells, cells, positions)).norm(dim=-1) * cells
        assert off.max() < 0.5
        assert off.mean() < 0.1


@pytest.mark.parametrize(
    ("scale", "along_x", "along_y"),
    [(1.0, 0.15, -0.1), (1.0, -0.2, 0.12), (0.6, 0.2, 0.15), (1.5, -0.3, -0.2)],
)
def test_a_moved_picture_is_found_untrained(
    untrained: CorrelationMatcher, scale: float, along_x: float, along_y: float
) -> None:
    matrix = geometry.translation(along_x, along_y) @ geometry.scaling(scale, scale)
    image = photo(160)
    # Around the moved picture there is another texture.
    target = geometry.warp(image, matrix, 160, 160)
    shown = geometry.warp_labels(np.ones((160, 160), np.uint8), matrix, 160, 160)
    target = np.where(shown[..., None] > 0, target, textured(160, 160, 9))
    with torch.no_grad():
        matches = untrained(tensor_of(image), tensor_of(target))
    for positions, true in (
        (matches.source.positions, matrix), (matches.target.positions, np.linalg.inv(matrix))
    ):  # fmt: skip
        expected = geometry.transform_points(true, geometry.cell_centres(20, 20))
        margin = 0.03
        shared = ((expected > margin) & (expected < 1 - margin)).all(axis=-1)
        error = np.linalg.norm(positions[0].numpy() - expected, axis=-1)[shared]
        assert len(error) > 80
        assert (error < 0.03).mean() > 0.8
        assert np.median(error) < 0.015


def close(first: Matches, second: Matches) -> bool:
    # Where nothing matches, rounding decides between equals: a few cells may differ.
    return all(
        ((a - b).abs() < 1e-3 + 1e-3 * a.abs()).float().mean() > 0.98
        for a, b in zip(parts(first), parts(second), strict=True)
    )


def test_exchanging_the_images_exchanges_the_answer(trained: CorrelationMatcher) -> None:
    source, target = picture(64, 80, 0), tensor_of(textured(96, 64, 0))
    with torch.no_grad():
        forth, back = trained(source, target), trained(target, source)
    assert close(forth.reversed(), back)
    assert forth.source.mask_logits.std() > 0.1


def test_a_pair_is_matched_alone(trained: CorrelationMatcher) -> None:
    image = photo(64)
    source = tensor_of(image, textured(64, 64, 1), textured(64, 64, 2))
    target = tensor_of(np.roll(image, 8, axis=1), image, textured(64, 64, 1))
    with torch.no_grad():
        together = trained(source, target)
        for number in range(3):
            alone = trained(source[number : number + 1], target[number : number + 1])
            one = slice(number, number + 1)
            taken = Matches(*(
                Side(
                    side.positions[one], side.mask_logits[one], side.features[one],
                    {name: value[one] for name, value in side.extra.items()},
                )
                for side, _ in together.both()
            ))  # fmt: skip
            assert close(taken, alone)


def test_hidden_target_cells_do_not_matter_to_the_source(trained: CorrelationMatcher) -> None:
    image = photo(64)
    with torch.no_grad():
        images = trained.encode(tensor_of(image, np.roll(image, 16, axis=1), textured(64, 64, 5)))
    source, target, noise = images.split(1)
    visible = torch.ones(1, 8, 8, dtype=torch.bool)
    visible[:, 3:6, 2:7] = False
    changed = Encoding({
        "descriptors": torch.where(
            visible[:, None, None], target["descriptors"], noise["descriptors"]
        ),
        "energy": torch.where(visible[:, None], target["energy"], noise["energy"]),
    })  # fmt: skip
    with torch.no_grad():
        hidden = trained.match(source, target, visible)
        same = trained.match(source, changed, visible)
        seen, other = trained.match(source, target), trained.match(source, changed)
    assert torch.allclose(hidden.source.positions, same.source.positions, atol=1e-5)
    assert not torch.allclose(seen.source.positions, other.source.positions, atol=0.02)
    share = hidden.source.extra["correlation"].softmax(dim=2)[0].sum(dim=0).view(8, 8)
    assert share[~visible[0]].max() == 0
    assert share.sum() == pytest.approx(64, rel=1e-4)


def test_a_wholly_hidden_target_counts_as_seen(trained: CorrelationMatcher) -> None:
    with torch.no_grad():
        source, target = trained.encode(tensor_of(photo(64), textured(64, 64, 1))).split(1)
        hidden = trained.match(source, target, torch.zeros(1, 8, 8, dtype=torch.bool))
        seen = trained.match(source, target)
    assert torch.allclose(hidden.source.positions, seen.source.positions, atol=1e-5)
    assert hidden.source.mask_logits.isfinite().all()


def answers_of(matches: Matches, source: Tensor) -> Answers:
    cells = source.shape[-1] // STRIDE
    mask = torch.zeros(len(source), cells, cells)
    mask[:, 2:6, 2:6] = 1
    grid = cell_centres(cells, cells, mask).expand(len(source), -1, -1, -1)
    return answers(matches, batch_of(source, mask, mask, grid, grid, mask > 0, mask > 0))


LOSSES: tuple[Callable[[Answers], Tensor], ...] = (
    mask_loss, transfer_loss, correspondence_loss, correlation_loss
)  # fmt: skip


def test_gradients_reach_every_parameter(trained: CorrelationMatcher) -> None:
    matcher = CorrelationMatcher()
    matcher.load_state_dict(trained.state_dict())
    matcher.train()
    image = photo(64)
    source, target = tensor_of(image, textured(64, 64, 0)), tensor_of(np.roll(image, 4, 1), image)
    matches = matcher(source, target)
    torch.stack([loss(answers_of(matches, source)) for loss in LOSSES]).sum().backward()
    for name, parameter in matcher.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name == "scale_bias":  # of every scale
            assert (parameter.grad != 0).sum() == len(SHIFTS)
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("loss", [correspondence_loss, correlation_loss])
def test_position_losses_alone_teach_the_descriptors(
    loss: Callable[[Answers], Tensor],
) -> None:
    # At the start the residual's last layer is zero; it must be able to leave that.
    matcher = CorrelationMatcher().train()
    source, target = tensor_of(photo(64)), tensor_of(np.roll(photo(64), 4, axis=1))
    loss(answers_of(matcher(source, target), source)).backward()
    last = matcher.adapt[2].weight.grad
    assert isinstance(last, Tensor)
    assert last.abs().max() > 0


def test_flat_and_tiny_images_give_finite_answers(trained: CorrelationMatcher) -> None:
    flat, small = torch.full((1, 3, 64, 64), 0.5), picture(32, 32, 0)
    with torch.no_grad():
        for source, target in ((flat, flat), (flat, small), (small, flat), (small, small)):
            matches = trained(source, target)
            assert all(part.isfinite().all() for part in parts(matches))


def test_half_precision_gives_about_the_same_positions(trained: CorrelationMatcher) -> None:
    image = photo(96)
    source, target = tensor_of(image), tensor_of(np.roll(image, 8, axis=0))
    with torch.no_grad():
        exact = trained(source, target)
        with torch.autocast("cpu", torch.bfloat16):
            rough = trained(source, target)
    assert all(part.isfinite().all() for part in parts(rough))
    off = (exact.source.positions - rough.source.positions.float()).norm(dim=-1)
    assert off.median() < 0.01
