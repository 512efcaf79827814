"""Lists of the scores of few pairs of cells, and convolution that stays on them.

Submanifold convolution (Graham et al., "3D Semantic Segmentation with Submanifold Sparse
Convolutional Networks", CVPR 2018): where a value comes in one goes out, and nowhere else. Places
are found by a number that stands for them, among sorted numbers.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True)
class Neighbours:
    """Which entries of a list lie beside which, at each of the shifts that a kernel has.

    Attributes:
        size: of the kernel along each of four axes.
        pairs: for each shift, in the kernel's order, int64 (2, n): the entries that give, and those
            that get, shifted against them.
    """

    size: int
    pairs: tuple[Tensor, ...]

    def exchanged(self) -> "Neighbours":
        """The same with the images exchanged: the list of the transposed scores, in its order."""
        size = self.size
        places = product(range(size), repeat=4)
        order = [((c * size + d) * size + a) * size + b for a, b, c, d in places]
        return Neighbours(size, tuple(self.pairs[number] for number in order))

    def convolve(self, cells: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Cells (N, C) convolved: (N, D).

        Args:
            weight: (D, C, k, k, k, k), as of `conv4d`.
            bias: (D,).
        """
        kernels = weight.flatten(2).permute(2, 1, 0)  # shifts, C, D
        total = bias.expand(len(cells), -1)
        for kernel, (giving, getting) in zip(kernels, self.pairs, strict=True):
            if len(giving):
                total = total.index_add(0, getting, cells[giving] @ kernel)
        return total


@dataclass(frozen=True)
class Entries:
    """Scores of some pairs of cells.

    Attributes:
        places: int64 (N, 5): pair of the batch, row and column in the one image, in the other.
        values: (N,).
        shape: of all scores: pairs, rows and columns of the one image, of the other.
    """

    places: Tensor
    values: Tensor
    shape: tuple[int, int, int, int, int]

    def dense(self, empty: float = 0.0) -> Tensor:
        """All scores (B, 1, hA, wA, hB, wB), `empty` where the list has none."""
        filled = self.values.new_full(self.shape, empty)
        return filled.index_put(tuple(self.places.T), self.values)[:, None]

    def with_values(self, values: Tensor) -> "Entries":
        """Other values (N,) at the same places."""
        return Entries(self.places, values, self.shape)

    def neighbours(self, size: int) -> Neighbours:
        """See `Neighbours`, of a kernel of a size."""
        around = size // 2
        # With room around each axis no shift leads into another row.
        sides = [side + 2 * around for side in self.shape[1:]]
        steps = [1]
        for side in reversed(sides[1:]):
            steps.insert(0, steps[0] * side)
        steps.insert(0, steps[0] * sides[0])
        step = torch.tensor(steps, device=self.places.device)
        keys = (self.places * step).sum(1)
        ordered, order = keys.sort()
        pairs = []
        for shift in product(range(-around, around + 1), repeat=4):
            wanted = keys + sum(a * b for a, b in zip(shift, steps[1:], strict=True))
            found = torch.searchsorted(ordered, wanted).clamp(max=len(keys) - 1)
            there = (ordered[found] == wanted).nonzero()[:, 0]
            pairs.append(torch.stack([order[found[there]], there]))
        return Neighbours(size, tuple(pairs))

    @cached_property
    def of_source(self) -> Tensor:
        """The number of each entry's cell in the one image, among all pairs': int64 (N,)."""
        pair, row, column, _, _ = self.places.T
        return (pair * self.shape[1] + row) * self.shape[2] + column


def nearest(source: Tensor, target: Tensor, count: int) -> Entries:
    """The `count` most similar cells of the other image for every cell of both images.

    The lists of both directions are joined and their values added: what both name has twice the
    cosine, which takes the mutual filter's place (Rocco et al. 2020, section 3).

    Args:
        source, target: features (B, C, hA, wA) and (B, C, hB, wB), of length 1 along C.
    """
    pairs, _, *own = source.shape
    other = target.shape[2:]
    cosines = source.flatten(2).transpose(1, 2) @ target.flatten(2)
    with torch.no_grad():
        chosen = torch.zeros_like(cosines)
        for axis in (1, 2):
            best = cosines.topk(min(count, cosines.shape[axis]), dim=axis).indices
            chosen.scatter_add_(axis, best, torch.ones_like(best, dtype=chosen.dtype))
        pair, a, b = chosen.nonzero().T
    values = cosines[pair, a, b] * chosen[pair, a, b]
    places = torch.stack([pair, a // own[1], a % own[1], b // other[1], b % other[1]], dim=1)
    return Entries(places, values, (pairs, own[0], own[1], other[0], other[1]))


def list_score(entries: Entries) -> Tensor:
    """`match_score` of a list: (B,). The softmax of a cell is over its own entries and zeros for
    all other cells; cells without entries do not count in the mean.
    """
    exchanged = Entries(
        entries.places[:, [0, 3, 4, 1, 2]], entries.values,
        (entries.shape[0], *entries.shape[3:], *entries.shape[1:3]),
    )  # fmt: skip
    return (_one_way(entries) + _one_way(exchanged)) / 2


def _one_way(entries: Entries) -> Tensor:
    pairs, rows, columns, *other = entries.shape
    cells, cell, values = pairs * rows * columns, entries.of_source, entries.values
    number = values.new_zeros(cells).index_add(0, cell, torch.ones_like(values))
    best = values.new_zeros(cells)  # of the zeros beside them
    best = best.scatter_reduce(0, cell, values, "amax")
    zeros = (other[0] * other[1] - number) * (-best).exp()
    total = zeros.index_add(0, cell, (values - best[cell]).exp())
    owned = (number > 0).to(values.dtype).view(pairs, -1)
    return (owned / total.view(pairs, -1)).sum(1) / owned.sum(1).clamp(min=1)
