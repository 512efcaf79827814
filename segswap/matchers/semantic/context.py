"""Tokens of two images that know of each other: what is shared is seen in both at once."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.attention import PairLayer, position_code

HEADS = 4
LAYERS = "CICI"  # C attends to the other image alone, I within each image
_CODE = 0.1  # weight of the code of a token's place, as published for the transformer
_BEST = 10  # tokens of the other image whose mean similarity is evidence
_FEATURE_SCALE = 4.0  # features of length 1 have small values
_EVIDENCE_SCALE = 3.0


class PairContext(nn.Module):
    """From the features of two images to tokens of both, through cross- and self-attention.

    What a correlation of the features says of each cell is added to its token at the start: how
    similar the most similar cell of the other image is, the ten most similar ones, and all.

    Args:
        channels: of the features.
        width: channels of a token.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, 1)
        self.channel_dropout = nn.Dropout2d(0.1)
        self.weigh = nn.Sequential(nn.Linear(6, 64), nn.GELU(), nn.Linear(64, width))
        self.layers = nn.ModuleList(
            PairLayer(width, HEADS, 2 * width, 0.1, cross=kind == "C") for kind in LAYERS
        )

    def tokens(self, features: Tensor) -> Tensor:
        """Tokens (B, width, h, w) of an image alone, of its features (B, channels, h, w)."""
        projected: Tensor = self.project(self.channel_dropout(features) * _FEATURE_SCALE)
        return projected

    def forward(
        self, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, width, h, w) and (B, width, h', w') of both images.

        Args:
            source, target: of each image its features, of length 1 along the channels, and its
                `tokens`.
            visible: bool (B, h', w'), target tokens that may be attended to, at least one of each
                image; None for all.
        """
        seen = None if visible is None else visible.flatten(1)
        own, other = (features.flatten(2) for features, _ in (source, target))
        a, b = (tokens.flatten(2).transpose(1, 2) for _, tokens in (source, target))
        raw = own.transpose(1, 2) @ other
        learned = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(1, 2)
        a = a + self._evidence(raw, learned, seen)
        b = b + self._evidence(raw.transpose(1, 2), learned.transpose(1, 2), None)
        codes = [
            _CODE * position_code(t.shape[2], t.shape[3], t.shape[1], like=t)
            for _, t in (source, target)
        ]
        for layer in self.layers:
            if not layer.cross:
                a, b = a + codes[0], b + codes[1]
            a, b = layer(a, b, seen)
        shapes = source[1].shape[2:], target[1].shape[2:]
        return a.transpose(1, 2).unflatten(2, shapes[0]), b.transpose(1, 2).unflatten(2, shapes[1])

    def _evidence(self, raw: Tensor, learned: Tensor, seen: Tensor | None) -> Tensor:
        """What is added to tokens (B, N, width), of similarities (B, N, N') to the other image's
        tokens, of which bool (B, N') are seen.
        """
        found = []
        for similarity in (raw, learned):
            if seen is not None:
                similarity = similarity.masked_fill(~seen[:, None], -1)
            best = similarity.topk(min(_BEST, similarity.shape[-1]), dim=-1).values
            found += [best[..., 0], best.mean(dim=-1), similarity.mean(dim=-1)]
        weighed: Tensor = self.weigh(torch.stack(found, dim=-1) * _EVIDENCE_SCALE)
        return weighed


class Sharing(nn.Module):
    """Whether two images share any kind of thing, a logit that is added to those of all cells: a
    single cell that looks like one of the other image's tells little, the surest of all more.

    Args:
        width: channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Linear(64, 1)
        nn.init.zeros_(last.weight)  # at first it says nothing
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Linear(2 * width, 64), nn.GELU(), last
        )  # fmt: skip

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """(B,), the same for the pair the other way around.

        Args:
            source, target: tokens (B, width, h, w) of both images, after they were seen together.
        """
        largest = [tokens.flatten(2).amax(dim=2) for tokens in (source, target)]
        one, other = largest
        pair = torch.cat([torch.maximum(one, other), torch.minimum(one, other)], dim=1)
        logit: Tensor = self.layers(pair)[:, 0]
        return logit
