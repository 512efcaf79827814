"""Weights of recurrent transformer networks in the layout of the released code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.io import loadmat
from torch import Tensor, nn

from segswap.backbones.backbones import Backbone
from segswap.backbones.weights import check_finite
from segswap.matchers.rtn.regression import Regression

_MEAN = (123.68, 116.779, 103.939)  # which published images, of 0 to 255, have taken off
_BLOCKS = ((1, 2), (2, 2), (3, 4), (4, 4), (5, 1))  # of VGG-19, and how many layers they use
_FEATURES = [f"conv{block}_{n}" for block, count in _BLOCKS for n in range(1, count + 1)]
_REGRESSION = [f"geo_conv{n}{part}_" for n in range(1, 10) for part in ("", "b")] + ["geo_conv10_"]


@dataclass(frozen=True)
class Published:
    """What a file of the released code holds.

    Attributes:
        path: of the file.
        parameters: of MatConvNet's `net.params`, by name: filters with rows, columns, inputs,
            outputs, and biases.
    """

    path: str
    parameters: Mapping[str, Tensor]

    @torch.no_grad()
    def fill(self, backbone: Backbone, regression: Regression) -> None:
        """Fill VGG-19, up to conv5_1, and the regression network.

        Raises:
            ValueError: it is of another configuration.
        """
        own = [module for module in backbone.net.modules() if isinstance(module, nn.Conv2d)]
        # VGG-19's layers after conv5_1 are not used, and are not in the file.
        layers = dict(zip(_FEATURES, own, strict=False))
        layers |= dict(zip(_REGRESSION, regression.layers(), strict=True))
        for name, layer in layers.items():
            assert layer.bias is not None
            kernel = self._value(f"{name}f", layer.weight.permute(2, 3, 1, 0))
            layer.weight.copy_(kernel.permute(3, 2, 0, 1))
            layer.bias.copy_(self._value(f"{name}b", layer.bias[None])[0])
        _on_own_scale(own[0], backbone)

    def _value(self, name: str, like: Tensor) -> Tensor:
        value = self.parameters.get(name)
        if value is None or value.numel() != like.numel():
            there = "is missing" if value is None else f"is {tuple(value.shape)}"
            raise ValueError(
                f"{self.path} does not hold the published weights: {name} {there}, expected "
                f"{tuple(like.shape)}; they are for --preset published"
            )
        # MATLAB and its readers drop dimensions of 1.
        return value.reshape(like.shape)


def read_published(path: str) -> Published:
    """Read a MATLAB file of the released code.

    Raises:
        ValueError: the file cannot be read, or is of another layout.
    """
    if not Path(path).is_file():
        raise ValueError(f"weights file {path} does not exist")
    try:
        content: Any = loadmat(path, simplify_cells=True)
    except Exception as error:  # a broken or hostile file makes the reader fail in any way
        raise ValueError(f"{path} is not a readable MATLAB file: {error}") from error
    try:
        found = {
            entry["name"]: torch.as_tensor(entry["value"], dtype=torch.float32)
            for entry in content["net"]["params"]
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no weights of recurrent transformer networks: expected net.params, as "
            "in the released files"
        ) from error
    check_finite(found, path)
    return Published(path, found)


def _on_own_scale(first: nn.Conv2d, backbone: Backbone) -> None:
    """Have the first layer take images as this backbone normalises them, not less the mean."""
    scale, mean = 255 * backbone.std.flatten(), 255 * backbone.mean.flatten()
    assert first.bias is not None
    first.bias += first.weight.sum((2, 3)) @ (mean - mean.new_tensor(_MEAN))
    first.weight *= scale[:, None, None]
