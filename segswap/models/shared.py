"""The backbone that ships is in many models: they name it by its hash, and do not hold it."""

from collections.abc import Mapping

from torch import Tensor, nn

from segswap.backbones.backbones import Backbone
from segswap.backbones.shipped import SHA256

SHARED = "backbone"  # in model.json: the SHA-256 of the file that the model's backbone is in


def without_shared(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A network's weights without those of the backbone that ships, and what model.json says of it;
    all weights, and nothing, where it is none or is trained on.
    """
    shared = tuple(
        f"{name}."
        for name, module in network.named_modules()
        if isinstance(module, Backbone) and module.has_shipped_weights()
    )
    own = {key: v for key, v in network.state_dict().items() if not key.startswith(shared)}
    return own, {SHARED: SHA256} if shared else {}


def with_shared(
    network: nn.Module, own: Mapping[str, Tensor], shared: str | None
) -> dict[str, Tensor]:
    """All of a network's weights, of those that `without_shared` gave; the network's backbones that
    they lack are filled.

    Args:
        shared: what model.json says.

    Raises:
        ValueError: it is another file than the one that ships, or that one is damaged.
    """
    state = dict(own)
    if shared is None:
        return state
    if shared != SHA256:
        raise ValueError(
            f"its backbone is the file with the SHA-256 {shared}, and this version of segswap "
            f"ships the one with {SHA256}; install the version of segswap that made the model"
        )
    for name, module in network.named_modules():
        prefix = f"{name}."
        if isinstance(module, Backbone) and not any(key.startswith(prefix) for key in own):
            module.fill("shipped")
            state |= {prefix + key: value for key, value in module.state_dict().items()}
    return state
