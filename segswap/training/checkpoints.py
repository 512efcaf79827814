"""The state of a training run on disk: whole or not at all, and read without running code."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from segswap.files.records import Schema, contradictions
from segswap.files.storage import replacing

STATE = "last.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Put a state in place of the folder's last one, whole."""
    with replacing(folder / STATE) as file:
        torch.save(state, file)


def load_state(folder: Path, schema: Schema | None = None) -> dict[str, Any]:
    """Read the state of a run.

    Args:
        schema: what it must hold.

    Raises:
        ValueError: there is none, it cannot be read, or a key is missing or of another type.
    """
    path = folder / STATE
    if not path.is_file():
        raise ValueError(f"{folder} holds no {STATE}: there is nothing to resume")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch does not compare the checksums
                raise ValueError(f"the checksum of {damaged} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and zip reading raise many kinds
        said = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read ({said}); segswap-train --init {folder} with another --out "
            "starts from the best weights, other commands start anew"
        ) from error
    wrong = [found for found, _ in contradictions(state, schema or {}, "its state")]
    if wrong:
        raise ValueError(
            f"{path} is no checkpoint of this version and command: {', '.join(wrong)}; "
            "start a new run with another --out"
        )
    return state
