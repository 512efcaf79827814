"""Each loss equals its definition written out in loops, and its gradients go where they must."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_matches import answers, batch_of, matches_of
from torch import Tensor

from segswap.matchers.base import Batch, Matches, Side, on_grid
from segswap.matchers.losses import (
    correlation_loss,
    correspondence_loss,
    keypoint_loss,
    mask_loss,
    same_loss,
    transfer_loss,
)
from segswap.matchers.sampling import cell_centres

SOURCE, TARGET = (4, 5), (6, 3)


def random_matches(seed: int = 0, count: int = 2) -> Matches:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return matches_of(
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
    return batch_of(
        images, draw(count, *SOURCE), draw(count, *TARGET),
        draw(count, *SOURCE, 2), draw(count, *TARGET, 2),
        draw(count, *SOURCE) < 0.6, draw(count, *TARGET) < 0.6,
    )  # fmt: skip


def sides(matches: Matches, batch: Batch) -> list[tuple[np.ndarray, ...]]:
    """For each direction: logits, other logits, positions, truth, true positions, valid,
    correlation.
    """
    arrays = [
        (side.mask_logits, other.mask_logits, side.positions, truth.mask, truth.positions,
         truth.valid, side.extra["correlation"])
        for (side, other), truth in zip(matches.both(), batch, strict=True)
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
    assert float(mask_loss(answers(matches, batch))) == pytest.approx(expected, rel=1e-5)


def test_negatives_are_part_of_the_same_mean() -> None:
    matches, batch, empty = random_matches(), random_batch(), random_matches(5, count=3)
    expected = 0.0
    negative = (empty.source.mask_logits, empty.target.mask_logits)
    for (logits, _, _, truth, *_), other in zip(sides(matches, batch), negative, strict=True):
        values = [cross_entropy(t, x) for t, x in zip(truth.flat, logits.flat, strict=True)]
        values += [cross_entropy(0, float(x)) for x in other.flatten()]
        expected += np.mean(values)
    assert float(mask_loss(answers(matches, batch, empty))) == pytest.approx(expected, rel=1e-5)
    # 0 on both sides and infinitely sure of it: the negatives only make the mean longer.
    sure = Matches(*(replace(s, mask_logits=s.mask_logits * 0 - 99) for s, _ in empty.both()))
    assert float(mask_loss(answers(matches, batch, sure))) == pytest.approx(
        float(mask_loss(answers(matches, batch))) * 2 / 5, rel=1e-5
    )


def test_transfer_loss_is_its_definition() -> None:
    matches, batch = random_matches(), random_batch()
    expected = 0.0
    for _, other, positions, truth, *_ in sides(matches, batch):
        values = []
        for index in np.ndindex(truth.shape):
            cells = corners(positions[index], other.shape[1:])
            masks = 1 / (1 + np.exp(-other[index[0]]))
            carried = sum(weight * masks[row, column] for row, column, weight in cells)
            true = truth[index]
            values.append(-true * np.log(carried) - (1 - true) * np.log(1 - carried))
        expected += np.mean(values)
    assert float(transfer_loss(answers(matches, batch))) == pytest.approx(expected, rel=1e-4)


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
    assert float(correspondence_loss(answers(matches, batch))) == pytest.approx(expected, rel=1e-5)


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
    assert float(correlation_loss(answers(matches, batch))) == pytest.approx(expected, rel=1e-4)


def test_correlation_loss_at_the_frame_takes_the_outermost_cells() -> None:
    matches, batch = random_matches(), random_batch()
    corner = Batch(
        batch.source._replace(positions=torch.ones_like(batch.source.positions)),
        batch.target._replace(valid=batch.target.valid & False),
    )
    last = matches.source.extra["correlation"].log_softmax(dim=2)[..., -1]
    expected = -last.view_as(batch.source.mask)
    assert torch.allclose(
        correlation_loss(answers(matches, corner)), expected[batch.source.valid].mean(), rtol=1e-5
    )


def test_a_matcher_without_correlation_is_refused() -> None:
    bare = Matches(*(replace(side, extra={}) for side, _ in random_matches().both()))
    with pytest.raises(ValueError, match="correlation"):
        correlation_loss(answers(bare, random_batch()))


def perfect() -> tuple[Matches, Batch]:
    """Matches whose positions are the identity and whose masks are the true ones, with an edge."""
    shape = (2, 6, 6)
    mask = torch.zeros(shape)
    mask[:, 1:4, 2:5] = 1
    identity = cell_centres(6, 6, mask).expand(2, -1, -1, -1)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    batch = batch_of(images, mask, mask, identity, identity, mask > 0, mask > 0)
    logits = (mask - 0.5) * 6
    features = torch.zeros(2, 3, 6, 6)
    return matches_of(identity, identity, logits, logits, features, features), batch


def test_transfer_loss_is_the_mask_loss_at_the_identity() -> None:
    matches, batch = perfect()
    told = answers(matches, batch)
    assert torch.allclose(transfer_loss(told), mask_loss(told), rtol=1e-5)
    assert float(correspondence_loss(told)) == 0


def test_transfer_loss_is_the_mask_loss_at_the_true_positions_of_moved_regions() -> None:
    # A square that lies two cells further right and one lower in the target.
    source, target = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    source[:, 2:5, 1:4] = 1
    target[:, 3:6, 3:6] = 1
    centres = cell_centres(8, 8, source)[None]
    move = torch.tensor([2 / 8, 1 / 8])
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    there, back = centres + move, centres - move
    batch = batch_of(images, source, target, there, back, source > 0, target > 0)
    features = torch.zeros(1, 3, 8, 8)
    logits = [(mask - 0.5) * 6 for mask in (source, target)]
    matches = matches_of(there, back, logits[0], logits[1], features, features)
    assert torch.allclose(
        transfer_loss(answers(matches, batch)), mask_loss(answers(matches, batch)), rtol=1e-5
    )
    moved_on = replace(matches, source=replace(matches.source, positions=there + move))
    assert transfer_loss(answers(moved_on, batch)) > 2 * mask_loss(answers(matches, batch))


def test_transfer_loss_pulls_positions_at_the_masks_edge_and_the_masks() -> None:
    matches, batch = perfect()
    # A little to the right: to the left of the square its mask is now seen too early.
    moved = (matches.source.positions + torch.tensor([0.04, 0.0])).requires_grad_()
    logits = matches.target.mask_logits.clone().requires_grad_()
    pushed = Matches(
        replace(matches.source, positions=moved), replace(matches.target, mask_logits=logits)
    )
    transfer_loss(answers(pushed, batch)).backward()
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
    leaves = {
        "to_target": matches.source.positions, "to_source": matches.target.positions,
        "source_logits": matches.source.mask_logits, "target_logits": matches.target.mask_logits,
        "correlation": matches.source.extra["correlation"],
    }  # fmt: skip
    leaves = {name: value.clone().requires_grad_() for name, value in leaves.items()}
    features = {"source_features": matches.source.features,
                "target_features": matches.target.features}  # fmt: skip
    reached = {
        mask_loss: {"source_logits", "target_logits"},
        correspondence_loss: {"to_target", "to_source"},
        correlation_loss: {"correlation"},
        transfer_loss: {"to_target", "to_source", "source_logits", "target_logits"},
    }
    for loss, expected in reached.items():
        for leaf in leaves.values():
            leaf.grad = None
        loss(answers(matches_of(**leaves, **features), batch)).backward()
        assert {name for name, leaf in leaves.items() if leaf.grad is not None} == expected


def test_without_a_valid_cell_position_losses_are_zero() -> None:
    matches, batch = random_matches(), random_batch()
    nowhere = Batch(*(side._replace(valid=side.valid & False) for side in batch))
    assert float(correspondence_loss(answers(matches, nowhere))) == 0
    assert float(correlation_loss(answers(matches, nowhere))) == 0


@pytest.mark.parametrize("loss", [mask_loss, transfer_loss, correspondence_loss, correlation_loss])
def test_both_directions_count_the_same(loss: object) -> None:
    assert callable(loss)
    matches, batch = random_matches(), random_batch()
    there = loss(answers(matches, batch))
    back = loss(answers(matches.reversed(), Batch(batch.target, batch.source)))
    assert torch.allclose(there, back, rtol=1e-5)


def test_losses_of_half_precision_matches_are_float32_and_finite() -> None:
    matches, batch = random_matches(), random_batch()
    half = Matches(*(
        Side(
            side.positions.bfloat16(), side.mask_logits.bfloat16(), side.features.bfloat16(),
            {name: value.bfloat16() for name, value in side.extra.items()},
        )
        for side, _ in matches.both()
    ))  # fmt: skip
    for loss in (mask_loss, transfer_loss, correspondence_loss, correlation_loss):
        value = loss(answers(half, batch))
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(float(loss(answers(matches, batch))), rel=0.05)


def test_positive_weight_counts_cells_by_their_share_in_the_mask() -> None:
    matches, batch = random_matches(), random_batch()
    # The loss of the background alone, then of the mask alone: BCE is linear in the truth.
    logits = (matches.source.mask_logits, matches.target.mask_logits)
    truths = (batch.source.mask, batch.target.mask)
    shared = sum(
        float((t * torch.nn.functional.softplus(-x)).mean())
        for x, t in zip(logits, truths, strict=True)
    )
    rest = float(mask_loss(answers(matches, batch))) - shared
    weighted = mask_loss(answers(matches, batch), positive_weight=3.0)
    assert float(weighted) == pytest.approx(rest + 3 * shared, rel=1e-5)
    told = answers(matches, batch)
    assert float(transfer_loss(told, 3.0)) > float(transfer_loss(told))


def test_the_mask_is_carried_over_and_not_its_logits() -> None:
    """Midway between logits of 16 and -2 the mask is 0.56; the logits' mean would say 0.999."""
    logits = torch.tensor([[[16.0, -2.0]]])
    middle = torch.full((1, 1, 2, 2), 0.5)
    matches = matches_of(middle, middle, logits, logits, logits[:, None], logits[:, None])
    mask = torch.ones(1, 1, 2)
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    batch = batch_of(images, mask, mask, middle, middle, mask > 0, mask > 0)
    assert float(transfer_loss(answers(matches, batch))) == pytest.approx(-2 * np.log(0.5596), 1e-3)


