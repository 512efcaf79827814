"""Weights of proposers that are networks: what a file says of itself, without torch."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from segswap.files.records import NONE, Schema, checked, parse_json

FILE = "proposer.safetensors"  # in a run's folder
FORMAT = 1  # of what the file says; other ones are refused
_KEY = "proposer"
_SCHEMA: Schema = {
    "format": (int,), "method": (str,), "settings": (dict,), "shared": (str, NONE),
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What a file of weights says.

    Attributes:
        method: the proposer's name.
        settings: what its network is built from, as JSON values.
        shared: SHA-256 of the file that its backbone is in; None where it holds all.
    """

    method: str
    settings: Mapping[str, Any]
    shared: str | None = None

    def metadata(self) -> dict[str, str]:
        """What is written into the file's header."""
        said = {"format": FORMAT, "method": self.method, "settings": dict(self.settings)}
        return {_KEY: json.dumps(said | {"shared": self.shared})}


def trained(place: str | os.PathLike[str]) -> tuple[Path, Trained]:
    """The weights of a run's folder, or a file of such weights, and what it says of itself.

    Raises:
        ValueError: there is none, it cannot be read, or it is none of a proposer.
    """
    path = Path(place) / FILE if Path(place).is_dir() else Path(place)
    if not path.is_file():
        raise ValueError(
            f"{place} holds no {FILE}; expected the folder of a run of segswap-train-proposer"
        )
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {})[_KEY]
        said = checked(parse_json(text, "its header"), _SCHEMA, "its header")
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise ValueError(
            f"{path} is no weights file of a proposer ({error}); expected one that "
            "segswap-train-proposer wrote"
        ) from error
    if said["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {said['format']}; this version of segswap reads {FORMAT}"
        )
    return path, Trained(said["method"], said["settings"], said["shared"])
