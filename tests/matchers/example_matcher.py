"""A made-up matcher in one module: two levels of features, soft argmax, a loss term of its own."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.matchers.base import Answers, Matcher, Matches, Side, Term
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import standard_terms
from segswap.matchers.sampling import cell_centres, sample


def return_loss(answers: Answers) -> Tensor:
    """Mean distance of the way there and back, which needs no ground truth."""
    total = torch.zeros(())
    for side, other in answers.matches.both():
        back = sample(other.positions.permute(0, 3, 1, 2), side.positions)
        home = cell_centres(*side.positions.shape[1:3], back).permute(2, 0, 1)
        total = total + (back - home).norm(dim=1).mean()
    return total


class TwoLevels(Matcher):
    """Correlation of coarse cells and of fine ones.

    Args:
        width: channels of each level.
        sharp: keep the fine level.
    """

    terms: ClassVar[tuple[Term, ...]] = (
        *standard_terms(), Term("return", frozenset({"pair"}), return_loss, "the way back", 0.5)
    )  # fmt: skip
    size, match_size, lr, stride = 64, 64, 1e-3, 16

    def __init__(self, width: int = 8, sharp: bool = True) -> None:
        super().__init__()
        self.sharp = sharp
        self.fine = nn.Conv2d(3, width, 8, stride=8)
        self.coarse = nn.Conv2d(width, width, 2, stride=2)
        self.mask = nn.Linear(1, 1)

    @property
    def mask_stride(self) -> int:
        return 8

    def encode(self, images: Tensor) -> Encoding:
        fine = self.fine(images)
        coarse = self.coarse(F.relu(fine))
        return Encoding({"fine": F.normalize(fine, dim=1), "coarse": F.normalize(coarse, dim=1)})

    def compared(self, images: Encoding) -> Tensor:
        return images["coarse"]

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        return Matches(self._side(source, target), self._side(target, source))

    def _side(self, own: Encoding, other: Encoding) -> Side:
        coarse, there = own["coarse"], other["coarse"]
        logits = 10 * torch.einsum("bcn,bcm->bnm", coarse.flatten(2), there.flatten(2))
        centres = cell_centres(*there.shape[2:], logits).flatten(0, 1)
        positions = (logits.softmax(-1) @ centres).unflatten(1, coarse.shape[2:])
        level = "fine" if self.sharp else "coarse"
        best = torch.einsum("bchw,bcm->bhwm", own["fine"], other[level].flatten(2)).amax(-1)
        return Side(positions, self.mask(best[..., None])[..., 0], coarse)
