"""What is learned on top of the backbone and of the detailed match: positions and masks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.base import Side
from segswap.matchers.semantic.context import PairContext, Sharing
from segswap.matchers.semantic.fields import Field, SemanticDescriptors, field_of
from segswap.matchers.semantic.identity import Identity, evidence

WIDTH = 192  # channels of a token
_FINE, _FINEST = 48, 24  # channels of the finer features
_SHAPES = 64  # channels of what masks and identity are told from
_HIDDEN = -1e4


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
        grids = [image["fine"].shape[2:] for image in images]
        seen = None
        if visible is not None:
            coarse = target["tokens"].shape[2:]
            seen = F.adaptive_max_pool2d(visible[:, None].float(), coarse)[:, 0] > 0
        a, b = self.context(
            *((image["features"], image["tokens"]) for image in images), visible=seen
        )
        tokens = [self._finer(t, image) for t, image in zip((a, b), images, strict=True)]
        described = [
            self.descriptors(image["features"], t) for image, t in zip(images, tokens, strict=True)
        ]
        with torch.autocast(a.device.type, enabled=False):
            d, e = (each.float().flatten(2) for each in described)
            logits = d.transpose(1, 2) @ e
            if visible is not None:
                logits = logits.masked_fill(~visible.flatten(1)[:, None], _HIDDEN)
            asked = logits + neighbours
        back = logits.transpose(1, 2)
        fields = field_of(logits, grids[0], grids[1]), field_of(back, grids[1], grids[0])
        semantic = (
            field_of(asked, grids[0], grids[1]).positions,
            field_of(asked.transpose(1, 2), grids[1], grids[0]).positions,
        )
        shared = self.sharing(a, b)
        return (
            self._side(tokens[0], source, logits, detailed, fields, semantic[0], shared),
            self._side(tokens[1], target, back, detailed[::-1], fields[::-1], semantic[1], shared),
        )

    def _finer(self, tokens: Tensor, image: Mapping[str, Tensor]) -> Tensor:
        """Tokens (B, width, h, w) and the fine features on the fine grid, joined."""
        normed = self.norm(tokens.movedim(1, -1)).movedim(-1, 1)
        larger = F.interpolate(normed, image["fine"].shape[2:], mode="bilinear")
        return torch.cat([larger, image["fine"]], dim=1)

    def _side(
        self, tokens: Tensor, image: Mapping[str, Tensor], logits: Tensor,
        detailed: tuple[Detailed, Detailed], fields: tuple[Field, Field], semantic: Tensor,
        shared: Tensor,
    ) -> Side:  # fmt: skip
        """One side.

        Args:
            detailed, fields: of this image, and of the other one.
            semantic: positions (B, h, w, 2), those of the field after neighbours were asked, too.
            shared: (B,), what `Sharing` says of the pair.
        """
        own = detailed[0]
        told = evidence(logits, (own.positions, detailed[1].positions), fields, own.mask)
        shapes = self.shapes(tokens)
        added, choice = self.identity(shapes, told)
        same = own.mask + added  # the detailed match knows outlines already
        positions = torch.where((choice > 0)[..., None], own.positions, semantic)
        larger = F.interpolate(shapes, image["finest"].shape[2:], mode="bilinear")
        mask = self.mask(torch.cat([larger, image["finest"]], dim=1))[:, 0] + shared[:, None, None]
        extra = {
            "correlation": logits, "same": same, "choice": choice,
            "detailed": own.positions, "semantic": semantic,
        }  # fmt: skip
        return Side(positions, mask, image["features"], extra)
