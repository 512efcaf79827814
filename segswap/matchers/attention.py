"""Attention within and across two images, and the code of a cell's place: what matchers share."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def position_code(rows: int, columns: int, width: int, like: Tensor) -> Tensor:
    """Sine code of a grid's cells: (rows * columns, width) float32 in [-1, 1], on `like`'s device.

    The first half of the channels codes the row, the second half the column. The k-th of n goes
    to 2 pi k / n, k = 1..n; channels alternate between sine and cosine of it divided by powers of
    10000 (Carion et al., "End-to-End Object Detection with Transformers", arXiv 2005.12872).
    """
    pairs = width // 4
    periods = 10000.0 ** (torch.arange(pairs, device=like.device, dtype=torch.float32) / pairs)

    def axis(cells: int) -> Tensor:
        steps = torch.arange(1, cells + 1, device=like.device, dtype=torch.float32)
        angles = (2 * math.pi / cells * steps)[:, None] / periods
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)

    y = axis(rows)[:, None].expand(-1, columns, -1)
    x = axis(columns)[None].expand(rows, -1, -1)
    return torch.cat([y, x], dim=-1).flatten(0, 1)


class PairLayer(nn.Module):
    """A post-norm encoder layer on the cells of two images, with the same weights for both.

    Each image's cells attend to the cells of one image: their own, or with `cross` the other's.
    That equals one attention over both images' cells in a row with a block mask (the published
    layout) with half the attention's products (benchmarks/transformer_step.py times both).
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, cross: bool) -> None:
        super().__init__()
        self.heads = heads
        self.cross = cross
        self.project = nn.Linear(width, 3 * width)
        self.combine = nn.Linear(width, width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        # As nn.MultiheadAttention starts.
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.combine.bias)

    def forward(
        self, source: Tensor, target: Tensor, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """New cells of both images.

        Args:
            source: (B, n, width).
            target: (B, m, width).
            visible: bool (B, m); target cells that are False are attended to by none. At least one
                a sample is True.

        Returns:
            Of the same shapes.
        """
        s_query, s_key, s_value = self._heads(source)
        t_query, t_key, t_value = self._heads(target)
        mask = None if visible is None else visible[:, None, None, :]
        if self.cross:
            s_gathered = self._attend(s_query, t_key, t_value, mask)
            t_gathered = self._attend(t_query, s_key, s_value, None)
        else:
            s_gathered = self._attend(s_query, s_key, s_value, None)
            t_gathered = self._attend(t_query, t_key, t_value, mask)
        return self._update(source, s_gathered), self._update(target, t_gathered)

    def _heads(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of cells (B, n, width): each (B, heads, n, width / heads)."""
        split = self.project(cells).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """What (B, heads, n, c) queries gather from the values: (B, n, heads * c)."""
        dropout = self.dropout.p if self.training else 0.0
        gathered = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return gathered.transpose(1, 2).flatten(2)

    def _update(self, cells: Tensor, gathered: Tensor) -> Tensor:
        """The cells (B, n, width) after the rest of the layer."""
        cells = self.norm1(cells + self.dropout(self.combine(gathered)))
        changed = self.contract(self.dropout(F.relu(self.expand(cells))))
        return self.norm2(cells + self.dropout(changed))
