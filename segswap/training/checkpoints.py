"""The state of a training run on disk: whole or not at all, and read without running code."""

import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from segswap.files.records import Schema, contradictions
from segswap.files.storage import replacing

STATE = "last.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Put a state in place of the folder's last one, whole."""
    with replacing(folder / STATE) as file:
        writing = _Writing(file)
        torch.save(state, cast(BinaryIO, writing))
        if writing.failed:
            raise writing.failed


class _Writing:
    """A file for torch.save, which on an error would crash or raise one of its own: the first one
    is kept, and what follows it passed over.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failed: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """See BinaryIO.write."""
        if self.failed is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.failed = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """See BinaryIO.flush; the file is flushed when it is put in place."""


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
