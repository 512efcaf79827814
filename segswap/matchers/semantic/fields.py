"""Where the cells of two images match by what kind of thing they show, and how sure that is."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.sampling import cell_centres, cells_around, sample

_REACH = 3.0  # cells around the best one whose mean is the position: sigma of a Gaussian
_LOWEST = -15.0  # log-probabilities below it tell nothing more


class SemanticDescriptors(nn.Module):
    """Descriptors whose inner products are the logits of "these cells correspond".

    They have two parts, each with its own temperature: of what a cell shows on its own, and of its
    tokens after both images were seen, with finer features.

    Args:
        channels: of the backbone's features.
        tokens: of a token and the finer features together.
        width: channels of each part.
    """

    def __init__(self, channels: int, tokens: int, width: int = 96) -> None:
        super().__init__()
        self.alone = nn.Conv2d(channels, width, 1)
        self.paired = nn.Sequential(
            nn.Conv2d(tokens, 128, 1), nn.GELU(), nn.Conv2d(128, width, 1)
        )  # fmt: skip
        self.log_temperatures = nn.Parameter(torch.tensor([10.0, 10.0]).log())

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Descriptors (B, 2 width, h, w).

        Args:
            features: (B, channels, ., .) of length 1, on a coarser grid.
            tokens: (B, tokens, h, w).
        """
        alone, paired = (self.log_temperatures.clamp(max=4.6) / 2).exp()
        own = F.normalize(self.alone(4 * features), dim=1)
        own = F.interpolate(own, tokens.shape[2:], mode="bilinear")
        return torch.cat([alone * own, paired * F.normalize(self.paired(tokens), dim=1)], dim=1)


@dataclass(frozen=True)
class Field:
    """Each cell's place in the other image, by one way of matching.

    Attributes:
        positions: (B, h, w, 2) normalised.
        log_probability: (B, h, w), of the best cell; at least -15.
    """

    positions: Tensor
    log_probability: Tensor


def field_of(logits: Tensor, shape: torch.Size, other: torch.Size) -> Field:
    """Positions by kernel soft argmax (Lee et al., "SFNet", CVPR 2019, section 3.2): the mean of
    the other image's cells under softmax of the logits, near the best one.

    Args:
        logits: (B, N, N') of the cells of grids of so many rows and columns.
    """
    centres = cell_centres(other[0], other[1], logits).flatten(0, 1)
    cells = centres * torch.tensor([other[1], other[0]], device=logits.device)
    best, number = logits.max(dim=-1)
    apart = torch.cdist(cells, cells).square()
    near = (logits - apart[number] / (2 * _REACH**2)).softmax(dim=-1)
    sure = (best - logits.logsumexp(dim=-1)).clamp(min=_LOWEST)
    return Field(
        (near @ centres).unflatten(1, shape), sure.detach().unflatten(1, shape)
    )  # fmt: skip


def fields_of(logits: Tensor, grids: tuple[torch.Size, torch.Size]) -> tuple[Field, Field]:
    """`field_of` each image, of logits (B, N, N') of the cells of their grids."""
    own, other = grids
    return field_of(logits, own, other), field_of(logits.transpose(1, 2), other, own)


def log_probability_at(logits: Tensor, positions: Tensor, other: torch.Size) -> Tensor:
    """How likely positions (B, h, w, 2) are by logits (B, h w, N'): (B, h, w), at least -15."""
    cells, weights = cells_around(positions.flatten(1, 2), *other)
    there = (weights * logits.gather(-1, cells)).sum(-1) - logits.logsumexp(dim=-1)
    return there.clamp(min=_LOWEST).view(positions.shape[:3])


def cycle_errors(there: Tensor, back: Tensor) -> Tensor:
    """How far from its centre the way there and back brings each cell: (B, 1, h, w), normalised.

    Args:
        there: (B, h, w, 2) normalised.
        back: (B, h', w', 2), of the other image.
    """
    home = cell_centres(there.shape[1], there.shape[2], there)
    returned = sample(back.permute(0, 3, 1, 2), there).permute(0, 2, 3, 1)
    return (returned - home).norm(dim=-1)[:, None]
