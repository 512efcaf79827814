"""SC-CAM (Chang et al., CVPR 2020, arXiv 2008.01183): classes and sub-categories, told together."""

import torch.nn.functional as F
from torch import Tensor, nn

from generators.networks.classes.network import ClassNetwork, classifier, soft_margin
from generators.networks.classes.trunk import Trunk


class SCCAM(ClassNetwork):
    """A trunk with a classifier of classes and, after round 0, one of their sub-categories."""

    def __init__(
        self, trunk: Trunk, classes: int, clusters: int = 0, affinity: bool = False
    ) -> None:
        """
        Args:
            trunk: of the features.
            classes: how many.
            clusters: sub-categories of each; 0 in round 0, a plain CAM.
            affinity: see ClassNetwork.
        """
        super().__init__(trunk, affinity)
        self.dropout = nn.Dropout2d(0.5)
        self.parent = classifier(trunk.channels[2], classes)
        self.sub = classifier(trunk.channels[2], classes * clusters) if clusters else None

    def pooled(self, images: Tensor) -> Tensor:
        """Features (B, channels, 1, 1) of whole images, of which the logits are made."""
        return F.adaptive_avg_pool2d(self.dropout(self.trunk(images)[2]), 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C) of classes, and (B, C * K) of sub-categories, that of cluster k of class c
        at c * K + k.
        """
        found = self.pooled(images)
        return self.parent(found).flatten(1), None if self.sub is None else self.sub(found).flatten(
            1
        )

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ClassNetwork: maps of stride of the trunk's last map."""
        maps = self.parent(self.trunk(images)[2])
        return maps.mean(dim=(2, 3)), F.relu(maps)

    def sub_maps(self, images: Tensor) -> Tensor:
        """Maps (B, C * K, h, w) of sub-categories, 0 or more."""
        assert self.sub is not None
        return F.relu(self.sub(self.trunk(images)[2]))


class SCCAMLoss(nn.Module):
    """L = L_parent + weight * L_sub, both soft margins."""

    def __init__(self, network: SCCAM, sub_weight: float) -> None:
        super().__init__()
        self.network, self.sub_weight = network, sub_weight
        self.terms = ("parent", "sub") if network.sub is not None else ("parent",)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms and the loss, of images (B, 3, H, W) and labels (B, C + C * K), those of the
        sub-categories behind those of the classes; without them in round 0.
        """
        parent, sub = self.network(images)
        count = parent.shape[1]
        terms = {"parent": soft_margin(parent, labels[:, :count])}
        loss = terms["parent"]
        if sub is not None:
            terms["sub"] = soft_margin(sub, labels[:, count:])
            loss = loss + self.sub_weight * terms["sub"]
        return terms | {"loss": loss}
