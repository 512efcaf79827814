"""Proposers' networks into files and back: without the backbone that ships, in half precision."""

import os
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from generators.networks.trained import Trained
from segswap.backbones.weights import read_weights
from segswap.files.storage import write_atomically
from segswap.models.shared import SHARED, with_shared, without_shared


def save_network(path: Path, said: Trained, network: nn.Module) -> None:
    """Write a network's weights, in half precision, with what `said` says of them.

    A frozen backbone with the weights that ship is named by its hash and not written.

    Raises:
        ValueError: a weight is too large for half precision.
    """
    own, shared = without_shared(network)
    state = {name: _halved(name, value) for name, value in own.items()}
    whole = Trained(said.method, said.settings, shared.get(SHARED))
    write_atomically(path, save(state, whole.metadata()))


def load_network(path: str | os.PathLike[str], said: Trained, network: nn.Module) -> None:
    """Fill a network with the weights of a file, of which `said` was read.

    Raises:
        ValueError: they do not fit the network, or belong to another backbone than the one that
            ships.
    """
    try:
        state = with_shared(network, read_weights(path), said.shared)
        network.load_state_dict({key: value.float() if value.is_floating_point() else value
                                 for key, value in state.items()})  # fmt: skip
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit the network of {said.method}: {text}") from error


def _halved(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.cpu().contiguous()
    half = value.detach().cpu().to(torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise ValueError(f"{name} holds numbers that half precision does not")
    return half
