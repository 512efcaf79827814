"""What MaCoSNet learns: predictors of warps, and the decoder of masks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.macosnet.scores import GRID

_KERNELS = (7, 5)  # of the predictors' convolutions, which do not reach beyond the grid
_LEFT = GRID - sum(side - 1 for side in _KERNELS)  # cells of a side that are left of it
_GAIN = 0.1  # of the last layer: of its many inputs each step of training moves the sum far
_FAINT = 0.1  # the last layer's share: masks begin near one half everywhere


class WarpPredictor(nn.Module):
    """Parameters of a warp from the scores of all pairs of cells.

    Args:
        identity: the parameters (P,) that leave all in place, from which it starts.
        widths: channels of the two convolutions.
    """

    def __init__(self, identity: Tensor, widths: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = GRID * GRID
        for width, side in zip(widths, _KERNELS, strict=True):
            layers += [nn.Conv2d(channels, width, side), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(channels * _LEFT * _LEFT, len(identity))
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(identity)

    def forward(self, scores: Tensor) -> Tensor:
        """(B, P) of scores (B, 225, 15, 15)."""
        # A hundredth of a warp is a pixel: no half precision.
        with torch.autocast(scores.device.type, enabled=False):
            found = self.layers(scores.float()).flatten(1)
            return F.linear(found, _GAIN * self.linear.weight, self.linear.bias)


class MaskDecoder(nn.Module):
    """Mask logits at the image's size from a map of stride 16 and finer ones, which are added.

    Four transposed convolutions, each to twice the size. Where a finer map has other channels than
    the layer that it is added to, a 1x1 convolution brings it there.

    Args:
        channels: of the map of stride 16, and of those of strides 8, 4 and 2.
        widths: channels of the layers of strides 8, 4 and 2.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        coarse, *finer = channels
        inputs = [coarse, *widths]
        layers = [
            nn.ConvTranspose2d(a, b, 3, 2, padding=1, output_padding=1, bias=False)
            for a, b in zip(inputs, [*widths, 1], strict=True)
        ]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.skips = nn.ModuleList(
            nn.Identity() if own == width
            else nn.Sequential(nn.Conv2d(own, width, 1, bias=False), nn.BatchNorm2d(width))
            for own, width in zip(finer, widths, strict=True)
        )  # fmt: skip
        for layer in layers:
            _start(layer.weight)
        with torch.no_grad():
            layers[-1].weight *= _FAINT
        self.layers = nn.ModuleList(layers)

    def forward(self, coarse: Tensor, finer: Sequence[Tensor]) -> list[Tensor]:
        """The maps of strides 8, 4 and 2, and the mask's logits, (B, 1, H, W), last.

        Args:
            coarse: (B, channels, H / 16, W / 16).
            finer: of strides 8, 4 and 2.
        """
        made, found = [], coarse
        for layer, norm, skip, level in zip(
            self.layers, self.norms, self.skips, finer, strict=False
        ):
            found = torch.relu(norm(layer(found))) + skip(level)
            made.append(found)
        return [*made, self.layers[-1](found)]


def _start(weight: Tensor) -> None:
    """Kernels of the shape of bilinear interpolation, as published, each times a number of its own:
    alike in all channels, as they are there, they would long remain so.
    """
    line = torch.tensor([0.5, 1.0, 0.5])
    numbers = torch.randn(*weight.shape[:2], 1, 1) / weight.shape[0] ** 0.5
    with torch.no_grad():
        weight.copy_(numbers * line[:, None] * line)
