"""Configurations of MaCoSNet: as published, and narrower on the backbone that ships."""

from dataclasses import dataclass
from typing import Literal

PresetName = Literal["small", "published"]
FINER = (8, 4, 2)  # strides of the maps that the decoder adds

# Of a network the levels that are joined on a grid of stride 16; of others, the last one there.
LEVELS: dict[str, tuple[int | str, ...]] = {
    "tf_efficientnet_lite2": ("blocks.4.3", "blocks.5.1", "blocks.5.4"),
    "tf_efficientnet_lite0": ("blocks.3.2", "blocks.4.2", "blocks.5.2"),
}


@dataclass(frozen=True)
class Preset:
    """A configuration.

    Attributes:
        backbone: a timm model.
        predictor: channels of the two convolutions of the warps' predictors.
        decoder: channels of the decoder's layers of strides 8, 4 and 2.
        refine: whether places are refined, which is not published.
    """

    backbone: str
    predictor: tuple[int, int]
    decoder: tuple[int, int, int]
    refine: bool


PRESETS: dict[str, Preset] = {
    "small": Preset("tf_efficientnet_lite2", (80, 64), (64, 48, 32), True),
    "published": Preset("resnet101", (128, 64), (512, 256, 64), False),
}
