"""SEAM's network (Wang et al., CVPR 2020, arXiv 2004.04581): activation maps, and the same maps
spread among pixels that look alike.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.networks.classes.network import ClassNetwork, classifier
from generators.networks.classes.trunk import Trunk

_TINY = 1e-5
_TAPS = 64, 128  # channels that the two maps before the last are brought to
_ALIKE = 192  # channels that are compared


class SEAM(ClassNetwork):
    """A trunk with a classifier and the pixel correlation module.

    Maps have C + 1 channels, the first that of the background, which no class's label teaches.
    """

    def __init__(
        self, trunk: Trunk, classes: int, pcm: bool = True, affinity: bool = False
    ) -> None:
        """
        Args:
            trunk: of the features.
            classes: how many.
            pcm: whether there is the pixel correlation module.
            affinity: see ClassNetwork.
        """
        super().__init__(trunk, affinity)
        self.dropout = nn.Dropout2d(0.5)
        self.classifier = classifier(trunk.channels[2], classes + 1)
        self.pcm = PixelCorrelation(trunk.channels[:2]) if pcm else None

    def cells(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The activation maps (B, C + 1, h, w) and, with PCM, the refined ones at the trunk's
        finest map's cells.
        """
        first, second, last = self.trunk(images)
        maps = self.classifier(self.dropout(last)).float()
        if self.pcm is None:
            return maps, None
        given = pcm_input(maps.detach())
        pixels = self.trunk.normalised(images)
        return maps, self.pcm(pixels, first.detach(), second.detach(), given)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both maps at the images' size."""
        maps, refined = self.cells(images)
        size = images.shape[-2:]
        return _enlarged(maps, size), None if refined is None else _enlarged(refined, size)

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ClassNetwork: with PCM the refined maps, at its cells."""
        maps, refined = self.cells(images)
        chosen = maps if refined is None else refined
        return maps[:, 1:].mean(dim=(2, 3)), F.relu(chosen[:, 1:])


class PixelCorrelation(nn.Module):
    """Spreads maps among the places of an image whose features are alike; without a residual."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.taps = nn.ModuleList(
            nn.Conv2d(count, width, 1, bias=False)
            for count, width in zip(channels, _TAPS, strict=True)
        )
        self.last = nn.Conv2d(sum(_TAPS) + 3, _ALIKE, 1, bias=False)

    def forward(self, pixels: Tensor, first: Tensor, second: Tensor, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) spread, at the finest tap's cells.

        Args:
            pixels: normalised images.
            first, second: the trunk's maps before the last, cut off from its gradient.
            maps: (B, C, ., .) of any size, likewise.
        """
        size = first.shape[-2:]
        with torch.autocast(pixels.device.type, enabled=False):
            taps = [F.relu(layer(tap.float()))
                    for layer, tap in zip(self.taps, (first, second), strict=True)]  # fmt: skip
            joined = [_enlarged(each, size) for each in (pixels.float(), *taps)]
            return spread(_enlarged(maps.float(), size), self.last(torch.cat(joined, dim=1)))


def alike(features: Tensor) -> Tensor:
    """ReLU of the cosines of the features (B, D, n) of n places, normalised so that each column,
    what comes to a place, sums to 1: (B, n, n).
    """
    unit = features / (features.norm(dim=1, keepdim=True) + _TINY)
    found = F.relu(unit.transpose(1, 2) @ unit)
    return found / (found.sum(dim=1, keepdim=True) + _TINY)


def spread(maps: Tensor, features: Tensor) -> Tensor:
    """y_j = sum_i a_ij yhat_i of maps (B, C, h, w), of features (B, D, h, w)."""
    return (maps.flatten(2) @ alike(features.flatten(2))).view(maps.shape)


def pcm_input(maps: Tensor) -> Tensor:
    """Activation maps (B, C + 1, h, w) brought to 0 to 1 by their largest values; the background is
    what no class is, and only the largest class of a place is kept.
    """
    top = maps.amax(dim=(2, 3), keepdim=True).clamp(min=0)  # of one that speaks nowhere is nothing
    classes = (F.relu(maps - _TINY) / (top + _TINY))[:, 1:]
    largest = classes.amax(dim=1, keepdim=True)
    return torch.cat([1 - largest, classes * (classes >= largest)], dim=1)


def _enlarged(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)
