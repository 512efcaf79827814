"""Where a command's results go, looked at before the work begins rather than after it."""

import json
from pathlib import Path
from typing import Any

from segswap.files.storage import PathLike, write_atomically

# On a full disk, where the same command goes on from what is there.
GO_ON = "what is finished is kept: make room, and the same command goes on"


def check_file(flag: str, name: str | None) -> None:
    """Refuse a name that no file can be written under.

    Args:
        flag: that gave the name, for the message.
        name: None where no file is asked for.

    Raises:
        ValueError: it is a folder, or in none.
    """
    if name is None:
        return
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{flag} {name} is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"{flag} {name} is in no folder: {path.parent} is not there; make it")


def check_folder(flag: str, name: str | None) -> None:
    """Refuse a file in a folder's place; None where no folder is asked for.

    Raises:
        ValueError: it is a file, or below one.
    """
    if name is None:
        return
    path = Path(name)
    for place in (path, *path.parents):
        if place.is_file():
            raise ValueError(f"{flag} {name}: {place} is a file; expected a folder")


def write_json(path: PathLike, content: dict[str, Any]) -> None:
    """Write values as a JSON file, null for NaN, which JSON has not."""
    write_atomically(path, json.dumps(_finite(content), indent=1).encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and value != value else value
