"""The backbone that ships is in many models: they name it by its hash, and do not hold it."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from segswap.backbones.backbones import Backbone
from segswap.backbones.shipped import NAME, SHA256
from segswap.models.hub import SHARED


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


def check_shared(shared: str | None) -> None:
    """Refuse what model.json says of a backbone that is another file than the one that ships.

    Raises:
        ValueError: it is.
    """
    if shared not in (None, SHA256):
        raise ValueError(
            f"its backbone is the file with the SHA-256 {shared}, and this version of segswap "
            f"ships the one with {SHA256}; install the version of segswap that made the model"
        )


def filled_keys(network: nn.Module, own: Mapping[str, Tensor]) -> set[str]:
    """The weights that `with_shared` fills in.

    Raises:
        ValueError: the network's backbone is another network than the one that ships.
    """
    keys = set()
    for prefix, module in _lacking(network, own):
        if module.name.split(".")[0] != NAME:
            raise ValueError(f"it shares the backbone that ships, {NAME}, and has {module.name}")
        keys |= {prefix + key for key in module.state_dict()}
    return keys


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
    check_shared(shared)
    state = dict(own)
    if shared is not None:
        for prefix, module in _lacking(network, own):
            module.fill("shipped")
            state |= {prefix + key: value for key, value in module.state_dict().items()}
    return state


def _lacking(network: nn.Module, own: Mapping[str, Tensor]) -> Iterator[tuple[str, Backbone]]:
    """The network's backbones of which there are no weights, by the prefix of their names."""
    for name, module in network.named_modules():
        if isinstance(module, Backbone) and not any(key.startswith(f"{name}.") for key in own):
            yield f"{name}.", module
