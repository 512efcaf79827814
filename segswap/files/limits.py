"""How large a picture may be: as the environment says, which the processes of a job share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "SEGSWAP_MAX_MEGAPIXELS"
DEFAULT_MEGAPIXELS = 100
MIN_SIDE = 32


def max_megapixels() -> int:
    """The largest number of megapixels that is read.

    Raises:
        RuntimeError: what the environment says is no number of them.
    """
    told = os.environ.get(VARIABLE, str(DEFAULT_MEGAPIXELS))
    if not told.isascii() or not told.isdigit() or not int(told):
        raise RuntimeError(f"{VARIABLE} is {told!r}; expected a whole number from 1, as in 400")
    return int(told)


@contextmanager
def allowing(megapixels: int | None) -> Iterator[None]:
    """Read pictures of up to so many megapixels, in this process and those that it starts; None
    leaves the limit as it is.
    """
    before = os.environ.get(VARIABLE)
    if megapixels is not None:
        os.environ[VARIABLE] = str(megapixels)
    try:
        yield
    finally:
        if megapixels is not None:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def wrong_size(width: int, height: int) -> str | None:
    """Why a picture of so many pixels is not read; None where it is.

    Raises:
        RuntimeError: see `max_megapixels`.
    """
    limit = max_megapixels()
    if min(width, height) < MIN_SIDE:
        return f"a side under {MIN_SIDE} px ({width} x {height})"
    if width * height > limit * 1_000_000:
        need = -(-width * height // 1_000_000)
        return (
            f"over {limit} megapixels ({width} x {height}); --max-megapixels {need} reads it, in "
            f"up to {need * _BYTES_A_PIXEL / 1000:.1f} GB of memory"
        )
    return None


_BYTES_A_PIXEL = 12  # of a decoder and of what is made of it, at their most
