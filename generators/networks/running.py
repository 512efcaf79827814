"""How a proposer's network is run: so that the same images give the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def best_device() -> torch.device:
    """A GPU where this process has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def steadily() -> Iterator[None]:
    """Without gradients, in float32, and in one thread: how sums are parted among threads changes
    their last digits. Many images are shared out among processes instead.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
