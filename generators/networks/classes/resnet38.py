"""The wide ResNet-38 of SEAM and SC-CAM (Wu et al., arXiv 1611.10080; layers and names as released
with AffinityNet), without its classifier: three maps of stride 8.
"""

import torch.nn.functional as F
from torch import Tensor, nn

_DROPOUT = 0.3, 0.5  # of the two bottlenecks


class ResNet38(nn.Module):
    """Pre-activation blocks, dilated where they would be of stride 16 and 32."""

    channels = 512, 1024, 4096
    frozen = ("conv1a", "b2", "b2_1", "b2_2")

    def __init__(self) -> None:
        super().__init__()
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.b2, self.b2_1, self.b2_2 = _stage(64, 128, 3)
        self.b3, self.b3_1, self.b3_2 = _stage(128, 256, 3)
        self.b4, self.b4_1, self.b4_2, self.b4_3, self.b4_4, self.b4_5 = _stage(256, 512, 6)
        self.b5 = Block(512, 512, 1024, first_dilation=1, dilation=2)
        self.b5_1, self.b5_2 = (Block(1024, 512, 1024, dilation=2) for _ in range(2))
        self.b6 = Bottleneck(1024, 2048, _DROPOUT[0])
        self.b7 = Bottleneck(2048, 4096, _DROPOUT[1])
        self.bn7 = nn.BatchNorm2d(4096)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs of b5 and b6, normalised, and the last map, of normalised images."""
        found, taps = images, []
        for name, layer in self.named_children():
            if name in ("b5", "b6") and isinstance(layer, Block | Bottleneck):
                taps.append(layer.activated(found))
            found = layer(found)
        return taps[0], taps[1], F.relu(found)


class Block(nn.Module):
    """Two 3 x 3 convolutions, each after a normalisation and a ReLU."""

    def __init__(
        self, channels: int, middle: int, out: int, stride: int = 1, dilation: int = 1,
        first_dilation: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        first = first_dilation or dilation
        self.bn_branch2a = nn.BatchNorm2d(channels)
        self.conv_branch2a = nn.Conv2d(
            channels, middle, 3, stride, padding=first, dilation=first, bias=False
        )
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = nn.Conv2d(
            middle, out, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.conv_branch1 = _shortcut(channels, out, stride)

    def activated(self, found: Tensor) -> Tensor:
        """What the first convolution takes."""
        return F.relu(self.bn_branch2a(found))

    def forward(self, found: Tensor) -> Tensor:
        """A map of another, with its own size divided by the stride."""
        begun = self.activated(found)
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(begun)))
        rest = found if self.conv_branch1 is None else self.conv_branch1(begun)
        return rest + self.conv_branch2b1(branch)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 of dilation 4 and 1 x 1 convolutions, with dropout of channels between."""

    def __init__(self, channels: int, out: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(channels)
        self.conv_branch2a = nn.Conv2d(channels, out // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(out // 4)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = nn.Conv2d(out // 4, out // 2, 3, padding=4, dilation=4, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(out // 2)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(out // 2, out, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(channels, out, 1, bias=False)

    def activated(self, found: Tensor) -> Tensor:
        """What the first convolution takes."""
        return F.relu(self.bn_branch2a(found))

    def forward(self, found: Tensor) -> Tensor:
        """A map of the same size."""
        begun = self.activated(found)
        branch = self.dropout_2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(begun))))
        branch = self.dropout_2b2(F.relu(self.bn_branch2b2(self.conv_branch2b1(branch))))
        return self.conv_branch1(begun) + self.conv_branch2b2(branch)


def _stage(channels: int, out: int, count: int) -> list[Block]:
    """Blocks, the first of which halves the map."""
    return [Block(channels, out, out, stride=2), *(Block(out, out, out) for _ in range(count - 1))]


def _shortcut(channels: int, out: int, stride: int) -> nn.Conv2d | None:
    if channels == out and stride == 1:
        return None
    return nn.Conv2d(channels, out, 1, stride, bias=False)
