"""Backbones: timm networks cut at a stride, with weights from timm's hub or from a local file."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.layers import Format
from torch import Tensor, nn


class Backbone(nn.Module):
    """A network's feature map at one stride; `build_backbone` makes them.

    Attributes:
        channels: channels of the features.
        stride: pixels of the image a cell, in both directions.
        frozen: always in evaluation mode, no gradients.
    """

    def __init__(self, net: nn.Module, channels: int, stride: int, frozen: bool) -> None:
        super().__init__()
        self.net = net
        self.channels = channels
        self.stride = stride
        self.frozen = frozen
        self._channels_last = getattr(net, "output_fmt", None) == Format.NHWC
        self.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        """As in `nn.Module`, but a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, channels, H / stride, W / stride) of images (B, 3, H, W).

        Images are RGB, normalised with ImageNet's mean and standard deviation.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Tensor = self.net(images)[0]
        return features.movedim(-1, 1) if self._channels_last else features


def build_backbone(
    name: str = "resnet50", stride: int = 16, weights: str | None = None, frozen: bool = True
) -> Backbone:
    """A timm network up to its last feature map of the given stride.

    Args:
        name: any timm model that offers `features_only`; resnet50 at stride 16 ends with layer3.
            Vision transformers take any image size, window transformers (Swin) only their own.
        stride: pixels of the image a cell.
        weights: None draws the weights at random; "timm" downloads timm's pretrained ones;
            anything else is a local file, as `read_weights` reads them.
        frozen: no gradients, evaluation mode whatever `train` says.

    Raises:
        ValueError: unknown model, a model without this stride, or unusable weights file.
        RuntimeError: timm's pretrained weights could not be had.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown timm model {name!r}{hint}")
    probe = _create(name)
    settings: dict[str, Any] = {"out_indices": (_index_of_stride(name, probe, stride),)}
    if hasattr(getattr(probe, "model", None), "dynamic_img_size"):
        settings["dynamic_img_size"] = True
    net = _create_pretrained(name, settings) if weights == "timm" else _create(name, **settings)
    if weights is not None and weights != "timm":
        _load(net, read_weights(weights), weights)
    return Backbone(net, net.feature_info.channels()[0], stride, frozen)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a weights file, without running any code that the file may hold.

    Understood are safetensors files (by their suffix) and PyTorch files: a plain state dict, or one
    under "state_dict" or "model". The prefix `module.` of data-parallel training is taken off. Of a
    file in the layout of MoCo v2 (He et al., arXiv 1911.05722; keys `module.encoder_q.*`) only the
    query encoder is returned.

    Raises:
        ValueError: the file is missing, cannot be read, or holds no named tensors.
    """
    if not Path(path).is_file():
        raise ValueError(f"weights file {path} does not exist")
    try:
        if Path(path).suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file makes the readers fail in any way
        raise ValueError(f"{path} is not a readable weights file: {error}") from error
    state = _named_tensors(content)
    if not state:
        raise ValueError(f"{path} is not a checkpoint: it holds no named tensors")
    return state


def _create(name: str, **settings: Any) -> Any:
    """A timm feature network with random weights."""
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **settings)
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"timm cannot make a feature network of {name!r}: {error}") from error


def _create_pretrained(name: str, settings: Mapping[str, Any]) -> Any:
    """A timm feature network with timm's pretrained weights, downloaded if they are not cached."""
    try:
        return timm.create_model(name, pretrained=True, features_only=True, **settings)
    except Exception as error:  # each of timm's download clients has its own kinds of error
        raise RuntimeError(
            f"could not get timm's pretrained weights of {name!r} ({error}). Without network, give "
            "a local file instead: weights='path/to/file.safetensors' (or .pth)"
        ) from error


def _index_of_stride(name: str, net: Any, stride: int) -> int:
    """Index of a network's last feature map with this stride."""
    reductions = [info["reduction"] for info in net.feature_info.info]
    if stride not in reductions:
        known = ", ".join(map(str, sorted(set(reductions))))
        raise ValueError(f"{name} has no features of stride {stride}; it has {known}")
    return len(reductions) - 1 - reductions[::-1].index(stride)


def _named_tensors(content: Any) -> dict[str, Tensor]:
    """The backbone's tensors in a checkpoint's content, wrappers and prefixes taken off."""
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        return {}
    state = {
        key.removeprefix("module."): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    query = "encoder_q."
    if any(key.startswith(query) for key in state):
        return {k.removeprefix(query): v for k, v in state.items() if k.startswith(query)}
    return state


def _names_in_file(key: str) -> Iterator[str]:
    """Names that a parameter of a timm feature network may have in a file of the whole network.

    timm's feature wrappers put `model.` or `body.` in front, or make `stages.0` to `stages_0`.
    """
    yield key
    yield key.removeprefix("model.").removeprefix("body.")
    head, dot, tail = key.partition(".")
    for i, character in enumerate(head):
        if character == "_":
            yield f"{head[:i]}.{head[i + 1 :]}{dot}{tail}"


def _load(net: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Copy every parameter and buffer of the network from a file's tensors; further ones are left.

    Raises:
        ValueError: some are missing or of another shape.
    """
    found: dict[str, Tensor] = {}
    missing, misshapen = [], []
    for key, value in net.state_dict().items():
        name = next((name for name in _names_in_file(key) if name in state), None)
        if name is None:
            # Files from before PyTorch 0.4.1 lack this counter, which evaluation does not use.
            if not key.endswith("num_batches_tracked"):
                missing.append(key)
        elif state[name].shape != value.shape:
            misshapen.append(f"{key} {tuple(state[name].shape)} for {tuple(value.shape)}")
        else:
            found[key] = state[name]
    for what, names in (("lacks", missing), ("has other shapes than the backbone:", misshapen)):
        if names:
            rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(f"weights file {path} {what} {', '.join(names[:5])}{rest}")
    net.load_state_dict(found, strict=False)
