"""Weights of recurrent transformer networks in the layout of the released code."""

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


@torch.no_grad()
def load_published(path: str, backbone: Backbone, regression: Regression) -> None:
    """Fill VGG-19, up to conv5_1, and the regression network from a file of the released code: a
    MATLAB file with MatConvNet's `net.params`, filters with rows, columns, inputs, outputs.

    Raises:
        ValueError: the file cannot be read, is of another layout or of another configuration.
    """
    found = _parameters(path)
    own = [module for module in backbone.net.modules() if isinstance(module, nn.Conv2d)]
    # VGG-19's layers after conv5_1 are not used, and are not in the file.
    layers = dict(zip(_FEATURES, own, strict=False))
    layers |= dict(zip(_REGRESSION, regression.layers(), strict=True))
    for name, layer in layers.items():
        for key, parameter in ((f"{name}f", layer.weight), (f"{name}b", layer.bias)):
            assert parameter is not None
            value = found.get(key)
            if value is None or value.numel() != parameter.numel():
                there = "is missing" if value is None else f"is {tuple(value.shape)}"
                raise ValueError(
                    f"{path} does not hold the published weights: {key} {there}, expected the "
                    f"numbers of {tuple(parameter.shape)}; they are for --preset published"
                )
            if parameter.ndim == 4:
                # MATLAB drops dimensions of 1 at the end, of which these have none.
                value = value.permute(3, 2, 0, 1)
            parameter.copy_(value.reshape(parameter.shape))
    _on_own_scale(own[0], backbone)


def _on_own_scale(first: nn.Conv2d, backbone: Backbone) -> None:
    """Have the first layer take images as this backbone normalises them, not less the mean."""
    scale, mean = 255 * backbone.std.flatten(), 255 * backbone.mean.flatten()
    assert first.bias is not None
    first.bias += first.weight.sum((2, 3)) @ (mean - mean.new_tensor(_MEAN))
    first.weight *= scale[:, None, None]


def _parameters(path: str) -> dict[str, Tensor]:
    """The tensors of `net.params`, by their names."""
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
    return found
