"""The networks that SEAM and SC-CAM stand on: three maps of an image, the last one of classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from generators.networks.classes.resnet38 import ResNet38
from segswap.backbones.weights import read_weights
from segswap.backbones.wheels import pip_weights

LITE2 = "tf_efficientnet_lite2"


class Lite2(nn.Module):
    """EfficientNet-Lite2 without its classifier, its last stages dilated: stride 8 and 16."""

    channels = 48, 120, 1280
    frozen = ("conv_stem", "blocks.0", "blocks.1")

    def __init__(self) -> None:
        super().__init__()
        net: Any = timm.create_model(LITE2, output_stride=16)
        self.conv_stem, self.bn1, self.blocks = net.conv_stem, net.bn1, net.blocks
        self.conv_head, self.bn2 = net.conv_head, net.bn2

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The ends of stages 2 and 4, and the last map, of normalised images."""
        found = self.bn1(self.conv_stem(images))
        taps = []
        for number, stage in enumerate(self.blocks):
            found = stage(found)
            if number in (2, 4):
                taps.append(found)
        return taps[0], taps[1], self.bn2(self.conv_head(found))


@dataclass(frozen=True)
class _Preset:
    """How a trunk is made, and the means and deviations of what it was trained on."""

    make: Callable[[], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]


TRUNKS = {
    "lite2": _Preset(Lite2, (0.5,) * 3, (0.5,) * 3),
    "resnet38": _Preset(ResNet38, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""By name: pip's classifier, and the published one."""


class Trunk(nn.Module):
    """A network's maps. All of its normalisations are frozen, and its first layers.

    Attributes:
        channels: of the three maps.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net
        self.channels: tuple[int, int, int] = net.channels  # type: ignore[assignment]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        for name in net.frozen:  # type: ignore[union-attr]
            net.get_submodule(name).requires_grad_(False)
        for layer in self._normalisations():
            layer.requires_grad_(False)
        self.train()

    def _normalisations(self) -> list[nn.Module]:
        return [m for m in self.net.modules() if isinstance(m, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> "Trunk":
        """As in `nn.Module`, but normalisations stay in evaluation mode."""
        super().train(mode)
        for layer in self._normalisations():
            layer.eval()
        return self

    def normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the network takes them."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B, channels, h, w), the finest first, of RGB images (B, 3, H, W) in [0, 1]."""
        first, second, last = self.net(self.normalised(images))
        return first, second, last


def build_trunk(name: str, weights: str | None = None) -> Trunk:
    """A trunk by its name in TRUNKS.

    Args:
        weights: "pip" for the classifier's of a wheel (lite2), or a file; None draws them.

    Raises:
        ValueError: the weights cannot be read, or are of another network.
    """
    preset = TRUNKS[name]
    trunk = Trunk(preset.make(), preset.mean, preset.std)
    if weights is not None:
        state = pip_weights(LITE2) if weights == "pip" else read_weights(weights)
        own = trunk.net.state_dict()
        # What only counts batches may be missing, and a classifier is too much.
        missing = [k for k, v in own.items() if v.is_floating_point() and k not in state]
        if missing:
            raise ValueError(f"weights file {weights} lacks {missing[0]}; expected all of {name}'s")
        try:
            trunk.net.load_state_dict({k: state[k] for k in own if k in state}, strict=False)
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise ValueError(f"weights file {weights} does not fit {name}: {said}") from error
    return trunk
