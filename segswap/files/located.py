"""Where the images lie that a list of names means, and in which frame they were annotated."""

import os
import unicodedata
from pathlib import PurePosixPath

from segswap.files import storage
from segswap.files.images import ImageError, read_size
from segswap.files.storage import PathLike

Size = tuple[int, int]  # width and height


def locate(folder: PathLike, name: str) -> str:
    """The path, relative to a folder or URL, of the image that a list names.

    A name may be written with backslashes, and its letters and their accents in another way than on
    the disk (as a Mac does, NFD, or others, NFC): of such names the first is taken under which
    something lies; the name itself where none does.

    Raises:
        ImageError: no file can have this name, or it leads out of the folder.
    """
    plain = name.replace("\\", "/")
    for one in (name, plain):
        if PurePosixPath(one).is_absolute() or ".." in PurePosixPath(one).parts:
            raise ImageError(name, "outside the folder of the images")
    try:
        if b"\0" in storage.name_bytes(name):
            raise ValueError("NUL ends a name")
    except ValueError as error:
        raise ImageError(ascii(name), "has a name that no file can have") from error
    spellings = dict.fromkeys(
        written
        for one in (name, plain)
        for written in (one, *(unicodedata.normalize(form, one) for form in ("NFC", "NFD")))
    )
    if len(spellings) > 1:  # others cost no look at the disk
        return next((one for one in spellings if _exists(storage.join(folder, one))), name)
    return name


def _exists(path: str) -> bool:
    if storage.is_url(path):
        return storage.size(path) is not None
    return os.path.lexists(storage.local_path(path))


def check_frame(path: PathLike, stored: Size, annotated: Size) -> None:
    """Refuse an image that is of another size than was annotated, as stored and turned upright.

    Raises:
        ImageError: neither fits, or the file cannot be read.
    """
    if stored == annotated:
        return
    upright = read_size(path, upright=True)
    if upright == annotated:
        return
    turned = f" ({upright[0]} x {upright[1]} turned upright, as its EXIF header asks)"
    raise ImageError(
        str(path),
        f"is {stored[0]} x {stored[1]}{turned if upright != stored else ''}, "
        f"annotated as {annotated[0]} x {annotated[1]}",
    )
