"""Which device a model runs on."""

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
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"--device {name} is not there; expected auto or one of {', '.join(there)} ({error})"
        ) from error
    return device
