"""What LDF's network is taught by, in both passes: equations 4 to 6, the IoU as in the release."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.networks.ldf.network import LDF, Pass

TERMS = ("body", "detail", "saliency", "iou")


class LDFLoss(nn.Module):
    """The mean of both passes' losses, each the sum of its terms."""

    def __init__(self, network: LDF, decouple: bool = True) -> None:
        """
        Args:
            network: what learns.
            decouple: whether body and detail are taught; without, saliency alone is.
        """
        super().__init__()
        self.network, self.decouple = network, decouple

    def forward(
        self, images: Tensor, mask: Tensor, body: Tensor, detail: Tensor
    ) -> dict[str, Tensor]:
        """The terms, means of both passes, and the loss, of images (B, 3, H, W) and labels
        (B, 1, H, W), all in [0, 1].
        """
        passes = self.network(images)
        found = [pass_terms(each, mask, body, detail) for each in passes]
        names = TERMS if self.decouple else ("saliency", "iou")
        terms = {name: torch.stack([each[name] for each in found]).mean() for name in names}
        return terms | {"loss": torch.stack(list(terms.values())).sum()}


def pass_terms(found: Pass, mask: Tensor, body: Tensor, detail: Tensor) -> dict[str, Tensor]:
    """The terms of one pass: cross entropies, of which soft labels leave their entropy, and IoU."""
    saliency = found.saliency.float()  # sums over pixels are too much for half precision
    return {
        "body": F.binary_cross_entropy_with_logits(found.body.float(), body),
        "detail": F.binary_cross_entropy_with_logits(found.detail.float(), detail),
        "saliency": F.binary_cross_entropy_with_logits(saliency, mask),
        "iou": iou_loss(saliency.sigmoid(), mask),
    }


def iou_loss(found: Tensor, mask: Tensor) -> Tensor:
    """1 - (sum p m + 1) / (sum p + sum m - sum p m + 1), of probabilities and masks (B, 1, H, W):
    the mean over images.
    """
    common = (found * mask).sum(dim=(1, 2, 3))
    either = (found + mask).sum(dim=(1, 2, 3)) - common
    return (1 - (common + 1) / (either + 1)).mean()
