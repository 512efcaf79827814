"""Each loss equals its definition written out in loops, and its gradients go where they must."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from segswap.matchers import losses
from segswap.matchers.base import Batch, Matches
from segswap.matchers.losses import correlation_loss, correspondence_loss, mask_loss, transfer_loss
from segswap.matchers.sampling import cell_centres

SOURCE, TARGET = (4, 5), (6, 3)


def random_matches(seed: int = 0, count: int = 2) -> Matches:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Matches(
        draw(count, *SOURCE, 2).sigmoid(), draw(count, *TARGET, 2).sigmoid(),
        draw(count, *SOURCE), draw(count, *TARGET),
        draw(count, 7, *SOURCE), draw(count, 7, *TARGET),
        3 * draw(count, SOURCE[0] * SOURCE[1], TARGET[0] * TARGET[1]),
    )  # fmt: skip


def random_batch(seed: int = 1, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    return Batch(
        images, images, draw(count, *SOURCE), draw(count, *TARGET),
        draw(count, *SOURCE, 2), draw(count, *TARGET, 2),
        draw(count, *SOURCE) < 0.6, draw(count, *TARGET) < 0.6,
    )  # fmt: skip


def sides(matches: Matches, batch: Batch) -> list[tuple[np.ndarray, ...]]:
    """For each direction: logits, other logits, positions, truth, true positions, valid,
    correlation.
    """
    assert matches.correlation is not None
    arrays = [
        (matches.source_logits, matches.target_logits, matches.to_target, batch.source_mask,
         batch.to_target, batch.source_valid, matches.correlation),
        (matches.target_logits, matches.source_logits, matches.to_source, batch.target_mask,
         batch.to_source, batch.target_valid, matches.correlation.transpose(1, 2)),
    ]  # fmt: skip
    return [tuple(array.double().numpy() for array in side) for side in arrays]


def cross_entropy(truth: float, logit: float) -> float:
    probability = 1 / (1 + np.exp(-logit))
    return float(-truth * np.log(probability) - (1 - truth) * np.log(1 - probability))


def corners(point: np.ndarray, shape: tuple[int, int]) -> list[tuple[int, int, float]]:
    """Cells around a normalised point and their bilinear weights; at the rim the nearest ones."""
    y = float(np.clip(point[1] * shape[0] - 0.5, 0, shape[0] - 1))
    x = float(np.clip(point[0] * shape[1] - 0.5, 0, shape[1] - 1))
    found = []
    for row in range(shape[0]):
        for column in range(shape[1]):
            weight = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            if weight:
                found.append((row, column, weight))
    assert abs(sum(weight for *_, weight in found) - 1) < 1e-9
    return found


def test_mask_loss_is_its_definition() -> None:
    matches, batch = random_matches(), random_batch()
    expected = sum(
        np.mean([cross_entropy(t, x) for t, x in zip(truth.flat, logits.flat, strict=True)])
        for logits, _, _, truth, *_ in sides(matches, batch)
    )
    assert float(mask_loss(matches, batch)) == pytest.approx(expected, rel=1e-5)


def test_negatives_are_part_of_the_same_mean() -> None:
    matches, batch, empty = random_matches(), random_batch(), random_matches(5, count=3)
    expected = 0.0
    negative = (empty.source_logits, empty.target_logits)
    for (logits, _, _, truth, *_), other in zip(sides(matches, batch), negative, strict=True):
        values = [cross_entropy(t, x) for t, x in zip(truth.flat, logits.flat, strict=True)]
        values += [cross_entropy(0, float(x)) for x in other.flatten()]
        expected += np.mean(values)
    assert float(mask_loss(matches, batch, empty)) == pytest.approx(expected, rel=1e-5)
    # 0 on both sides and infinitely sure of it: the negatives only make the mean longer.
    sure = replace(empty, source_logits=empty.source_logits * 0 - 99,
                   target_logits=empty.target_logits * 0 - 99)  # fmt: skip
    assert float(mask_loss(matches, batch, sure)) == pytest.approx(
        float(mask_loss(matches, batch)) * 2 / 5, rel=1e-5
    )


def test_transfer_loss_is_its_definition() -> None:
    matches, batch = random_matches(), random_batch()
    expected = 0.0
    for _, other, positions, truth, *_ in sides(matches, batch):
        values = []
        for index in np.ndindex(truth.shape):
            cells = corners(positions[index], other.shape[1:])
            carried = sum(weight * other[index[0], row, column] for row, column, weight in cells)
            values.append(cross_entropy(truth[index], carried))
        expected += np.mean(values)
    assert float(transfer_loss(matches, batch)) == pytest.approx(expected, rel=1e-4)


def test_correspondence_loss_is_its_definition() -> None:
    matches, batch = random_matches(), random_batch()
    expected = 0.0
    for _, _, positions, _, true, valid, _ in sides(matches, batch):
        distances = [
            abs(positions[index] - true[index]).sum()
            for index in np.ndindex(valid.shape)
            if valid[index]
        ]
        expected += 8 * np.mean(distances)
    assert float(correspondence_loss(matches, batch)) == pytest.approx(expected, rel=1e-5)


def test_correlation_loss_is_its_definition() -> None:
    matches, batch = random_matches(), random_batch()
    expected = 0.0
    for _, other, _, _, true, valid, correlation in sides(matches, batch):
        rows, columns = other.shape[1:]
        values = []
        for item, row, column in np.ndindex(valid.shape):
            if not valid[item, row, column]:
                continue
            logits = correlation[item, row * valid.shape[2] + column]
            log_probabilities = logits - np.log(np.exp(logits).sum())
            cells = corners(true[item, row, column], (rows, columns))
            values.append(-sum(w * log_probabilities[r * columns + c] for r, c, w in cells))
        expected += np.mean(values)
    assert float(correlation_loss(matches, batch)) == pytest.approx(expected, rel=1e-4)


def test_correlation_loss_at_the_frame_takes_the_outermost_cells() -> None:
    matches, batch = random_matches(), random_batch()
    assert matches.correlation is not None
    corner = batch._replace(
        to_target=torch.ones_like(batch.to_target), target_valid=batch.target_valid & False
    )
    expected = -matches.correlation.log_softmax(dim=2)[..., -1].view_as(batch.source_mask)
    assert torch.allclose(
        correlation_loss(matches, corner), expected[batch.source_valid].mean(), rtol=1e-5
    )


def test_a_matcher_without_correlation_is_refused() -> None:
    with pytest.raises(ValueError, match="correlation"):
        correlation_loss(replace(random_matches(), correlation=None), random_batch())


def perfect() -> tuple[Matches, Batch]:
    """Matches whose positions are the identity and whose masks are the true ones, with an edge."""
    shape = (2, 6, 6)
    mask = torch.zeros(shape)
    mask[:, 1:4, 2:5] = 1
    identity = cell_centres(6, 6, mask).expand(2, -1, -1, -1)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    batch = Batch(images, images, mask, mask, identity, identity, mask > 0, mask > 0)
    logits = (mask - 0.5) * 6
    features = torch.zeros(2, 3, 6, 6)
    return Matches(identity, identity, logits, logits, features, features), batch


def test_transfer_loss_is_the_mask_loss_at_the_identity() -> None:
    matches, batch = perfect()
    assert torch.allclose(transfer_loss(matches, batch), mask_loss(matches, batch), rtol=1e-5)
    assert float(correspondence_loss(matches, batch)) == 0


def test_transfer_loss_is_the_mask_loss_at_the_true_positions_of_moved_regions() -> None:
    # A square that lies two cells further right and one lower in the target.
    source, target = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    source[:, 2:5, 1:4] = 1
    target[:, 3:6, 3:6] = 1
    centres = cell_centres(8, 8, source)[None]
    move = torch.tensor([2 / 8, 1 / 8])
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    there, back = centres + move, centres - move
    batch = Batch(images, images, source, target, there, back, source > 0, target > 0)
    features = torch.zeros(1, 3, 8, 8)
    logits = [(mask - 0.5) * 6 for mask in (source, target)]
    matches = Matches(there, back, logits[0], logits[1], features, features)
    assert torch.allclose(transfer_loss(matches, batch), mask_loss(matches, batch), rtol=1e-5)
    moved_on = replace(matches, to_target=there + move)
    assert transfer_loss(moved_on, batch) > 2 * mask_loss(matches, batch)


def test_transfer_loss_pulls_positions_at_the_masks_edge_and_the_masks() -> None:
    matches, batch = perfect()
    # A little to the right: to the left of the square its mask is now seen too early.
    moved = (matches.to_target + torch.tensor([0.04, 0.0])).requires_grad_()
    logits = matches.target_logits.clone().requires_grad_()
    transfer_loss(replace(matches, to_target=moved, target_logits=logits), batch).backward()
    assert moved.grad is not None
    assert logits.grad is not None
    pull = moved.grad[..., 0]
    # At the square's left and right edge positions are pulled back to the left ...
    assert (pull[:, 1:4, 1] > 1e-4).all()
    assert (pull[:, 1:4, 4] > 1e-4).all()
    # ... and where the mask is even around, they are left alone.
    assert (pull[:, 1:4, 3].abs() < 1e-7).all()
    assert (pull[:, 5].abs() < 1e-7).all()
    assert (logits.grad.abs() > 1e-5).all()


def test_gradients_of_the_other_losses() -> None:
    matches, batch = random_matches(), random_batch()
    assert matches.correlation is not None
    names = ("to_target", "to_source", "source_logits", "target_logits", "correlation")
    leaves = {name: getattr(matches, name).clone().requires_grad_() for name in names}
    reached = {
        mask_loss: {"source_logits", "target_logits"},
        correspondence_loss: {"to_target", "to_source"},
        correlation_loss: {"correlation"},
        transfer_loss: {"to_target", "to_source", "source_logits", "target_logits"},
    }
    for loss, expected in reached.items():
        for leaf in leaves.values():
            leaf.grad = None
        loss(replace(matches, **leaves), batch).backward()
        assert {name for name, leaf in leaves.items() if leaf.grad is not None} == expected


def test_without_a_valid_cell_position_losses_are_zero() -> None:
    matches, batch = random_matches(), random_batch()
    nowhere = batch._replace(
        source_valid=batch.source_valid & False, target_valid=batch.target_valid & False
    )
    assert float(correspondence_loss(matches, nowhere)) == 0
    assert float(correlation_loss(matches, nowhere)) == 0


@pytest.mark.parametrize("loss", [mask_loss, transfer_loss, correspondence_loss, correlation_loss])
def test_both_directions_count_the_same(loss: object) -> None:
    assert callable(loss)
    matches, batch = random_matches(), random_batch()
    there = loss(matches, batch)
    back = loss(matches.reversed(), losses.reversed_batch(batch))
    assert torch.allclose(there, back, rtol=1e-6)


def test_losses_of_half_precision_matches_are_float32_and_finite() -> None:
    matches, batch = random_matches(), random_batch()
    half = replace(matches, **{name: value.bfloat16() for name, value in matches.__dict__.items()})
    for loss in (mask_loss, transfer_loss, correspondence_loss, correlation_loss):
        value = loss(half, batch)
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(float(loss(matches, batch)), rel=0.05)


def test_positive_weight_counts_cells_by_their_share_in_the_mask() -> None:
    matches, batch = random_matches(), random_batch()
    # The loss of the background alone, then of the mask alone: BCE is linear in the truth.
    logits = (matches.source_logits, matches.target_logits)
    truths = (batch.source_mask, batch.target_mask)
    shared = sum(
        float((t * torch.nn.functional.softplus(-x)).mean())
        for x, t in zip(logits, truths, strict=True)
    )
    rest = float(mask_loss(matches, batch)) - shared
    weighted = mask_loss(matches, batch, positive_weight=3.0)
    assert float(weighted) == pytest.approx(rest + 3 * shared, rel=1e-5)
    assert float(transfer_loss(matches, batch, 3.0)) > float(transfer_loss(matches, batch))
