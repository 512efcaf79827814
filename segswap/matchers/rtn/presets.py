"""Configurations of recurrent transformer networks, and the levels of backbones."""

from dataclasses import dataclass
from typing import Literal

PresetName = Literal["shipped", "published"]


@dataclass(frozen=True)
class Preset:
    """A configuration.

    Attributes:
        backbone: a timm model.
        width, in_cells: of the regression network.
        refine: whether places are refined, which is not published.
    """

    backbone: str
    width: int
    in_cells: bool
    refine: bool


PRESETS: dict[str, Preset] = {
    "shipped": Preset("tf_efficientnet_lite2", 20, True, True),
    "published": Preset("vgg19", 64, False, False),
}


@dataclass(frozen=True)
class Levels:
    """What a network's levels are made of.

    Attributes:
        coarse, fine: the maps that are joined, the first one on the level's grid.
        stride: pixels a cell of the fine level, half of the coarse one's.
        convolutions: of the backbone's modules the last convolutions of the coarse and of the fine
            level, which follow a pooling of the map; None where they are added.
    """

    coarse: tuple[int | str, ...] = (32,)
    fine: tuple[int | str, ...] = (16,)
    stride: int = 16
    convolutions: tuple[str, str] | None = None


LEVELS: dict[str, Levels] = {
    "tf_efficientnet_lite2": Levels(("blocks.5.4",), ("blocks.4.3", "blocks.5.4")),
    "tf_efficientnet_lite0": Levels(("blocks.5.2",), ("blocks.4.2", "blocks.5.2")),
    # conv5_1 and conv4_1 of the maps before the pooling; what comes after the former is not used.
    "vgg19": Levels((8, 16), (4,), 8, ("features_28", "features_19")),
}
