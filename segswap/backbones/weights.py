"""Weights files, a user's own or downloaded, read without running what they may hold."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

_QUERY = "encoder_q."  # the part of MoCo's two encoders that is kept


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Named tensors of a weights file, without running any code that the file may hold.

    Understood are safetensors files (by their suffix) and PyTorch files: a plain state dict, or one
    under "state_dict" or "model". The prefix `module.` of data-parallel training is taken off. Of a
    file in the layout of MoCo v2 (He et al., arXiv 1911.05722; keys `module.encoder_q.*`) only the
    query encoder is returned.

    Returns:
        Tensors on the CPU, in the dtypes of the file.

    Raises:
        ValueError: the file is missing, cannot be read, holds no named tensors, or weights that are
            NaN or infinite.
    """
    state = _named_tensors(read_content(path))
    if not state:
        raise ValueError(
            f"{path} is not a checkpoint: it holds no named tensors; expected a state dict, or one "
            "under 'state_dict' or 'model'"
        )
    check_finite(state, str(path))
    return state


def check_finite(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights some of which are no numbers: with them every answer is none, too.

    Args:
        name: what the weights are called.

    Raises:
        ValueError: one of them is NaN or infinite.
    """
    for key, value in state.items():
        # Of numbers of one byte torch does not tell; no others grow by that.
        told = value.float() if value.element_size() == 1 else value
        if value.is_floating_point() and not told.isfinite().all():
            raise ValueError(f"{name} holds weights that are NaN or infinite ({key})")


def read_content(path: str | os.PathLike[str]) -> Any:
    """What a weights file holds, without running any code: `read_weights` finds the tensors in it.

    Raises:
        ValueError: the file is missing or cannot be read.
    """
    if not Path(path).is_file():
        raise ValueError(f"weights file {path} does not exist")
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file makes the readers fail in any way
        raise ValueError(f"{path} is not a readable weights file: {error}") from error


def _named_tensors(content: Any) -> dict[str, Tensor]:
    """The tensors in a checkpoint's content, wrappers and prefixes taken off."""
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        return {}
    state = {
        key.removeprefix("module."): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    query = {k.removeprefix(_QUERY): v for k, v in state.items() if k.startswith(_QUERY)}
    return query or state