def test_a_position_costs_what_it_is_off_across_plus_down() -> None:
    """As in the paper's formula; the published code takes the mean of the two, half of it."""
    matches, batch = perfect()
    off = torch.tensor([0.03, 0.05])
    moved = Matches(
        replace(matches.source, positions=matches.source.positions + off), matches.target
    )
    assert float(correspondence_loss(answers(moved, batch))) == pytest.approx(8 * 0.08, rel=1e-4)


def with_keypoints(batch: Batch, source: Tensor, target: Tensor, seen: Tensor) -> Batch:
    return Batch(
        batch.source._replace(keypoints=source, seen=seen),
        batch.target._replace(keypoints=target, seen=torch.ones_like(seen)),
    )


def test_keypoints_that_both_images_show_are_looked_up_between_the_cells() -> None:
    matches, batch = perfect()
    points = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    seen = torch.tensor([[True, True, False], [True, False, False]])
    same = with_keypoints(batch, points, points, seen)
    assert same.truth == {"pair", "mask", "positions", "keypoints"}
    assert float(keypoint_loss(answers(matches, same))) == pytest.approx(0, abs=1e-5)
    # Both directions are off by 0.02 + 0.01 at each keypoint that is seen in both.
    moved = points + torch.tensor([0.02, -0.01])
    loss = keypoint_loss(answers(matches, with_keypoints(batch, points, moved, seen)))
    assert float(loss) == pytest.approx(2 * 8 * 0.03, rel=1e-4)
    hidden = with_keypoints(batch, points, moved, seen & False)
    assert float(keypoint_loss(answers(matches, hidden))) == 0


