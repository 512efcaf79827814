"""A matcher that is useful without pretrained weights: correlation, consensus, evidence.

Fixed gradient descriptors match already; a residual that is zero at the start adapts them. Their
correlation over relative scales gives each cell a match; matches that agree with their neighbours
vote for local affine maps, which carry every cell to the other image; and a small convolutional
head turns the evidence for that map into the mask.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers import consensus
from segswap.matchers.base import Matcher, Matches, cell_centres, register, sample
from segswap.matchers.descriptors import CHANNELS, describe, normalise

WINDOWS = tuple(13 * 2 ** (k / 2) for k in range(6))  # pixels, half an octave apart
SHIFTS = tuple(range(-4, 5))  # relative scales: target over source, in half octaves
_PAIRS = 2  # pairs of windows compared for each relative scale
EVIDENCE = 3 + 7 + 7 + 1 + 2 + 2


@register
class CorrelationMatcher(Matcher):
    """Correlation of adapted gradient descriptors at all relative scales, with local consensus."""

    name: ClassVar[str] = "correlation"
    # Few cells are shared, fewer still among the negatives: unweighted, a mask cut at 0.5 is
    # much too small.
    positive_weight: ClassVar[float] = 3.0
    size: ClassVar[int] = 240
    match_size: ClassVar[int] = 320
    lr: ClassVar[float] = 2e-3

    def __init__(self, width: int = 48) -> None:
        """
        Args:
            width: channels of the mask head.
        """
        super().__init__()
        self.stride = 8
        self.adapt = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 1)
        )
        for parameter in self.adapt[2].parameters():
            nn.init.zeros_(parameter)
        self.log_temperature = nn.Parameter(torch.tensor(30.0).log())
        self.scale_bias = nn.Parameter(torch.zeros(len(SHIFTS)))
        self.head = MaskHead(width)

    def encode(self, images: Tensor) -> Tensor:
        """(B, S * 129, h, w): adapted descriptors of length 1 at S windows, then their energies."""
        with torch.no_grad():
            histograms = describe(images, WINDOWS, self.stride)
            energy = (histograms.norm(dim=2) + 1e-3).log()
            fixed = normalise(histograms)
        adapted = fixed + self.adapt(fixed.flatten(0, 1)).unflatten(0, fixed.shape[:2])
        return torch.cat([F.normalize(adapted, dim=2, eps=1e-3).flatten(1, 2), energy], dim=1)

    def match(self, source: Tensor, target: Tensor, visible: Tensor | None = None) -> Matches:
        """See Matcher.match."""
        source_maps, source_energy = _split(source)
        target_maps, target_energy = _split(target)
        hidden = None
        if visible is not None:  # a target all of whose cells are hidden counts as seen
            hidden = ~visible.flatten(1) & visible.flatten(1).any(1, keepdim=True)
        correlation, source_scale, target_scale = self._correlate(source_maps, target_maps, hidden)
        grids = source.shape[2:], target.shape[2:]
        there = Direction.of(correlation, source_scale, *grids)
        back = Direction.of(correlation.transpose(1, 2), target_scale, *grids[::-1])
        source_logits, target_logits = self.head(
            there.evidence(back, source_energy, target_energy),
            back.evidence(there, target_energy, source_energy),
            there.normalised().detach(), back.normalised().detach(),
        )  # fmt: skip
        return Matches(
            there.normalised(), back.normalised(), source_logits, target_logits,
            _pooled(source_maps), _pooled(target_maps), correlation,
        )  # fmt: skip

    def _correlate(
        self, source: Tensor, target: Tensor, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare every two cells at every relative scale.

        Args:
            hidden: bool (B, N'), the target cells that correspond to nothing; None for none.

        Returns:
            logits (B, N, N') of the correlation; for each source cell the scale (B, N) of its best
            match, target over source; for each target cell the same, source over target.
        """
        temperature = self.log_temperature.clamp(max=5.0).exp()
        # The images may be exchanged: a scale and its inverse are equally likely.
        bias = (self.scale_bias + self.scale_bias.flip(0)) / 2
        levels = []
        for number, shift in enumerate(SHIFTS):
            first, count = _window_pairs(shift)
            a = source[:, first : first + count].flatten(3).flatten(1, 2)
            b = target[:, first + shift : first + shift + count].flatten(3).flatten(1, 2)
            a = a * (temperature / count)
            levels.append(torch.baddbmm(bias[number], a.transpose(1, 2), b))
        volume = torch.stack(levels, dim=1)
        if hidden is not None:
            volume = volume.masked_fill(hidden[:, None, None], -1e4)
        with torch.no_grad():
            scales = 2.0 ** (0.5 * torch.tensor(SHIFTS, device=source.device))
            target_over_source = scales[volume.amax(dim=3).argmax(dim=1)]
            source_over_target = 1 / scales[volume.amax(dim=2).argmax(dim=1)]
        return volume.logsumexp(dim=1), target_over_source, source_over_target


