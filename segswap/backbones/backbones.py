"""Backbones: timm networks cut at strides, with weights from timm's hub or from a local file."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn

from segswap.backbones.weights import read_weights


class Backbone(nn.Module):
    """A network's feature maps at some strides; `build_backbone` makes them.

    Attributes:
        channels: channels of each map.
        strides: of each map, pixels of the image a cell, in both directions.
        frozen: always in evaluation mode, no gradients.
    """

    def __init__(self, net: Any, strides: Sequence[int], frozen: bool) -> None:
        super().__init__()
        self.net: nn.Module = net
        made = net.feature_info.reduction()  # deeper maps later, whatever order was asked for
        self._order = [made.index(stride) for stride in strides]
        self.strides = tuple(strides)
        self.channels = tuple(net.feature_info.channels()[i] for i in self._order)
        self.frozen = frozen
        self._channels_last = getattr(net, "output_fmt", None) == Format.NHWC
        self.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        """As in `nn.Module`, but a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """A map a stride, (B, channels, H / stride, W / stride), of images (B, 3, H, W).

        Images are RGB, normalised with ImageNet's mean and standard deviation.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps: list[Tensor] = self.net(images)
        if self._channels_last:
            maps = [features.movedim(-1, 1) for features in maps]
        return [maps[i] for i in self._order]


def build_backbone(
    name: str, strides: Sequence[int], *, weights: str | None = None, frozen: bool = True
) -> Backbone:
    """A timm network up to the deepest of its feature maps of the given strides.

    Args:
        name: any timm model that offers `features_only`. Vision transformers take any image size,
            window transformers (Swin) only their own.
        strides: pixels of the image a cell. Of maps with the same stride it is the last one:
            resnet50 at stride 16 ends with layer3.
        weights: None draws the weights at random; "timm" downloads timm's pretrained ones;
            anything else is a local file that `read_weights` reads, with the names of timm, or of
            the network's authors where timm knows them.
        frozen: no gradients, evaluation mode whatever `train` says.

    Raises:
        ValueError: unknown model, a model without one of the strides, or unusable weights file.
        RuntimeError: timm's pretrained weights could not be had.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown timm model {name!r}{hint}")
    settings = _settings(name, strides)
    if weights is None:
        net = timm.create_model(name, pretrained=False, **settings)
    elif weights == "timm":
        net = _create_pretrained(name, settings)
    else:
        net = _create_from_file(name, settings, weights)
    return Backbone(net, strides, frozen)


def _settings(name: str, strides: Sequence[int]) -> dict[str, Any]:
    """What timm is asked for, to make the network with feature maps of these strides."""
    try:
        probe: Any = timm.create_model(name, pretrained=False, features_only=True)
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"timm cannot make a feature network of {name!r}: {error}") from error
    last = {info["reduction"]: index for index, info in enumerate(probe.feature_info.info)}
    for stride in strides:
        if stride not in last:
            known = ", ".join(map(str, sorted(last)))
            raise ValueError(f"{name} has no features of stride {stride}; it has {known}")
    settings: dict[str, Any] = {
        "features_only": True,
        "out_indices": tuple(sorted({last[stride] for stride in strides})),
    }
    if hasattr(getattr(probe, "model", None), "dynamic_img_size"):
        settings["dynamic_img_size"] = True
    return settings


def _create_pretrained(name: str, settings: Mapping[str, Any]) -> Any:
    """A timm feature network with timm's pretrained weights, downloaded if they are not cached."""
    try:
        return timm.create_model(name, pretrained=True, **settings)
    except Exception as error:  # each of timm's download clients has its own kinds of error
        raise RuntimeError(
            f"could not get timm's pretrained weights of {name!r} ({error}). Without network, give "
            "a local file instead: weights='path/to/file.safetensors' (or .pth)"
        ) from error


def _create_from_file(name: str, settings: Mapping[str, Any], path: str) -> Any:
    """A timm feature network with all its weights from a file; what else is in there is left.

    timm gives the tensors the names and shapes that its network has. It does not say which of the
    network's it found: numbers that are none, put in their place, show it.

    Raises:
        ValueError: the file cannot be read, or some weights are missing or of another shape.
    """
    state = read_weights(path)
    blank = {
        key: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for key, value in state.items()
    }
    try:
        traced = _create_filled(name, settings, blank).state_dict()
        # Integers only count batches: files from before PyTorch 0.4.1 lack them, and so they may.
        missing = [k for k, v in traced.items() if v.is_floating_point() and not v.isnan().any()]
        if not missing:
            return _create_filled(name, settings, state)
    except (RuntimeError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # Of the network alone timm made one before, so it is the tensors.
        said = _few([line.strip() for line in str(error).splitlines()], " ") or type(error).__name__
        raise ValueError(f"weights file {path} does not fit {name}: {said}") from error
    raise ValueError(
        f"weights file {path} lacks {_few(missing, ', ')}; expected all weights of {name}"
    )


def _create_filled(name: str, settings: Mapping[str, Any], state: dict[str, Tensor]) -> Any:
    """A timm feature network with those weights of its own that are among the tensors."""
    # To timm a file of another number of classes: what the feature network has no place for may
    # stay out. And nothing to be adapted to other images than RGB.
    overlay = {"state_dict": state, "num_classes": 1, "first_conv": None}
    net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **settings)
    for module in net.modules():  # each keeps a copy of what it was made from
        vars(module).get("pretrained_cfg", {}).pop("state_dict", None)
    return net


def _few(parts: Sequence[str], between: str) -> str:
    rest = f" and {len(parts) - 5} more" if len(parts) > 5 else ""
    return between.join(parts[:5]) + rest
