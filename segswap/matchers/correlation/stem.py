"""What the correlation matcher's descriptors learn from the pixels: a few convolutions a window."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.correlation.descriptors import CHANNELS, WINDOW_PIXELS
from segswap.matchers.sampling import cell_centres, sample


class Stem(nn.Module):
    """Convolutions over the image at the scale of each window, which see about one window.

    The same weights serve all windows, as what they show differs in scale alone. Zero at the start.

    Args:
        width: channels of the first layer; later ones have up to four times as many.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.out = nn.Conv2d(4 * width, CHANNELS, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.get_parameter("bias"))

    def forward(self, images: Tensor, windows: tuple[float, ...], stride: int) -> Tensor:
        """(B, S, 128, h, w), one map a window, of images (B, 3, H, W) in [0, 1].

        Args:
            images: H and W multiples of the stride.
            windows: sides of the square windows in pixels.
            stride: pixels a cell.
        """
        shift = images.mean((2, 3), keepdim=True)
        images = (images - shift) / (images.std((2, 3), keepdim=True) + 0.05)
        centres = cell_centres(images.shape[2] // stride, images.shape[3] // stride, images)
        centres = centres.expand(len(images), -1, -1, -1)
        maps = []
        for window in windows:
            size = [max(4, round(side * WINDOW_PIXELS / window)) for side in images.shape[2:]]
            resized = F.interpolate(images, size, mode="bilinear", antialias=True)
            maps.append(self.out(sample(self.convolutions(resized), centres)))
        return torch.stack(maps, dim=1)
