"""From a model's settings and its weights to the matcher: nothing is made that they do not fit."""

from typing import Any

import torch
from torch import Tensor

from segswap.matchers.base import Matcher
from segswap.matchers.registry import build_blank
from segswap.models.shared import check_shared, filled_keys, with_shared


def build_with(
    name: str, options: dict[str, Any], weights: dict[str, Tensor], shared: str | None
) -> Matcher:
    """A matcher by name, with its weights. The global random generators stay as they are.

    Args:
        options: see `build_blank`.
        weights: all of the matcher's, but for those of a backbone that it shares.
        shared: what model.json says of one; see `with_shared`.

    Raises:
        ValueError: there is no such matcher, or it has no such options, or other weights.
    """
    check_shared(shared)
    try:
        # Takes no memory, whatever the options say: before it is made, the weights are to fit.
        with torch.device("meta"):
            sketch = build_blank(name, options)
    except (RuntimeError, ValueError) as error:
        # A few of timm's networks, in some versions of it, need numbers to be built.
        if "meta tensor" not in str(error):
            raise
    else:
        _check_weights(sketch, name, weights, shared is not None)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        # Whatever was pretrained is in the weights file too.
        matcher = build_blank(name, options)
    _check_weights(matcher, name, weights, shared is not None)
    matcher.load_state_dict(with_shared(matcher, weights, shared))
    return matcher


def _check_weights(
    matcher: Matcher, name: str, state: dict[str, Tensor], shares: bool
) -> None:  # fmt: skip
    """Refuse weights that a matcher has no place for, or too few, but for those that it shares."""
    own = matcher.state_dict()
    filled = filled_keys(matcher, state) if shares else set()
    wrong = {
        "missing": sorted(own.keys() - state.keys() - filled),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": sorted(k for k in own.keys() & state.keys()
                                   if own[k].shape != state[k].shape),
    }  # fmt: skip
    if any(wrong.values()):
        said = [f"{len(names)} {what} ({names[0]}, ...)" for what, names in wrong.items() if names]
        raise ValueError(
            f"its weights are not those of this version's {name} matcher: {', '.join(said)}"
        )
