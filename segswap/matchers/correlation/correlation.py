"""A matcher that is useful without pretrained weights: correlation, consensus, voting.

Fixed gradient descriptors match already; residuals that are zero at the start adapt them. Their
correlation over relative scales gives each cell a match; matches that agree with their neighbours
vote for local affine maps; and attention among the cells of an image lets them vote for each
other's places and tells the mask.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.base import Matcher, Matches, Side, Term
from segswap.matchers.correlation.descriptors import CHANNELS, describe, normalise
from segswap.matchers.correlation.directions import Direction
from segswap.matchers.correlation.stem import Stem
from segswap.matchers.correlation.voting import PairHead
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import CORRELATION, standard_terms

WINDOWS = tuple(13 * 2 ** (k / 2) for k in range(6))  # pixels, half an octave apart
SHIFTS = tuple(range(-4, 5))  # relative scales: target over source, in half octaves
_PAIRS = 2  # pairs of windows compared for each relative scale


class CorrelationMatcher(Matcher):
    """Correlation of adapted gradient descriptors at all relative scales, with local consensus.

    Args:
        width: channels of the head's tokens, a multiple of 4.
    """

    # Few cells are shared, fewer still among the negatives: unweighted, a mask cut at 0.5 is
    # much too small.
    terms: ClassVar[tuple[Term, ...]] = (*standard_terms(positive_weight=3.0), CORRELATION)
    size: ClassVar[int] = 240
    match_size: ClassVar[int] = 320
    lr: ClassVar[float] = 2e-3

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stride = 8
        self.adapt = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 1)
        )
        for parameter in self.adapt[2].parameters():
            nn.init.zeros_(parameter)
        self.log_temperature = nn.Parameter(torch.tensor(30.0).log())
        self.scale_bias = nn.Parameter(torch.zeros(len(SHIFTS)))
        self.stem = Stem()
        self.head = PairHead(width)

    def encode(self, images: Tensor) -> Encoding:
        """Adapted descriptors of length 1 at S windows, "descriptors" (B, S, 128, h, w), and the
        log-strength of their gradients, "energy" (B, S, h, w).
        """
        with torch.no_grad():
            histograms = describe(images, WINDOWS, self.stride)
            energy = (histograms.norm(dim=2) + 1e-3).log()
            fixed = normalise(histograms)
        adapted = fixed + self.adapt(fixed.flatten(0, 1)).unflatten(0, fixed.shape[:2])
        adapted = adapted + self.stem(images, WINDOWS, self.stride)
        return Encoding(
            {"descriptors": F.normalize(adapted, dim=2, eps=1e-3), "energy": energy}
        )  # fmt: skip

    def compared(self, images: Encoding) -> Tensor:
        """See Matcher.compared: the mean descriptor over the windows, 128 channels."""
        return F.normalize(images["descriptors"].mean(dim=1), dim=1, eps=1e-3)

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """See Matcher.match."""
        hidden = None
        if visible is not None:  # a target all of whose cells are hidden counts as seen
            hidden = ~visible & visible.flatten(1).any(1)[:, None, None]
            target = Encoding({
                "descriptors": target["descriptors"].masked_fill(hidden[:, None, None], 0),
                "energy": target["energy"].masked_fill(hidden[:, None], 0),
            })  # fmt: skip
            hidden = hidden.flatten(1)
        source_maps, source_energy = source["descriptors"], source["energy"]
        target_maps, target_energy = target["descriptors"], target["energy"]
        # Half precision cannot tell the best of many good matches, nor place it within its cell.
        with torch.autocast(source_maps.device.type, enabled=False):
            correlation, source_scale, target_scale = self._correlate(
                source_maps.float(), target_maps.float(), hidden
            )
        grids = source_maps.shape[3:], target_maps.shape[3:]
        there = Direction.of(correlation, source_scale, *grids)
        back = Direction.of(correlation.transpose(1, 2), target_scale, *grids[::-1])
        source_features, target_features = self.compared(source), self.compared(target)
        to_target, to_source, source_logits, target_logits = self.head(
            there, back,
            (there.evidence(back, source_energy, target_energy), source_features),
            (back.evidence(there, target_energy, source_energy), target_features),
        )  # fmt: skip
        return Matches(
            Side(to_target, source_logits, source_features, {"correlation": correlation}),
            Side(
                to_source, target_logits, target_features,
                {"correlation": correlation.transpose(1, 2)},
            ),
        )  # fmt: skip

    def _correlate(
        self, source: Tensor, target: Tensor, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare every two cells at every relative scale.

        Args:
            hidden: bool (B, N'), the target cells that correspond to nothing; None for none.

        Returns:
            logits (B, N, N') of the correlation; for each source cell the scale (B, N) of its best
            match, target over source; for each target cell the same, source over target.
        """
        temperature = self.log_temperature.clamp(max=5.0).exp()
        # The images may be exchanged: a scale and its inverse are equally likely.
        bias = (self.scale_bias + self.scale_bias.flip(0)) / 2
        levels = []
        for number, shift in enumerate(SHIFTS):
            first, count = _window_pairs(shift)
            a = source[:, first : first + count].flatten(3).flatten(1, 2)
            b = target[:, first + shift : first + shift + count].flatten(3).flatten(1, 2)
            a = a * (temperature / count)
            levels.append(torch.baddbmm(bias[number], a.transpose(1, 2), b))
        volume = torch.stack(levels, dim=1)
        if hidden is not None:
            volume = volume.masked_fill(hidden[:, None, None], -1e4)
        with torch.no_grad():
            scales = 2.0 ** (0.5 * torch.tensor(SHIFTS, device=source.device))
            target_over_source = scales[volume.amax(dim=3).argmax(dim=1)]
            source_over_target = 1 / scales[volume.amax(dim=2).argmax(dim=1)]
        return volume.logsumexp(dim=1), target_over_source, source_over_target


def _window_pairs(shift: int) -> tuple[int, int]:
    """First source window, and number of windows, to compare with those `shift` places further on
    in the target: the middle ones of those that fit.
    """
    fitting = len(WINDOWS) - abs(shift)
    return max(0, -shift) + (fitting - _PAIRS) // 2, _PAIRS
