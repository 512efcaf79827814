"""How large a picture may be: as the environment says, which the processes of a job share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "SEGSWAP_MAX_MEGAPIXELS"
DEFAULT_MEGAPIXELS = 100
MIN_SIDE = 32
# That reading a pixel takes, at its most: by far the most for floats and for what is transparent.
_BYTES, _MOST_BYTES = {"JPEG": 3}, 25


def max_megapixels() -> int:
    """The largest number of megapixels that is read.

    Raises:
        RuntimeError: what the environment says is no number of them.
    """
    told = os.environ.get(VARIABLE, str(DEFAULT_MEGAPIXELS))
    if not told.isascii() or not told.isdigit() or not int(told):
        raise RuntimeError(f"{VARIABLE} is {told!r}; expected a whole number from 1, as in 400")
    return int(told)


def told() -> dict[str, str]:
    """What the environment says of it, for processes that do not inherit it."""
    return {name: os.environ[name] for name in (VARIABLE,) if name in os.environ}


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


def wrong_size(width: int, height: int, kind: str) -> str | None:
    """Why a picture of so many pixels, in a format of Pillow's, is not read; None where it is.

    Raises:
        RuntimeError: see `max_megapixels`.
    """
    limit = max_megapixels()
    if min(width, height) < MIN_SIDE:
        return f"a side under {MIN_SIDE} px ({width} x {height})"
    if width * height > limit * 1_000_000:
        need = -(-width * height // 1_000_000)
        size = need * _BYTES.get(kind, _MOST_BYTES) / 1000
        return (
            f"over {limit} megapixels ({width} x {height}); --max-megapixels {need}, or "
            f"{VARIABLE}={need}, reads it in up to {size:.1f} GB of memory"
        )
    return None
