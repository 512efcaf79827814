"""Arrays in .npy files that others may have written: mapped into memory, never unpickled."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segswap.files import storage


def map_array(path: storage.PathLike, kinds: str, dimensions: int | None = None) -> NDArray[Any]:
    """The array of a local .npy file, of which only what is asked for is read.

    Args:
        kinds: letters of the kinds of numbers that it may hold, as in `numpy.dtype.kind`.
        dimensions: that it is to have; None for any.

    Raises:
        ValueError: the file is missing, damaged, or holds something else; nothing is unpickled.
    """
    try:
        found = np.load(storage.local_path(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as an array ({error})") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} is no .npy file, but holds several arrays")
    if found.dtype.kind not in kinds or dimensions not in (None, found.ndim):
        raise ValueError(
            f"{path} holds {found.dtype} of shape {found.shape}; expected "
            f"{_said(kinds)}{'' if dimensions is None else f', {dimensions} dimensions'}"
        )
    return found


def _said(kinds: str) -> str:
    names = {"f": "floating-point numbers", "i": "integers", "u": "unsigned integers",
             "b": "true or false", "V": "records"}  # fmt: skip
    return " or ".join(names[kind] for kind in kinds)
