"""What cells around and masks say of correspondences, by the semantic matcher."""

import torch
from torch import Tensor

from segswap.matchers.sampling import cell_centres
from segswap.matchers.semantic.fields import field_of
from segswap.matchers.semantic.support import supported


def scores_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_step_common_to_all_is_found_among_noise() -> None:
    """Each cell's own logits are too noisy; those of cells around move as it does."""
    grid = torch.Size((16, 16))
    moved = torch.zeros(1, 16, 16, 16, 16)
    for row in range(13):
        for column in range(14):
            moved[0, row, column, row + 3, column + 2] = 3.0
    logits = moved.view(1, 256, 256) + scores_of((1, 256, 256))
    masks = torch.full((1, 32, 32), 5.0), torch.full((1, 32, 32), 5.0)
    home = cell_centres(16, 16, logits)
    true = home + torch.tensor([2.0, 3.0]) / 16
    errors = [
        (field_of(each, grid, grid).positions - true)[:, :13, :14].norm(dim=-1).median()
        for each in (logits, supported(logits, masks, (grid, grid)))
    ]
    assert errors[1] < 0.5 * errors[0]


def test_cells_of_what_is_shared_correspond_to_such_cells() -> None:
    grid = torch.Size((1, 4))
    source, target = torch.tensor([[[9.0, 9, -9, -9]]]), torch.tensor([[[-9.0, 9, -9, 9]]])
    best = supported(torch.zeros(1, 4, 4), (source, target), (grid, grid))[0].argmax(dim=1)
    assert target[0, 0, best].sign().tolist() == source[0, 0].sign().tolist()


def test_masks_are_not_taught_by_positions() -> None:
    grid = torch.Size((2, 2))
    logits = torch.zeros(1, 4, 4, requires_grad=True)
    masks = torch.zeros(1, 2, 2, requires_grad=True), torch.zeros(1, 2, 2, requires_grad=True)
    supported(logits, masks, (grid, grid)).logsumexp(-1).sum().backward()
    assert logits.grad is not None
    assert masks[0].grad is None
    assert masks[1].grad is None


def test_support_is_the_same_of_exchanged_images() -> None:
    grids = torch.Size((4, 6)), torch.Size((5, 7))
    logits, masks = scores_of((2, 24, 35)), (scores_of((2, 8, 12), 1), scores_of((2, 10, 14), 2))
    there = supported(logits, masks, grids)
    back = supported(logits.transpose(1, 2), masks[::-1], grids[::-1])
    assert torch.allclose(there, back.transpose(1, 2), atol=1e-5)


def test_what_is_hidden_supports_nothing_and_is_matched_by_nothing() -> None:
    grid = torch.Size((3, 4))
    visible = torch.tensor([[True, True, False, False] * 3, [True] * 12])
    logits, masks = scores_of((2, 12, 12)), (scores_of((2, 6, 8), 1), scores_of((2, 6, 8), 2))
    other = torch.where(visible[:, None], logits, scores_of((2, 12, 12), 3))
    found = [supported(each, masks, (grid, grid), visible) for each in (logits, other)]
    assert torch.allclose(*found, atol=1e-5)
    assert found[0].isfinite().all()
    assert found[0][0, :, ~visible[0]].max() < -1e3
    assert torch.allclose(found[0][1], supported(logits, masks, (grid, grid))[1], atol=1e-5)