def test_a_finer_masks_truth_is_compared_on_its_own_grid_and_carried_on_the_cells() -> None:
    matches, batch = perfect()

    def finer(mask: Tensor) -> Tensor:
        return mask.repeat_interleave(2, 1).repeat_interleave(2, 2)

    fine = Matches(*(replace(s, mask_logits=finer(s.mask_logits)) for s, _ in matches.both()))
    truth = Batch(*(side._replace(mask=finer(side.mask)) for side in batch))
    plain = mask_loss(answers(matches, batch))
    assert torch.allclose(mask_loss(answers(fine, truth)), plain, rtol=1e-5)
    assert torch.allclose(mask_loss(answers(fine, truth)), mask_loss(answers(matches, truth)))
    assert transfer_loss(answers(fine, truth)).isfinite()


def with_unknown(batch: Batch, unknown: Tensor | None = None) -> Batch:
    """The batch with the first column of its masks unknown, or all of some pairs'."""
    sides = []
    for side in batch:
        mask = side.mask.clone()
        if unknown is None:
            mask[:, :, 0] = torch.nan
        else:
            mask[unknown] = torch.nan
        sides.append(side._replace(mask=mask))
    return Batch(*sides)


def cut(matches: Matches) -> Matches:
    """Without the first column of the masks' logits."""
    return Matches(*(replace(side, mask_logits=side.mask_logits[..., 1:])
                     for side, _ in matches.both()))  # fmt: skip


