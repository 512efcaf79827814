"""Which device a model runs on, and what to do when its memory is too small."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def device_of(name: str) -> torch.device:
    """The device of a --device flag.

    Args:
        name: "auto", a GPU where there is one, or a name as torch knows it.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" can do the one, not the other
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        said = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"--device {name} is not there; expected auto or one of {', '.join(there)} ({said})"
        ) from error
    return device


@contextmanager
def out_of_memory_says(advice: str) -> Iterator[None]:
    """Where a device's memory runs out, raise a RuntimeError that gives advice, in one line."""
    try:
        yield
    except RuntimeError as error:
        allocator = "can't allocate memory" in str(error)  # the CPU's has no error of its own
        if not isinstance(error, torch.OutOfMemoryError) and not allocator:
            raise
        said = str(error).partition("\n")[0]
        raise RuntimeError(f"out of memory: {advice} ({said})") from error
