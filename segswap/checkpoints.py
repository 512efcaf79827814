"""The state of a training run on disk: whole or not at all, and read without running code."""

import os
from pathlib import Path
from typing import Any

import torch

STATE = "last.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state under a temporary name, sync it, and put it in place of the last one."""
    temporary = folder / f".{STATE}.tmp"
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / STATE)


def load_state(folder: Path) -> dict[str, Any]:
    """Read the state of a run.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    path = folder / STATE
    if not path.is_file():
        raise ValueError(f"{folder} holds no {STATE}: there is nothing to resume")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and zip reading raise many kinds
        raise ValueError(f"{path} cannot be read: {error}") from error
