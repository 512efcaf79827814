"""LDF in the training loop: its samples and losses, and the file that its weights go into."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.networks.ldf.losses import TERMS, LDFLoss
from generators.networks.ldf.network import LDF
from generators.networks.ldf.predictor import METHOD
from generators.networks.ldf.samples import MaskedPictures
from generators.networks.trained import FILE, Trained
from generators.networks.weights import save_network
from segswap.training.task import Row, Task


class LDFTask(Task):
    """A round of LDF's training; see Task."""

    def __init__(
        self, network: LDF, samples: MaskedPictures, settings: dict[str, Any], decouple: bool = True
    ) -> None:
        """
        Args:
            network: changed in place.
            samples: the training data.
            settings: what the network is built from, for the file.
            decouple: whether body and detail are taught.
        """
        self.network, self.samples = network, samples
        self.objective: nn.Module = LDFLoss(network, decouple)
        self.terms = TERMS if decouple else ("saliency", "iou")
        self.unused = not decouple  # the heads of body and detail are then not taught
        self._settings = settings
        self._device = next(network.parameters()).device

    def inputs(self, batch: list[Tensor], number: int) -> tuple[Tensor, ...]:
        """Pictures (B, 3, S, S), and mask, body and detail (B, 1, S, S), in [0, 1]."""
        images, labels = (
            each.to(self._device, torch.float32, memory_format=torch.channels_last) / 255
            for each in batch
        )
        return images, *labels.split(1, dim=1)

    def save(self, averaged: nn.Module, folder: Path, row: Row) -> None:
        """Write the weights, as `--segments FOLDER` reads them."""
        save_network(folder / FILE, Trained(METHOD, self._settings), averaged)
