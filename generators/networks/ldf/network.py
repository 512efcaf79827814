"""LDF's network: two branches, body and detail, that are decoded, interact, and are decoded again.

Section 3.3 of the paper (Wei et al., CVPR 2020, arXiv 2008.11048), layers as in its release.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.backbones.backbones import Backbone, build_backbone
from segswap.backbones.levels import Level

STRIDE = 32  # of the deepest map: images' sides are multiples of it


@dataclass(frozen=True)
class Preset:
    """A backbone that the head stands on.

    Attributes:
        name: of the timm model.
        levels: of its maps of strides 4, 8, 16 and 32; see `build_backbone`.
    """

    name: str
    levels: tuple[Level, ...]


PRESETS = {
    "lite2": Preset(
        "tf_efficientnet_lite2", ("blocks.1.2", "blocks.2.2", "blocks.4.3", "blocks.5.4")
    ),
    "resnet50": Preset("resnet50", (4, 8, 16, 32)),
}
"""By name: the backbone that ships, up to its block 19, and the published one."""


class Pass(NamedTuple):
    """Logits of one pass, (B, 1, H, W) each."""

    body: Tensor
    detail: Tensor
    saliency: Tensor


class LDF(nn.Module):
    """A backbone and LDF's head on its four maps.

    Attributes:
        backbone: gives maps of strides 4, 8, 16 and 32.
        head: makes the six logit maps of them.
    """

    def __init__(self, backbone: Backbone, width: int = 64) -> None:
        """
        Args:
            backbone: of a preset.
            width: channels of the head; published: 64.
        """
        super().__init__()
        self.backbone = backbone
        self.head = Head(backbone.channels, width)

    def forward(self, images: Tensor) -> tuple[Pass, Pass]:
        """Both passes at the images' size, of RGB images (B, 3, H, W) in [0, 1] whose sides are
        multiples of 32.
        """
        height, width = images.shape[-2:]
        return self.head(self.backbone(images), (height, width))


def build_ldf(
    preset: str, width: int = 64, *, weights: str | None = None, frozen: bool = True
) -> LDF:
    """LDF on a backbone.

    Args:
        preset: by name in PRESETS.
        width: channels of the head.
        weights, frozen: the backbone's; see `build_backbone`.

    Raises:
        ValueError, RuntimeError: the backbone's weights cannot be used, or had.
    """
    chosen = PRESETS[preset]
    return LDF(build_backbone(chosen.name, chosen.levels, weights=weights, frozen=frozen), width)


class Head(nn.Module):
    """All of LDF but the backbone: 1,642,115 parameters on ResNet-50's maps at a width of 64."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.body_laterals = _laterals(channels, width)
        self.detail_laterals = _laterals(channels, width)
        self.body_decoder = Decoder(width, len(channels))
        self.detail_decoder = Decoder(width, len(channels))
        self.interaction = Interaction(width, len(channels))
        self.body = nn.Conv2d(width, 1, 3, padding=1)
        self.detail = nn.Conv2d(width, 1, 3, padding=1)
        self.saliency = nn.Sequential(*_layer(2 * width, width), nn.Conv2d(width, 1, 3, padding=1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Pass, Pass]:
        """Both passes at a size (rows, columns), of a backbone's maps, the finest first."""
        body = [layer(each) for layer, each in zip(self.body_laterals, maps, strict=True)]
        detail = [layer(each) for layer, each in zip(self.detail_laterals, maps, strict=True)]
        decoded = self.body_decoder(body), self.detail_decoder(detail)
        first = self._answers(*decoded, size)
        to_body, to_detail = self.interaction(*decoded)
        decoded = (
            self.body_decoder([a + b for a, b in zip(body, to_body, strict=True)]),
            self.detail_decoder([a + b for a, b in zip(detail, to_detail, strict=True)]),
        )
        return first, self._answers(*decoded, size)

    def _answers(self, body: Tensor, detail: Tensor, size: tuple[int, int]) -> Pass:
        maps = (
            self.body(body), self.detail(detail), self.saliency(torch.cat([body, detail], dim=1))
        )  # fmt: skip
        return Pass(*(_resized(each, size) for each in maps))


class Decoder(nn.Module):
    """From the deepest map to the finest; the same one serves both passes."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(*_layer(width, width)) for _ in range(levels))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Decoded at the finest map's cells, of maps (B, width, h, w), the finest first."""
        decoded = self.layers[-1](maps[-1])
        for layer, each in zip(reversed(self.layers[:-1]), reversed(maps[:-1]), strict=True):
            decoded = layer(each + _resized(decoded, (each.shape[-2], each.shape[-1])))
        return decoded


class Interaction(nn.Module):
    """What both branches tell each other: of their decoded maps, a map a level for each."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(*_layer(2 * width if level == 0 else width, width))
            for level in range(levels)
        )
        self.to_body, self.to_detail = (
            nn.ModuleList(nn.Sequential(*_layer(width, width)) for _ in range(levels))
            for _ in range(2)
        )

    def forward(self, body: Tensor, detail: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Feedbacks to the body's and to the detail's laterals, the finest first."""
        maps = [self.encoder[0](torch.cat([body, detail], dim=1))]
        for layer in self.encoder[1:]:
            maps.append(layer(F.max_pool2d(maps[-1], 2)))
        return (
            [layer(each) for layer, each in zip(self.to_body, maps, strict=True)],
            [layer(each) for layer, each in zip(self.to_detail, maps, strict=True)],
        )


def _laterals(channels: Sequence[int], width: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(count, width, 1), *_layer(width, width)) for count in channels
    )


def _layer(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
