"""What is learned on top of the backbone and of the detailed match: positions and masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.base import Side
from segswap.matchers.semantic.context import PairContext, Sharing
from segswap.matchers.semantic.fields import Field, SemanticDescriptors, fields_of
from segswap.matchers.semantic.identity import Identity, evidence
from segswap.matchers.semantic.support import supported
from segswap.matchers.windows import hide

WIDTH = 192  # channels of a token
_FINE, _FINEST = 48, 24  # channels of the finer features
_SHAPES = 64  # channels of what masks and identity are told from

_Images = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]  # what `encode` gave, of both


@dataclass(frozen=True)
class Detailed:
    """A match of the very same thing: see `Side`, whose fields these are.

    Attributes:
        positions: (B, h, w, 2).
        mask: (B, h, w) logits.
    """

    positions: Tensor
    mask: Tensor


class SemanticHead(nn.Module):
    """Two images' sides from their features, and from a detailed match of the very same thing.

    Args:
        channels: of the features of three levels: the joined coarse ones, the fine ones (of
            the positions' grid), the finest ones (of the masks' grid).
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        coarse, fine, finest = channels
        self.context = PairContext(coarse, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.fine, self.finest = nn.Conv2d(fine, _FINE, 1), nn.Conv2d(finest, _FINEST, 1)
        self.descriptors = SemanticDescriptors(coarse, WIDTH + _FINE)
        self.shapes = nn.Sequential(
            nn.Conv2d(WIDTH + _FINE, 96, 3, padding=1), nn.GELU(),
            nn.Conv2d(96, _SHAPES, 3, padding=1), nn.GELU(),
        )  # fmt: skip
        self.identity = Identity(_SHAPES)
        self.sharing = Sharing(WIDTH)
        self.mask = nn.Sequential(
            nn.Conv2d(_SHAPES + _FINEST, 48, 3, padding=1), nn.GELU(),
            nn.Conv2d(48, 1, 3, padding=1),
        )  # fmt: skip

    def encode(self, features: Tensor, fine: Tensor, finest: Tensor) -> dict[str, Tensor]:
        """What `forward` needs of images.

        Args:
            features: (B, channels, h, w), of length 1 along the channels.
            fine, finest: maps of the backbone of finer grids.
        """
        return {
            "features": features, "tokens": self.context.tokens(features),
            "fine": self.fine(fine), "finest": self.finest(finest),
        }  # fmt: skip

    def forward(
        self, source: Mapping[str, Tensor], target: Mapping[str, Tensor],
        detailed: tuple[Detailed, Detailed], neighbours: Tensor, visible: Tensor | None = None,
    ) -> tuple[Side, Side]:  # fmt: skip
        """Both sides, without the features that the score compares.

        Args:
            source, target: what `encode` gave.
            detailed: of source and target.
            neighbours: (B, N, N'), logits of what neighbours say, of the cells of the fine grids.
            visible: bool (B, h, w) of the target's fine grid; hidden cells are matched by none.
        """
        images = source, target
        tokens, shared = self._tokens(images, visible)
        logits = self._correlation(images, tokens)
        shapes = self.shapes(tokens[0]), self.shapes(tokens[1])
        masks = self._mask(shapes[0], source) + shared, self._mask(shapes[1], target) + shared
        grids = source["fine"].shape[2:], target["fine"].shape[2:]
        seen = None if visible is None else visible.flatten(1)
        asked = supported(logits + neighbours, masks, grids, seen)
        semantic = [field.positions for field in fields_of(asked, grids)]
        logits = hide(logits, seen)
        fields = fields_of(logits, grids)
        own = self._side(source, shapes[0], masks[0], logits, detailed, fields, semantic[0])
        other = self._side(
            target, shapes[1], masks[1], logits.transpose(1, 2), detailed[::-1], fields[::-1],
            semantic[1],
        )  # fmt: skip
        return own, other

    def _tokens(self, images: _Images, visible: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Of each image its tokens with the fine features, (B, width, h, w) on the fine grid; and,
        (B, 1, 1), what is added to the logits of the masks for what the pair shares.
        """
        seen = None
        if visible is not None:
            coarse = images[1]["tokens"].shape[2:]
            seen = F.adaptive_max_pool2d(visible[:, None].float(), coarse)[:, 0] > 0
        pair = self.context(
            *((image["features"], image["tokens"]) for image in images), visible=seen
        )
        joined = []
        for tokens, image in zip(pair, images, strict=True):
            normed = self.norm(tokens.movedim(1, -1)).movedim(-1, 1)
            larger = F.interpolate(normed, image["fine"].shape[2:], mode="bilinear")
            joined.append(torch.cat([larger, image["fine"]], dim=1))
        return joined, self.sharing(*pair)[:, None, None]

    def _correlation(self, images: _Images, tokens: Sequence[Tensor]) -> Tensor:
        """Logits (B, N, N') of "these cells correspond", in float32."""
        described = [
            self.descriptors(image["features"], t) for image, t in zip(images, tokens, strict=True)
        ]
        with torch.autocast(tokens[0].device.type, enabled=False):
            own, other = (each.float().flatten(2) for each in described)
            return own.transpose(1, 2) @ other

    def _mask(self, shapes: Tensor, image: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, H, W) of the mask on the finest grid."""
        larger = F.interpolate(shapes, image["finest"].shape[2:], mode="bilinear")
        mask: Tensor = self.mask(torch.cat([larger, image["finest"]], dim=1))[:, 0]
        return mask

    def _side(
        self, image: Mapping[str, Tensor], shapes: Tensor, mask: Tensor, logits: Tensor,
        detailed: tuple[Detailed, Detailed], fields: tuple[Field, Field], semantic: Tensor,
    ) -> Side:  # fmt: skip
        """One side.

        Args:
            detailed, fields: of this image, and of the other one.
            semantic: positions (B, h, w, 2), for which neighbours and masks were asked, too.
        """
        own = detailed[0]
        told = evidence(logits, (own.positions, detailed[1].positions), fields, own.mask)
        added, choice = self.identity(shapes, told)
        extra = {
            "correlation": logits, "choice": choice, "detailed": own.positions,
            "semantic": semantic,
            "same": own.mask + added,  # the detailed match knows outlines already
        }  # fmt: skip
        positions = torch.where((choice > 0)[..., None], own.positions, semantic)
        return Side(positions, mask, image["features"], extra)
