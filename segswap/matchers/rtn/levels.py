"""Descriptors of a level of the backbone, and the same of an image under a field of maps.

Not the descriptors are moved but what the level's last 3 x 3 convolution takes in, so that what it
sees is turned and scaled as well.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.rtn.fields import SIDE, sampled

_LEAST = 0.01  # added to squared lengths of descriptors, as published
_RATE = 0.1  # of what is learned of a convolution, by that of all else, as published of features


class Level(nn.Module):
    """A level's last convolution, which a field of local affine maps may move."""

    def take_in(self, maps: list[Tensor]) -> Tensor:
        """What the last convolution takes in, (B, C, h, w), of a backbone's maps; the first of
        them is on the level's grid.
        """
        raise NotImplementedError

    def convolve(self, maps: Tensor, stride: int, padding: int) -> Tensor:
        """The last convolution, with the activation after it, of what it takes in."""
        raise NotImplementedError

    def forward(self, taken: Tensor, field: Tensor | None = None) -> Tensor:
        """Descriptors of length 1, or a little less: of an image's own cells, or of those of the
        image whose cells a field (B, 6, h, w) maps into this one.
        """
        if field is None:
            return shortened(self.convolve(taken, 1, SIDE // 2))
        return shortened(self.convolve(sampled(taken, field), SIDE, 0))


class AddedLevel(Level):
    """For backbones whose levels end in other convolutions: one of 3 x 3 for each of the joined
    maps, which are the identity before they learn.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = list(channels)
        self.convolutions = nn.ModuleList(map(Added, channels))

    def take_in(self, maps: list[Tensor]) -> Tensor:
        """See Level.take_in: the maps, each of length 1, joined on the first one's grid."""
        grid = maps[0].shape[2:]
        joined = [
            F.normalize(F.interpolate(each, grid, mode="bilinear"), dim=1)
            for each in maps
        ]  # fmt: skip
        return torch.cat(joined, dim=1).contiguous() / len(maps) ** 0.5

    def convolve(self, maps: Tensor, stride: int, padding: int) -> Tensor:
        """See Level.convolve."""
        parts = maps.split(self.channels, dim=1)
        return torch.cat(
            [
                own(part, stride, padding)
                for own, part in zip(self.convolutions, parts, strict=True)
            ],
            dim=1,
        )


class Added(nn.Module):
    """A convolution of 3 x 3 that is the identity as long as its parameters are 0."""

    identity: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(channels, channels, SIDE, SIDE))
        self.bias = nn.Parameter(torch.zeros(channels))
        same = nn.init.dirac_(torch.empty_like(self.change))
        self.register_buffer("identity", same, persistent=False)

    def forward(self, maps: Tensor, stride: int, padding: int) -> Tensor:
        """(B, channels, ., .) of the same."""
        weight = self.identity + _RATE * self.change
        return F.conv2d(maps, weight, _RATE * self.bias, stride, padding)


class OwnLevel(Level):
    """The level of a network of plain 3 x 3 convolutions: the first one after a pooling.

    Args:
        convolution: of the backbone, which keeps it.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self._convolution = (convolution,)  # not as a module: its weights are the backbone's

    def take_in(self, maps: list[Tensor]) -> Tensor:
        """See Level.take_in: what the pooling leaves of the map before it."""
        return F.max_pool2d(maps[0], 2).contiguous()

    def convolve(self, maps: Tensor, stride: int, padding: int) -> Tensor:
        """See Level.convolve."""
        (own,) = self._convolution
        return torch.relu(F.conv2d(maps, own.weight, own.bias, stride, padding))


def shortened(values: Tensor) -> Tensor:
    """Values divided by their length along the channels, or by more where that is near 0."""
    return values / (values.square().sum(dim=1, keepdim=True) + _LEAST).sqrt()
