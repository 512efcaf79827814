"""One direction of a match: each cell's place in the other image, and the evidence for it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from segswap.matchers.correlation import consensus
from segswap.matchers.sampling import cell_at, cell_centres, cell_places, sample

EVIDENCE = 3 + 7 + 7 + 1 + 2 + 2  # channels of Direction.evidence


@dataclass(frozen=True)
class Direction:
    """Matches of one image's cells (N = h w) in the other's grid of h' x w' cells.

    Attributes:
        other: rows and columns of the other grid.
        positions: (B, 2, h, w) after consensus, in cells; gradients reach the correlation.
        linear: (B, 4, h, w) the linear part of each cell's local map: how x, then y, of the
            position change (in x, then y) along this grid's x, then y.
        weight: (B, 1, h, w) of the matches behind each local map.
        own: (B, C, h, w) evidence of the cell's best match alone.
        agreed: (B, C, h, w) evidence of what its neighbours agree on.
    """

    other: torch.Size
    positions: Tensor
    linear: Tensor
    weight: Tensor
    own: Tensor
    agreed: Tensor

    @classmethod
    def of(cls, logits: Tensor, scale: Tensor, shape: torch.Size, other: torch.Size) -> "Direction":
        """Match, let neighbours vote, match again near their vote, and let them vote again.

        Args:
            logits: (B, N, N').
            scale: (B, N) of the best match.
        """

        def grid(values: Tensor) -> Tensor:  # (B, N[, C]) -> (B, C, h, w)
            return values.view(len(values), *shape, -1).permute(0, 3, 1, 2)

        with torch.no_grad():
            rows, columns = logits.logsumexp(dim=2), logits.logsumexp(dim=1)
            best = logits.argmax(dim=2)
            peak = logits.gather(2, best[..., None])[..., 0]
            log_there, log_back = peak - rows, peak - columns.gather(1, best)
            confidence = grid((0.5 * (log_there + log_back)).exp())
            matched = grid(_soft_position(logits, best, other, radius=1))
            scales = grid(scale)
            first, weight = consensus.support(matched, scales, confidence)
            voted, _, _ = consensus.local_affine(matched, scales, weight)
            cell = _cell(voted, other)
        again = grid(_soft_position(logits, cell, other, radius=2))
        with torch.no_grad():
            near = grid(_around(logits, cell, other) - rows).exp()
            second, weight = consensus.support(again, scales, near)
        positions, linear, total = consensus.local_affine(again, scales, weight)
        with torch.no_grad():
            cell = _cell(positions, other)
            there = _around(logits, cell, other)
            back = _around(logits - columns[:, None], cell, other)
            moved = (again - positions).norm(dim=1, keepdim=True)
            own = [log_there / 5, log_back / 5, peak / 20 - 1]
            near_map = [(there - rows).clamp(min=-15) / 5, back.clamp(min=-15) / 5, there / 20 - 1]
            agreed = [first.log1p(), second.log1p(), total.log1p(), moved.clamp(max=5) / 2]
        return cls(
            other, positions, linear, total, grid(torch.stack(own, dim=2)),
            torch.cat([grid(torch.stack(near_map, dim=2)), *agreed], dim=1),
        )  # fmt: skip

    def normalised(self) -> Tensor:
        """`normalise_cells` of the positions."""
        return normalise_cells(self.positions, self.other)

    @torch.no_grad()
    def evidence(self, back: "Direction", energy: Tensor, other_energy: Tensor) -> Tensor:
        """Maps (B, EVIDENCE, h, w) of how well each cell is matched, each of the order of 1.

        Args:
            back: the other image's matches in this one.
            energy, other_energy: (B, S, h, w) log-strength of the gradients of both images.
        """
        there = self.normalised()
        returned = sample(back.normalised().permute(0, 3, 1, 2), there)
        home = cell_centres(there.shape[1], there.shape[2], there).permute(2, 0, 1)
        missed = (returned - home).norm(dim=1, keepdim=True)
        own_energy = energy[:, 1::3]
        contrast = own_energy - sample(other_energy[:, 1::3], there)
        return torch.cat(
            [
                self.own, self.agreed, sample(back.agreed, there), torch.exp(-20 * missed),
                own_energy / 2 + 1, contrast.clamp(-3, 3),
            ],
            dim=1,
        )  # fmt: skip


def normalise_cells(positions: Tensor, shape: torch.Size) -> Tensor:
    """Positions (B, 2, h, w) in cells of a grid, as normalised ones inside it: (B, h, w, 2)."""
    size = torch.tensor([shape[1], shape[0]], device=positions.device)
    return (positions.permute(0, 2, 3, 1) / size).clamp(0, 1)


def _cell(positions: Tensor, shape: torch.Size) -> Tensor:
    """Index (B, N) of the cell that each position (B, 2, h, w) lies in; the nearest one outside."""
    return cell_at(positions.movedim(1, -1), *shape).flatten(1)


def _window(values: Tensor, cell: Tensor, shape: torch.Size, radius: int) -> tuple[Tensor, Tensor]:
    """Values (B, N, K) in a square around a cell, very low outside the grid; its cells' centres."""
    step = torch.arange(-radius, radius + 1, device=cell.device)
    down, right = step.repeat_interleave(len(step)), step.repeat(len(step))
    rows, columns = (cell // shape[1])[..., None] + down, (cell % shape[1])[..., None] + right
    framed = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    index = rows.clamp(0, shape[0] - 1) * shape[1] + columns.clamp(0, shape[1] - 1)
    taken = values.gather(2, index).masked_fill(~framed, -1e4)
    centres = cell_places(shape[0], shape[1], values).flatten(0, 1)[cell]
    return taken, centres[:, :, None] + torch.stack([right, down], dim=-1)


def _soft_position(logits: Tensor, cell: Tensor, shape: torch.Size, radius: int) -> Tensor:
    """Soft-argmax (B, N, 2) of the logits in a square around a cell."""
    taken, centres = _window(logits, cell, shape, radius)
    return (taken.softmax(dim=-1)[..., None] * centres).sum(dim=2)


def _around(values: Tensor, cell: Tensor, shape: torch.Size) -> Tensor:
    """log-sum-exp (B, N) of values in the 3 x 3 square around a cell."""
    return _window(values, cell, shape, 1)[0].logsumexp(dim=-1)
