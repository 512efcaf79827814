"""What is learned on top of the matches: attention that lets cells vote for each other's places.

Every cell has a local affine map to the other image, good where there is texture. Cells attend to
cells of their own image by what they look like, how near and how well matched they are, and take
over the mean of their maps: so the smooth inside of an object learns its place from its textured
rim. The same tokens tell the mask.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.correlation.descriptors import CHANNELS
from segswap.matchers.correlation.directions import EVIDENCE, Direction, normalise_cells
from segswap.matchers.sampling import cell_places, sample

_UNIT = 4.0  # cells: the unit of distance in attention
_NO_WEIGHT = 0.05  # a cell with no agreeing match votes with so much weight
_LAYER_REACH = (4.0, 1.0, 0.25, 0.05)  # gamma of each head at the start
_VOTE_REACH = (16.0, 2.0, 0.25, 0.03)
HEADS = len(_VOTE_REACH)


class NearAttention(nn.Module):
    """Attention among the cells of one image, with logits q_i k_j - gamma |x_i - x_j|^2.

    Each head has its own gamma > 0: from itself alone to the whole image. The distance enters as
    further channels of queries and keys, so that the fast kernels apply.

    Args:
        width: channels of a token.
        key: channels of a head's queries and keys.
        reach: gamma of each head at the start.
    """

    def __init__(self, width: int, key: int, reach: tuple[float, ...]) -> None:
        super().__init__()
        self.heads, self.key = len(reach), key
        self.query_key = nn.Linear(width, 2 * self.heads * key)
        self.reach = nn.Parameter(torch.tensor(reach).expm1().log())
        self.trust = nn.Parameter(torch.ones(self.heads))

    def forward(self, tokens: Tensor, shape: torch.Size, values: Tensor, weight: Tensor) -> Tensor:
        """What each cell gathers: (B, heads, N, V).

        Args:
            tokens: (B, N, width).
            shape: rows and columns of the cells, N in all.
            values: (B, heads, N, V).
            weight: (B, 1, rows, columns), how well each cell is matched.
        """
        # float32: squared distances are differences of large numbers.
        with torch.autocast(tokens.device.type, enabled=False):
            projected = self.query_key(tokens.float()).unflatten(-1, (2, self.heads, self.key))
            query, key = projected.permute(2, 0, 3, 1, 4)
            gamma = F.softplus(self.reach)[:, None, None]
            at = cell_places(shape[0], shape[1], tokens).flatten(0, 1) / _UNIT
            known = (weight.flatten(1).float() + _NO_WEIGHT).log()[:, None, :, None]
            queries = [query / math.sqrt(self.key), 2 * gamma * at, torch.ones_like(at[:, :1])]
            keys = [key, at, -gamma * at.square().sum(-1, keepdim=True)]
            queries.append(self.trust[:, None, None].expand(-1, len(at), -1))
            keys.append(known)
            grow = (len(tokens), self.heads, -1, -1)
            queried = torch.cat([part.expand(grow) for part in queries], dim=-1)
            known_as = torch.cat([part.expand(grow) for part in keys], dim=-1)
            # Values as wide as the keys: on a CPU the fast kernel asks for it.
            padded = F.pad(values.float(), (0, queried.shape[-1] - values.shape[-1]))
            gathered = F.scaled_dot_product_attention(queried, known_as, padded, scale=1.0)
            return gathered[..., : values.shape[-1]]


class EvidenceLayer(nn.Module):
    """Tokens attend within their image, then take in the token that they match in the other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = NearAttention(width, width // HEADS, _LAYER_REACH)
        self.value, self.combine = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_pair = nn.LayerNorm(2 * width)
        self.expand, self.contract = nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, width)

    def forward(
        self, source: Tensor, target: Tensor, there: Direction, back: Direction
    ) -> tuple[Tensor, Tensor]:
        """New tokens (B, width, h, w) of both images."""
        a, b = self._attend(source, there.weight), self._attend(target, back.weight)
        to_target, to_source = there.normalised().detach(), back.normalised().detach()
        return self._compare(a, b, to_target), self._compare(b, a, to_source)

    def _attend(self, maps: Tensor, weight: Tensor) -> Tensor:
        """Tokens (B, width, h, w) after attention within the image."""
        tokens = self.norm(as_tokens(maps))
        values = self.value(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        gathered = self.attention(tokens, maps.shape[2:], values, weight)
        gathered = self.combine(gathered.transpose(1, 2).flatten(2))
        return maps + as_maps(gathered, maps.shape[2:])

    def _compare(self, maps: Tensor, other: Tensor, to_other: Tensor) -> Tensor:
        """Tokens (B, width, h, w) after a look at the other image's, at (B, h, w, 2)."""
        there = sample(other, to_other).to(maps.dtype)
        pair = self.norm_pair(as_tokens(torch.cat([maps, there], dim=1)))
        return maps + as_maps(self.contract(F.relu(self.expand(pair))), maps.shape[2:])


class PairHead(nn.Module):
    """Positions and mask logits of both images from the evidence of both directions.

    Args:
        width: channels of a token, a multiple of the four heads.
        layers: how often the cells look around and across.
    """

    def __init__(self, width: int, layers: int = 3) -> None:
        super().__init__()
        self.look = nn.Conv2d(CHANNELS, width, 1)
        self.near = nn.Sequential(
            nn.Conv2d(EVIDENCE + 4 + 2, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
        )  # fmt: skip
        self.layers = nn.ModuleList(EvidenceLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.vote = NearAttention(width, 16, _VOTE_REACH)
        self.choose = nn.Linear(width, HEADS)
        with torch.no_grad():  # to start from: near cells decide, whatever they look like
            self.vote.query_key.weight *= 0.3
            self.choose.get_parameter("bias").copy_(torch.tensor([2.0, 1.0, 0.0, -1.0]))
        self.mask = nn.Sequential(
            nn.Conv2d(2 * width + 1, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )  # fmt: skip
        # To start from, about the share of cells that are in a mask.
        nn.init.constant_(self.mask[-1].get_parameter("bias"), -1.5)

    def forward(
        self, there: Direction, back: Direction,
        source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Normalised positions (B, h, w, 2) of the source's and of the target's cells, then their
        mask logits (B, h, w).

        Args:
            there, back: the two directions of the match.
            source, target: of each image its evidence (B, EVIDENCE, h, w) and its descriptors
                (B, 128, h, w).
        """
        a, b = self._tokens(there, *source), self._tokens(back, *target)
        for layer in self.layers:
            a, b = layer(a, b, there, back)
        in_target, in_source = self._voted(there, a), self._voted(back, b)
        to_target = normalise_cells(in_target, there.other)
        to_source = normalise_cells(in_source, back.other)
        return (
            to_target, to_source,
            self._mask(a, b, to_target.detach(), in_target - there.positions),
            self._mask(b, a, to_source.detach(), in_source - back.positions),
        )  # fmt: skip

    def _tokens(self, direction: Direction, evidence: Tensor, descriptors: Tensor) -> Tensor:
        """Tokens (B, width, h, w) of one image."""
        place = direction.normalised().detach().permute(0, 3, 1, 2) * 2 - 1
        linear = direction.linear.detach().clamp(-4, 4)
        return self.near(torch.cat([evidence, linear, place], dim=1)) + self.look(descriptors)

    def _voted(self, direction: Direction, maps: Tensor) -> Tensor:
        """Positions (B, 2, h, w) in cells, under the mean of the maps that each cell attends to."""
        tokens = self.norm(as_tokens(maps))
        at = cell_places(maps.shape[2], maps.shape[3], maps).flatten(0, 1)
        linear = as_tokens(direction.linear).unflatten(-1, (2, 2))
        constant = as_tokens(direction.positions) - _times(at, linear)
        values = torch.cat([constant, linear.flatten(2)], dim=-1)[:, None].expand(-1, HEADS, -1, -1)
        mean = self.vote(tokens, maps.shape[2:], values, direction.weight)
        positions = mean[..., :2] + _times(at, mean[..., 2:].unflatten(-1, (2, 2)))
        share = self.choose(tokens).float().softmax(dim=-1).transpose(1, 2)
        return as_maps((share[..., None] * positions).sum(1), maps.shape[2:])

    def _mask(self, maps: Tensor, other: Tensor, to_other: Tensor, moved: Tensor) -> Tensor:
        """Mask logits (B, h, w); `moved` (B, 2, h, w) is how far the vote took each cell."""
        there = sample(other, to_other).to(maps.dtype)
        distance = moved.detach().norm(dim=1, keepdim=True).clamp(max=8) / 4
        return self.mask(torch.cat([maps, there, distance.to(maps.dtype)], dim=1))[:, 0]


def as_tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h w, C)."""
    return maps.flatten(2).transpose(1, 2)


def as_maps(tokens: Tensor, shape: torch.Size) -> Tensor:
    """(B, h w, C) as (B, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, shape)


def _times(places: Tensor, linear: Tensor) -> Tensor:
    """Linear maps (..., N, 2, 2) of places (N, 2): (..., N, 2)."""
    return (places[..., None] * linear).sum(dim=-2)
