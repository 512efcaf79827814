"""SEAM and SC-CAM in the training loop, and AffinityNet on either."""

from pathlib import Path

import torch
from torch import Tensor, nn

from generators.networks.classes.affinity import AffinityLoss
from generators.networks.classes.network import ClassNetwork
from generators.networks.classes.samples import AffinityPictures, LabelledPictures
from generators.networks.classes.sccam import SCCAMLoss
from generators.networks.classes.seam_losses import SEAMLoss
from generators.networks.trained import FILE, Trained
from generators.networks.weights import save_network
from segswap.training.task import Row, Task

_NEW = 10.0  # times the learning rate


class ClassTask(Task):
    """A round of a method's training; see Task."""

    def __init__(
        self, network: ClassNetwork, objective: SEAMLoss | SCCAMLoss | AffinityLoss,
        samples: LabelledPictures | AffinityPictures, said: Trained,
    ) -> None:  # fmt: skip
        """
        Args:
            network: changed in place.
            objective: its losses.
            samples: the training data.
            said: what the file of the weights says of them.
        """
        self.network, self.samples, self._said = network, samples, said
        self.objective: nn.Module = objective
        self.terms = objective.terms
        self._device = next(network.parameters()).device

    def rate(self, name: str) -> float:
        """See Task: what is new learns faster than the trunk, as published."""
        return 1.0 if name.startswith("trunk.") else _NEW

    def inputs(self, batch: list[Tensor], number: int) -> tuple[Tensor, ...]:
        """Pictures (B, 3, S, S) in [0, 1], and what is told of them."""
        images, told = (each.to(self._device) for each in batch)
        return images.to(torch.float32, memory_format=torch.channels_last) / 255, told

    def save(self, averaged: nn.Module, folder: Path, row: Row) -> None:
        """Write the weights, as `--segments FOLDER` reads them."""
        save_network(folder / FILE, self._said, averaged)
