"""What the neighbours of two cells say of whether they correspond."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.backbones.weights import read_weights
from segswap.matchers.ncnet.consensus import Consensus
from segswap.matchers.ncnet.presets import PRESETS
from segswap.matchers.ncnet.scores import correlate, mutual_filter

_OF_NCNET = "consensus."  # what its weights are called in a file of the matcher ncnet
# Of consensus, beside learned logits: chosen on held-out animals and classes. With more of it masks
# are carried over better, and keypoints of animals, which the learned ones were taught, worse.
_WEIGHT = 0.5


def frozen_consensus(weights: Path | None) -> Consensus:
    """The network of the matcher ncnet of the preset small, which is not trained further.

    Args:
        weights: file of an ncnet; None for random ones.

    Raises:
        ValueError: the file cannot be read, or is of another matcher or preset.
    """
    preset = PRESETS["small"]
    network = Consensus(preset.kernels, preset.channels).requires_grad_(False)
    if weights is None:
        return network
    told = {
        key.removeprefix(_OF_NCNET): value
        for key, value in read_weights(weights).items() if key.startswith(_OF_NCNET)
    }  # fmt: skip
    try:
        network.load_state_dict(told)
    except RuntimeError as error:
        raise ValueError(
            f"{weights} holds no weights of the matcher ncnet with the preset small: {error}"
        ) from error
    return network


@torch.no_grad()
def neighbour_logits(
    network: Consensus, source: Tensor, target: Tensor, visible: Tensor | None,
    grids: tuple[torch.Size, torch.Size],
) -> Tensor:  # fmt: skip
    """What is added to the logits (B, N, N') of "these cells correspond", of the cells of two finer
    grids, after Rocco et al. (NeurIPS 2018, arXiv 1810.10510).

    Args:
        source, target: features (B, C, h, w) and (B, C, h', w'), of length 1 along C.
        visible: bool (B, H', W') of the target's finer cells; None for all.
        grids: rows and columns of each image's finer grid.
    """
    a, b = source.float(), target.float()
    if visible is not None:
        b = b * F.adaptive_max_pool2d(visible[:, None].float(), b.shape[2:])
    scores = mutual_filter(network(mutual_filter(correlate(a, b))))[:, 0]
    # Finer along the axes of one image, then along those of the other.
    there = F.interpolate(scores.flatten(1, 2), grids[1], mode="bilinear").flatten(2)
    coarse = there.transpose(1, 2).unflatten(2, a.shape[2:])
    finer = F.interpolate(coarse, grids[0], mode="bilinear").flatten(2)
    return _WEIGHT * finer.transpose(1, 2)
