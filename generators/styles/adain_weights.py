"""Weights of the neural style transfer: the published files, downloaded once, or one's own."""

import logging
import os
import shutil
import urllib.request
from pathlib import Path

import torch
from torch import Tensor, nn

from generators.styles.adain import FIRST, Widths, build_decoder, build_encoder
from segswap.backbones.weights import read_weights
from segswap.files.cache import cache_folder
from segswap.files.hashes import content_hash
from segswap.files.storage import replacing

LOG = logging.getLogger("segswap")
OWN = "adain.safetensors"
ENCODER, DECODER = "vgg_normalised.pth", "decoder.pth"
# Of the official PyTorch port, with the files' SHA-256.
PUBLISHED_AT = "https://github.com/naoto0804/pytorch-AdaIN/releases/download/v0.0.0"
PUBLISHED = {
    ENCODER: "804ca2835ecf7539f0cd2a7ac3c18ce81e6f8468969ae7117ac0c148d286bb4a",
    DECODER: "379ca41d59f3a37eed3599bbbc2560c19da5c458870a5ffd3a9dd41aa88f9472",
}
_SECONDS = 30
_TORCHVISION = "features.0.weight"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

State = dict[str, Tensor]


def load_weights(folder: str | os.PathLike[str] | None) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder with the weights of a folder, float32 on the CPU.

    Args:
        folder: holds segswap-train-style's `adain.safetensors`, or the published
            `vgg_normalised.pth` and `decoder.pth`; None is the published ones, downloaded once.

    Raises:
        ValueError: the folder holds neither, or a file cannot be read or does not fit.
        RuntimeError: the published files could not be downloaded.
    """
    place = download() if folder is None else Path(folder)
    own, encoder, decoder = (place / name for name in (OWN, ENCODER, DECODER))
    if own.is_file():
        state = read_weights(own)
        widths = _widths(state, own, "encoder.")
        return (
            _filled(build_encoder(widths), state, own, "encoder."),
            _filled(build_decoder(widths), state, own, "decoder."),
        )
    missing = [path.name for path in (encoder, decoder) if not path.is_file()]
    if missing:
        raise ValueError(
            f"{place} holds no {' and no '.join(missing)}; expected the published {ENCODER} and "
            f"{DECODER} (from {PUBLISHED_AT}/), or {OWN}, which segswap-train-style writes"
        )
    state = read_weights(encoder)
    widths = _widths(state, encoder)
    return (
        _filled(build_encoder(widths), state, encoder),
        _filled(build_decoder(widths), read_weights(decoder), decoder),
    )


def load_vgg(path: str | os.PathLike[str]) -> nn.Sequential:
    """The encoder from a file of VGG-19: `vgg_normalised.pth`, or torchvision's or timm's vgg19.

    Raises:
        ValueError: the file cannot be read or does not fit.
    """
    state = read_weights(path)
    if _TORCHVISION in state:
        state = _from_torchvision(state)
    return _filled(build_encoder(_widths(state, Path(path))), state, Path(path))


def download() -> Path:
    """The folder of the published weights, adain/ in `cache_folder`, downloaded where they are not
    there yet.

    Raises:
        RuntimeError: they cannot be had; the text says what to do without network.
    """
    folder = cache_folder() / "adain"
    for name, expected in PUBLISHED.items():
        if (folder / name).is_file():
            continue
        url = f"{PUBLISHED_AT}/{name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            LOG.info("downloading %s to %s", url, folder)
            _fetch(url, folder / name, expected)
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"the weights of --style adain could not be downloaded: {url}: {error}. Without "
                f"network, put {' and '.join(PUBLISHED)} from {PUBLISHED_AT}/ into {folder} or "
                "into a folder of your own that you name with --adain-weights; or train weights "
                "with `segswap-train-style IMAGES STYLES --out W` and give --adain-weights W"
            ) from error
    return folder


def _fetch(url: str, path: Path, expected: str) -> None:
    """Download a file whole or not at all; other processes may do the same at the same time."""
    with urllib.request.urlopen(url, timeout=_SECONDS) as reply, replacing(path) as file:
        shutil.copyfileobj(reply, file)
        file.seek(0)
        found = content_hash(file)
        if found != expected:
            raise ValueError(f"its SHA-256 is {found}; expected {expected}")


def _from_torchvision(state: State) -> State:
    """torchvision's VGG-19 in the published layout.

    It takes RGB normalised by ImageNet's mean and standard deviation, which becomes the first
    layer. Its convolutions stand in the same order.
    """
    std = torch.tensor(_IMAGENET_STD)
    converted = {
        "0.weight": torch.diag(1 / std)[:, :, None, None],
        "0.bias": -torch.tensor(_IMAGENET_MEAN) / std,
    }
    theirs = sorted({int(k.split(".")[1]) for k in state if k.startswith("features.")})
    ours = [int(k.split(".")[0]) for k in build_encoder().state_dict() if k.endswith("weight")][1:]
    for their, our in zip(theirs, ours, strict=False):
        for part in ("weight", "bias"):
            if f"features.{their}.{part}" in state:
                converted[f"{our}.{part}"] = state[f"features.{their}.{part}"]
    return converted


def _widths(state: State, path: Path, prefix: str = "") -> Widths:
    """Channels at the four strides, from the encoder's tensors."""
    keys = [prefix + key for key in FIRST]
    for key in keys:
        if key not in state or state[key].ndim != 4:
            raise ValueError(
                f"{path}: {key} is {_described(state.get(key))}; expected the weights (outputs, "
                "inputs, 3, 3) of a convolution of VGG-19"
            )
    a, b, c, d = (state[key].shape[0] for key in keys)
    return a, b, c, d


def _filled(net: nn.Sequential, state: State, path: Path, prefix: str = "") -> nn.Sequential:
    """The network with a state's tensors; further ones, as of VGG's later layers, are left."""
    wanted = net.state_dict()
    for key, value in wanted.items():
        found = state.get(prefix + key)
        if found is None or found.shape != value.shape:
            raise ValueError(
                f"{path}: {prefix}{key} is {_described(found)}; expected {tuple(value.shape)}"
            )
        if not torch.isfinite(found).all():
            raise ValueError(f"{path}: {prefix}{key} holds numbers that are not finite")
    net.load_state_dict({key: state[prefix + key] for key in wanted})
    return net


def _described(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))
