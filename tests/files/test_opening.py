"""What is no file to be read says so, and nobody waits for it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segswap.files import opening
from segswap.files.images import (
    ImageError,
    read_hashed_image,
    read_image,
    read_label_map,
    read_size,
)
from segswap.files.opening import UnreadableError, open_regular


@pytest.mark.parametrize("read", [read_image, read_size, read_hashed_image, read_label_map])
def test_pipes_and_devices_are_not_waited_for(read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    for name in ("a.png", "link.png"):
        with pytest.raises(ImageError, match="is a pipe, not an image"):
            read(tmp_path / name)
    with pytest.raises(ImageError, match="is a device, not an image"):
        read(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "may not be read by this user"), (errno.EPERM, "may not be read by this user"),
     (errno.EIO, r"cannot be opened \(Input/output error\)")],
)  # fmt: skip
def test_files_that_are_not_given(
    number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(opening, "open", refuse, raising=False)
    with pytest.raises(UnreadableError, match=f"a.png: {said}"):
        open_regular(tmp_path / "a.png")
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "a.png")


def test_names_that_no_file_has(tmp_path: Path) -> None:
    for name in ("nul\0.png", "half\ud800.png"):
        with pytest.raises(ImageError, match="has a name that no file can have"):
            read_image(tmp_path / name)
