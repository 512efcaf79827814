"""The network that reads a field's correction from a window of correlation."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.rtn.fields import PARAMETERS, steps
from segswap.matchers.windows import CANDIDATES

_FACTORS = (1, 2, 4, 8, 8)  # of the width, of the levels' channels
_WIDE = 9  # side of the first and the last kernel


class Regression(nn.Module):
    """A U-Net of five levels, which says nothing before it has learned: its head is 0.

    Args:
        width: channels of the finest level; published are 64, with 20,030,662 parameters in all.
        in_cells: whether its head says translations in cells, which are the same on all levels and
            at all sizes of images; published is corner units, which it has to tell apart.
    """

    def __init__(self, width: int, in_cells: bool = True) -> None:
        super().__init__()
        self.in_cells = in_cells
        channels = [width * factor for factor in _FACTORS]
        before = [CANDIDATES, *channels]
        self.down = nn.ModuleList(
            _two(before[level], count, _WIDE if level == 0 else 3)
            for level, count in enumerate(channels)
        )
        self.up = nn.ModuleList(
            _two(channels[level + 1] + channels[level], channels[level], 3)
            for level in reversed(range(len(channels) - 1))
        )
        self.head = nn.Conv2d(width, PARAMETERS, _WIDE, padding=_WIDE // 2)
        for layer in self.layers():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.weight)

    def layers(self) -> Iterator[nn.Conv2d]:
        """The convolutions, in their order; the head is the last one."""
        return (module for module in self.modules() if isinstance(module, nn.Conv2d))

    def forward(self, correlation: Tensor) -> Tensor:
        """The correction (B, 6, h, w) of a correlation (B, 81, h, w) of any size.

        Sizes that are no multiples of 16 are rounded up on the way down. Maps are enlarged
        bilinearly, their border repeated; the published layers take it for 0 there.
        """
        maps, kept = correlation, list[Tensor]()
        for level, convolutions in enumerate(self.down):
            maps = convolutions(F.max_pool2d(maps, 2, ceil_mode=True) if level else maps)
            kept.append(maps)
        for convolutions, finer in zip(self.up, reversed(kept[:-1]), strict=True):
            larger = F.interpolate(maps, finer.shape[2:], mode="bilinear")
            maps = convolutions(torch.cat([larger, finer], dim=1))
        correction: Tensor = self.head(maps)
        if self.in_cells:
            down, across = steps(maps.shape[2:], maps).tolist()
            scale = maps.new_tensor([1, 1, down, 1, 1, across])
            correction = correction * scale[:, None, None]
        return correction


def _two(channels: int, count: int, side: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, count, side, padding=side // 2), nn.ReLU(),
        nn.Conv2d(count, count, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