def _split(features: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors (B, S, 128, h, w) and energies (B, S, h, w) of what `encode` returned."""
    count = len(WINDOWS)
    return features[:, :-count].unflatten(1, (count, CHANNELS)), features[:, -count:]


def _window_pairs(shift: int) -> tuple[int, int]:
    """First source window, and number of windows, to compare with those `shift` places further on
    in the target: the middle ones of those that fit.
    """
    fitting = len(WINDOWS) - abs(shift)
    return max(0, -shift) + (fitting - _PAIRS) // 2, _PAIRS


def _pooled(maps: Tensor) -> Tensor:
    """One descriptor of length 1 a cell, (B, 128, h, w): the mean over the windows."""
    return F.normalize(maps.mean(dim=1), dim=1, eps=1e-3)


@dataclass(frozen=True)
class Direction:
    """Matches of one image's cells (N = h w) in the other's grid of h' x w' cells.

    Attributes:
        other: rows and columns of the other grid.
        positions: (B, 2, h, w) after consensus, in cells; gradients reach the correlation.
        own: (B, C, h, w) evidence of the cell's best match alone.
        agreed: (B, C, h, w) evidence of what its neighbours agree on.
    """

    other: torch.Size
    positions: Tensor
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
            voted, _ = consensus.local_affine(matched, scales, weight)
            cell = _cell(voted, other)
        again = grid(_soft_position(logits, cell, other, radius=2))
        with torch.no_grad():
            near = grid(_around(logits, cell, other) - rows).exp()
            second, weight = consensus.support(again, scales, near)
        positions, total = consensus.local_affine(again, scales, weight)
        with torch.no_grad():
            cell = _cell(positions, other)
            there = _around(logits, cell, other)
            back = _around(logits - columns[:, None], cell, other)
            moved = (again - positions).norm(dim=1, keepdim=True)
            own = [log_there / 5, log_back / 5, peak / 20 - 1]
            near_map = [(there - rows).clamp(min=-15) / 5, back.clamp(min=-15) / 5, there / 20 - 1]
            agreed = [first.log1p(), second.log1p(), total.log1p(), moved.clamp(max=5) / 2]
        return cls(
            other, positions, grid(torch.stack(own, dim=2)),
            torch.cat([grid(torch.stack(near_map, dim=2)), *agreed], dim=1),
        )  # fmt: skip

    def normalised(self) -> Tensor:
        """Positions (B, h, w, 2) in normalised coordinates of the other image, inside it."""
        size = torch.tensor([self.other[1], self.other[0]], device=self.positions.device)
        return (self.positions.permute(0, 2, 3, 1) / size).clamp(0, 1)

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


def _cell(positions: Tensor, shape: torch.Size) -> Tensor:
    """Index (B, N) of the cell that each position (B, 2, h, w) lies in; the nearest one outside."""
    column = positions[:, 0].floor().long().clamp(0, shape[1] - 1)
    row = positions[:, 1].floor().long().clamp(0, shape[0] - 1)
    return (row * shape[1] + column).flatten(1)


def _window(values: Tensor, cell: Tensor, shape: torch.Size, radius: int) -> tuple[Tensor, Tensor]:
    """Values (B, N, K) in a square around a cell, very low outside the grid; its cells' centres."""
    step = torch.arange(-radius, radius + 1, device=cell.device)
    rows = (cell // shape[1])[..., None] + step.repeat_interleave(len(step))
    columns = (cell % shape[1])[..., None] + step.repeat(len(step))
    framed = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    index = rows.clamp(0, shape[0] - 1) * shape[1] + columns.clamp(0, shape[1] - 1)
    taken = values.gather(2, index).masked_fill(~framed, -1e4)
    return taken, torch.stack([columns, rows], dim=-1) + 0.5


def _soft_position(logits: Tensor, cell: Tensor, shape: torch.Size, radius: int) -> Tensor:
    """Soft-argmax (B, N, 2) of the logits in a square around a cell."""
    taken, centres = _window(logits, cell, shape, radius)
    return (taken.softmax(dim=-1)[..., None] * centres).sum(dim=2)


def _around(values: Tensor, cell: Tensor, shape: torch.Size) -> Tensor:
    """log-sum-exp (B, N) of values in the 3 x 3 square around a cell."""
    return _window(values, cell, shape, 1)[0].logsumexp(dim=-1)


class MaskHead(nn.Module):
    """Convolutions over the evidence of one image, which look once at the other image's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Sequential(
            nn.Conv2d(EVIDENCE, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
        )  # fmt: skip
        self.wide = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )  # fmt: skip
        # To start from, about the share of cells that are in a mask.
        nn.init.constant_(self.wide[-1].get_parameter("bias"), -1.5)

    def forward(
        self, source: Tensor, target: Tensor, to_target: Tensor, to_source: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (B, h, w) and (B, h', w') from evidence (B, EVIDENCE, h, w) and positions."""
        a, b = self.near(source), self.near(target)
        return (
            self.wide(torch.cat([a, sample(b, to_target)], dim=1))[:, 0],
            self.wide(torch.cat([b, sample(a, to_source)], dim=1))[:, 0],
        )