def test_cells_of_which_nobody_knows_do_not_count_in_the_mask_loss() -> None:
    matches, batch = random_matches(), with_unknown(random_batch())
    rest = Batch(*(side._replace(mask=side.mask[..., 1:]) for side in batch))
    expected = mask_loss(answers(cut(matches), rest))
    torch.testing.assert_close(mask_loss(answers(matches, batch)), expected)
    # One pair of two unknown: the other one's mean.
    half = with_unknown(random_batch(), torch.tensor([True, False]))
    own = sides(matches, half)
    told = sum(
        np.mean([cross_entropy(t, z) for t, z in zip(truth[1].flat, logits[1].flat, strict=True)])
        for logits, _, _, truth, *_ in own
    )
    assert float(mask_loss(answers(matches, half))) == pytest.approx(told, rel=1e-5)


def test_cells_of_which_nobody_knows_do_not_count_in_the_transfer_loss() -> None:
    matches, batch = random_matches(), with_unknown(random_batch())
    rest = Batch(*(side._replace(mask=side.mask[..., 1:]) for side in batch))
    moved = Matches(*(replace(side, positions=side.positions[:, :, 1:])
                      for side, _ in matches.both()))  # fmt: skip
    expected = transfer_loss(answers(moved, rest))
    torch.testing.assert_close(transfer_loss(answers(matches, batch)), expected)


@pytest.mark.parametrize("loss", [mask_loss, transfer_loss])
def test_without_a_known_cell_masks_teach_nothing(loss: object) -> None:
    matches, batch = random_matches(), with_unknown(random_batch(), torch.ones(2).bool())
    for side, _ in matches.both():
        side.mask_logits.requires_grad_()
        side.positions.requires_grad_()
    value = loss(answers(matches, batch))  # type: ignore[operator]
    assert float(value.detach()) == 0
    value.backward()
    for side, _ in matches.both():
        assert not side.mask_logits.grad.any()  # NaN would be true


def test_unknown_cells_of_a_finer_grid_leave_the_mean_of_what_is_known() -> None:
    mask = torch.tensor(
        [[[1.0, torch.nan, torch.nan, torch.nan], [0.5, 0.0, torch.nan, torch.nan]]]
    )
    coarse = on_grid(mask, torch.Size((1, 2)))
    assert coarse[0, 0, 0] == pytest.approx(0.5)
    assert coarse[0, 0, 1].isnan()


def test_same_loss_is_the_mask_loss_of_the_logits_of_the_very_same_thing() -> None:
    """With negatives that count by their photographs alone."""
    matches, empty = random_matches(), random_matches(5, 3)
    batch = with_unknown(random_batch())
    told = Batch(*(side._replace(same=side.mask, mask=None) for side in batch))

    def as_same(found: Matches) -> Matches:
        return Matches(*(replace(side, extra={"same": side.mask_logits},
                                 mask_logits=side.mask_logits.detach() * 0)
                         for side, _ in found.both()))  # fmt: skip

    torch.testing.assert_close(
        same_loss(answers(as_same(matches), told)), mask_loss(answers(matches, batch))
    )
    both = answers(matches, batch, empty)
    count = torch.tensor([1.0, 0.0, 1.0])
    expected = mask_loss(replace(both, counted=count, counted_same=torch.zeros(3)))
    same = replace(answers(as_same(matches), told, as_same(empty)),
                   counted=torch.zeros(3), counted_same=count)  # fmt: skip
    torch.testing.assert_close(same_loss(same), expected)
    with pytest.raises(ValueError, match="these matches have no same"):
        same_loss(answers(matches, told))
