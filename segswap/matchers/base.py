"""What every matcher answers: Matches, and the interface that trainer and applications use."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Matches:
    """Masks and correspondences of a batch of image pairs, on the matcher's grid of cells.

    A grid of h x w cells has its cell centres at ((column + 0.5) / w, (row + 0.5) / h) in
    normalised coordinates. Source and target may have grids of different size.

    Attributes:
        to_target: (B, h, w, 2) float; for each source cell the normalised (x, y) in the target.
        to_source: (B, h', w', 2) float; for each target cell the normalised (x, y) in the source.
        source_logits: (B, h, w) float; sigmoid gives the probability that a source cell belongs to
            the shared region.
        target_logits: (B, h', w') float; the same for target cells.
        source_features: (B, C, h, w) float, of length 1 along C: what the score compares.
        target_features: (B, C, h', w') float, likewise.
        correlation: (B, h w, h' w') float logits of "these cells correspond", or None for matchers
            that have no such thing.
    """

    to_target: Tensor
    to_source: Tensor
    source_logits: Tensor
    target_logits: Tensor
    source_features: Tensor
    target_features: Tensor
    correlation: Tensor | None = None

    def reversed(self) -> "Matches":
        """The same with source and target exchanged."""
        return Matches(
            self.to_source, self.to_target, self.target_logits, self.source_logits,
            self.target_features, self.source_features,
            None if self.correlation is None else self.correlation.transpose(1, 2),
        )  # fmt: skip

    def float(self) -> "Matches":
        """The same in float32."""
        return replace(
            self,
            **{name: value.float() for name, value in self.__dict__.items() if value is not None},
        )


class Batch(NamedTuple):
    """Pairs and their ground truth on the matcher's grid.

    Attributes:
        source, target: uint8 (B, 3, S, S) RGB.
        source_mask, target_mask: float32 (B, h, w) in [0, 1], the share of each cell that both
            images show.
        to_target, to_source: float32 (B, h, w, 2), where each cell's centre lies in the other
            image, normalised.
        source_valid, target_valid: bool (B, h, w), where that is known.
    """

    source: Tensor
    target: Tensor
    source_mask: Tensor
    target_mask: Tensor
    to_target: Tensor
    to_source: Tensor
    source_valid: Tensor
    target_valid: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Matcher(nn.Module):
    """Base of the matchers: features of each image once, then any pairs of them.

    Attributes:
        name: what --matcher calls it.
        stride: pixels of the image a cell, in both directions.
        hide: probability that a training step hides the target's cells outside the shared region.
        positive_weight: of the shared region's cells in the mask losses.
        size, match_size, lr: image side in training, image side afterwards, and learning rate, when
            the user names none.
    """

    name: ClassVar[str]
    hide: ClassVar[float] = 0.0
    positive_weight: ClassVar[float] = 1.0
    size: ClassVar[int]
    match_size: ClassVar[int]
    lr: ClassVar[float]
    stride: int

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of RGB images (B, 3, H, W) in [0, 1]; H and W multiples of the
        stride, h = H / stride and w = W / stride.
        """
        raise NotImplementedError

    def compared(self, features: Tensor) -> Tensor:
        """Of what `encode` returned, what the score compares: (B, D, h, w), of length 1 along D.
        They are the `source_features` and `target_features` of the matches.
        """
        raise NotImplementedError

    def match(self, source: Tensor, target: Tensor, visible: Tensor | None = None) -> Matches:
        """Match features of sources (B, C, h, w) and targets (B, C, h', w').

        Args:
            source, target: what `encode` returned.
            visible: bool (B, h', w'); target cells that are False are hidden from the source. None
                hides nothing.
        """
        raise NotImplementedError

    def forward(self, source: Tensor, target: Tensor) -> Matches:
        """Match images (B, 3, H, W) in [0, 1]."""
        return self.match(self.encode(source), self.encode(target))


_REGISTRY: dict[str, Callable[..., Matcher]] = {}


def register(matcher: type[Matcher]) -> type[Matcher]:
    """Class decorator: makes a matcher known under its name."""
    _REGISTRY[matcher.name] = matcher
    return matcher


def build(name: str, **settings: Any) -> Matcher:
    """A new matcher by name.

    Raises:
        ValueError: no matcher has this name.
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown matcher {name!r}; expected one of {', '.join(_REGISTRY)}")
    return _REGISTRY[name](**settings)
