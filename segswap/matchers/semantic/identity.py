"""Where two images show the very same thing, and which of two ways of matching holds."""

import torch
from torch import Tensor, nn

from segswap.matchers.semantic.fields import Field, cycle_errors, log_probability_at

EVIDENCE = 7  # channels of `evidence`


class Identity(nn.Module):
    """Of each cell, what is added to the logit of the detailed match's mask to make it the one that
    both images show the very same thing there, and the logit that the detailed match is nearer to
    its place than the semantic one.

    Args:
        width: channels of the tokens that are looked at beside the evidence.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width + EVIDENCE, 64, 3, padding=1), nn.GELU(),
            nn.Conv2d(64, 64, 3, padding=2, dilation=2), nn.GELU(),
            nn.Conv2d(64, 2, 1),
        )  # fmt: skip

    def forward(self, tokens: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w) each: what is added, and the logit of "the detailed match".

        Args:
            tokens: (B, width, h, w).
            evidence: (B, EVIDENCE, h, w).
        """
        added, detailed = self.layers(torch.cat([tokens, evidence], dim=1)).unbind(1)
        return added, detailed


@torch.no_grad()
def evidence(
    logits: Tensor, detailed: tuple[Tensor, Tensor], semantic: tuple[Field, Field], mask: Tensor
) -> Tensor:
    """What speaks for either way of matching: (B, EVIDENCE, h, w), each of the order of 1.

    Args:
        logits: (B, h w, N') of the semantic correspondences.
        detailed: positions (B, h, w, 2) of this image's cells, and of the other image's.
        semantic: fields of this image, and of the other one.
        mask: (B, h, w) logits of the detailed match's mask.
    """
    (fine, fine_back), (kind, kind_back) = detailed, semantic
    other = fine_back.shape[1:3]
    size = torch.tensor([other[1], other[0]], device=logits.device)
    apart = ((fine - kind.positions) * size).norm(dim=-1)
    return torch.cat(
        [
            mask[:, None] / 4, log_probability_at(logits, fine, other)[:, None] / 5,
            kind.log_probability[:, None] / 5,
            torch.exp(-20 * cycle_errors(fine, fine_back)),
            torch.exp(-20 * cycle_errors(kind.positions, kind_back.positions)),
            torch.exp(-apart / 2)[:, None], torch.exp(-apart / 8)[:, None],
        ],
        dim=1,
    )  # fmt: skip
