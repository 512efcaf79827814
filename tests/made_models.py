"""Models that nobody trained, on disk: they match by their fixed descriptors."""

from pathlib import Path

import torch

from segswap.matchers.registry import build
from segswap.models.model import Model


def save_model(folder: Path, seed: int = 0, size: int = 64, half: bool = False) -> Path:
    """A correlation matcher with random weights in its mask head; returns the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        matcher = build("correlation")
    Model(matcher, {"matcher": "correlation", "options": {}, "size": size}).save(folder, half=half)
    return folder


def save_kinds_model(folder: Path) -> Path:
    """A semantic matcher with random weights in its head, on the backbone that ships; returns the
    folder.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        matcher = build("semantic")
    Model(matcher, {"matcher": "semantic", "options": {}, "size": 64}).save(folder)
    return folder
