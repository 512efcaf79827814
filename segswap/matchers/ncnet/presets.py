"""Configurations of neighbourhood consensus networks, and weights in the published layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from segswap.backbones.backbones import Backbone
from segswap.backbones.weights import read_weights
from segswap.matchers.ncnet.consensus import Consensus

PresetName = Literal["small", "pf-pascal", "indoor"]
FINE = 8  # stride of the level that relocalisation needs


@dataclass(frozen=True)
class Preset:
    """A configuration.

    Attributes:
        backbone: a timm model.
        kernels, channels: of the layers of 4D convolution.
        refine: whether positions are refined, which is not published.
    """

    backbone: str
    kernels: tuple[int, ...]
    channels: tuple[int, ...]
    refine: bool


# The published ones, for categories and for places in buildings, are those of Rocco et al. 2018.
PRESETS: dict[str, Preset] = {
    "small": Preset("tf_efficientnet_lite2", (3, 3), (16, 1), refine=True),
    "pf-pascal": Preset("resnet101", (5, 5, 5), (16, 16, 1), refine=False),
    "indoor": Preset("resnet101", (3, 3), (16, 1), refine=False),
}

# Of a network the levels that are joined on a grid of stride 16; of others, the last one there.
LEVELS: dict[str, tuple[int | str, ...]] = {
    "tf_efficientnet_lite2": ("blocks.4.3", "blocks.5.1", "blocks.5.4"),
    "tf_efficientnet_lite0": ("blocks.3.2", "blocks.4.2", "blocks.5.2"),
}

# What the published layout calls the modules of a ResNet, which it keeps in a row.
_MODULES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}
_FEATURES, _CONSENSUS = "FeatureExtraction.model.", "NeighConsensus.conv."


def load_published(path: str, backbone: Backbone, consensus: Consensus) -> None:
    """Fill backbone and consensus from a checkpoint in the layout of the published code.

    There the kernel's first axis comes first, and of the layers, which ReLUs lie between, every
    second number is one.

    Raises:
        ValueError: the file cannot be read, is of another layout or of another configuration.
    """
    state = read_weights(path)
    for module, found in (
        (backbone.net, _features(state)), (consensus, _consensus(state))
    ):  # fmt: skip
        # Integers only count batches.
        own = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
        for key, value in own.items():
            if key not in found or found[key].shape != value.shape:
                there = f"is {tuple(found[key].shape)}" if key in found else "is missing"
                raise ValueError(
                    f"{path} does not hold the published weights of this preset: {key} {there}, "
                    f"expected {tuple(value.shape)}; choose the preset that the file is of"
                )
        module.load_state_dict({key: found[key] for key in own}, strict=False)


def _features(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        # Older files have another network's name there.
        place = key.replace("vgg", "model")
        number, _, rest = place.removeprefix(_FEATURES).partition(".")
        if place.startswith(_FEATURES) and number in _MODULES:
            found[f"{_MODULES[number]}.{rest}"] = value
    return found


def _consensus(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        number, _, kind = key.removeprefix(_CONSENSUS).partition(".")
        if key.startswith(_CONSENSUS) and number.isdigit():
            moved = value.permute(1, 2, 0, 3, 4, 5) if value.ndim == 6 else value
            found[f"layers.{int(number) // 2}.{kind}"] = moved
    return found
