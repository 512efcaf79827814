"""What SEAM's and SC-CAM's networks have in common: class activation maps on a trunk."""

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from generators.networks.classes.affinity import AffinityHead
from generators.networks.classes.trunk import Trunk


class ClassNetwork(nn.Module):
    """Where images show classes.

    Attributes:
        trunk: gives the features.
        affinity: tells which neighbouring places belong together; None where that is not learned.
    """

    def __init__(self, trunk: Trunk, affinity: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.affinity = AffinityHead(trunk.channels) if affinity else None

    @abstractmethod
    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) of the classes, and maps (B, C, h, w) of them, 0 or more, of RGB images
        (B, 3, H, W) in [0, 1].
        """


def classifier(channels: int, outputs: int) -> nn.Conv2d:
    """A linear layer at each place, without a bias: the mean of its map is the logit of the mean
    of the features.
    """
    layer = nn.Conv2d(channels, outputs, 1, bias=False)
    nn.init.normal_(layer.weight, std=0.01)
    return layer


def soft_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Multi-label soft margin loss: the mean over classes (B, C) of sigmoids' cross entropies."""
    return F.multilabel_soft_margin_loss(logits.float(), labels)
