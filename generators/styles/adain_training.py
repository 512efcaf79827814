"""Learn the weights of the neural style transfer: a decoder, and an encoder in place of VGG.

Huang, Belongie, ICCV 2017 (arXiv 1703.06868), section 6.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from generators.styles import SIDE
from generators.styles.adain import adapt, mean_std, stages
from generators.styles.adain_weights import OWN
from segswap import geometry
from segswap.batches.processes import load
from segswap.files.images import ImageError, read_image
from segswap.files.storage import write_atomically
from segswap.training.task import Row, Task

_TRIES = 20
# Photographs whose features the encoder's channels are scaled by.
_SCALED_BY = 16
_LEAST_SHARE = 0.1


class Crops:
    """Sample n: a photograph's and a style picture's crop, uint8 (3, crop, crop); from (seed, n).

    Both are cut at random from the images as they are when they are restyled: SIDE pixels, here the
    shorter side. They are `Samples` of a training.
    """

    def __init__(
        self, images: list[Path], styles: list[Path], crop: int, seed: int, workers: int
    ) -> None:
        """
        Args:
            images, styles: photographs and style pictures.
            crop: side of the crops, pixels.
            seed: seeds what is drawn.
            workers: processes that load images; 0 loads in this one. They change no sample.
        """
        self._images, self._styles, self._crop, self._seed = images, styles, crop, seed
        self._workers = workers

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self._seed, n])
        return self._draw(self._images, rng)[1], self._draw(self._styles, rng)[1]

    def name(self, number: int) -> str:
        """See Samples.name."""
        rng = np.random.default_rng([self._seed, number])
        return f"{self._draw(self._images, rng)[0]} and {self._draw(self._styles, rng)[0]}"

    def batches(
        self, batch: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[list[Tensor]]:
        """See Samples.batches: photographs and style pictures, uint8 (batch, 3, crop, crop)."""
        starts = range((first * ranks + rank) * batch, (last * ranks + rank) * batch, ranks * batch)
        return load(partial(self._joined, batch), starts, self._workers)

    def _joined(self, batch: int, start: int) -> list[Tensor]:
        """The batch whose first sample has this number."""
        crops = [self[number] for number in range(start, start + batch)]
        return [torch.stack(side) for side in zip(*crops, strict=True)]

    def _draw(self, paths: list[Path], rng: np.random.Generator) -> tuple[Path, Tensor]:
        for _ in range(_TRIES):
            path = paths[rng.integers(len(paths))]
            try:
                image = read_image(path)
            except ImageError as error:
                failed = error
                continue
            return path, self._cut(image, rng)
        raise RuntimeError(f"{_TRIES} images after another could not be read, the last: {failed}")

    def _cut(self, image: np.ndarray, rng: np.random.Generator) -> Tensor:
        height, width = image.shape[:2]
        # The crop's side in the image's own pixels.
        side = min(height, width) * self._crop / SIDE
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        matrix = geometry.scaling(width / side, height / side) @ geometry.translation(
            -x / width, -y / height
        )
        crop = geometry.warp(image, matrix, self._crop, self._crop)
        return torch.from_numpy(crop).permute(2, 0, 1)


class Networks(nn.Module):
    """An encoder and a decoder; their weights have the names that OWN gives them."""

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class CopyTask(Task):
    """Encoder and decoder learn together to reproduce photographs; see Task."""

    terms: tuple[str, ...] = ("copy",)

    def __init__(self, networks: Networks, crops: Crops) -> None:
        self.network, self.samples = networks, crops
        self.objective: nn.Module = CopyLoss(networks)
        self._device = next(networks.parameters()).device

    def inputs(self, batch: list[Tensor], number: int) -> tuple[Tensor, ...]:
        """Photographs and style pictures in [0, 1]."""
        return tuple(as_input(images, self._device) for images in batch)

    def save(self, averaged: nn.Module, folder: Path, row: Row) -> None:
        """Nothing: no styles are known yet."""


class StyleTask(CopyTask):
    """The decoder learns to make images of features in any style; see Task.

    The encoder is finished: its channels are brought to one scale over the first photographs.
    """

    terms = ("content", "style")

    def __init__(self, networks: Networks, crops: Crops, style_weight: float, copied: int) -> None:
        """
        Args:
            networks: changed in place.
            crops: the training data.
            style_weight: of the style loss, lambda in equation 11.
            copied: how many batches encoder and decoder have learned to copy, which are not used
                again; 0 for a given encoder and a new decoder.
        """
        super().__init__(networks, crops)
        self.objective = StyleLoss(networks, style_weight)
        self._copied = copied
        networks.encoder.requires_grad_(False)
        photographs = torch.stack([crops[n][0] for n in range(_SCALED_BY)])
        scales = normalise(networks.encoder, as_input(photographs, self._device))
        if copied:
            with torch.no_grad():  # what the decoder knows is divided by them from now on
                next(networks.decoder.parameters()).mul_(scales[:, None, None])

    def first_batch(self, step: int, accumulate: int) -> int:
        """See Task.first_batch."""
        return self._copied + step * accumulate

    def save(self, averaged: nn.Module, folder: Path, row: Row) -> None:
        """Write both networks, as `generators.styles.adain_weights` reads them."""
        weights = {key: value.cpu().contiguous() for key, value in averaged.state_dict().items()}
        write_atomically(folder / OWN, save(weights))


class CopyLoss(nn.Module):
    """Mean squared error of photographs put through encoder and decoder."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, photographs: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """The term, copy, which is the loss, of images (B, 3, H, W) in [0, 1]."""
        made = self.networks.decoder(self.networks.encoder(photographs))
        error = F.mse_loss(made, photographs)
        return {"copy": error, "loss": error}


class StyleLoss(nn.Module):
    """Content and style loss: equations 11 to 13."""

    def __init__(self, networks: Networks, style_weight: float) -> None:
        super().__init__()
        self.networks, self.style_weight = networks, style_weight

    def forward(self, photographs: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """The terms content and style, and the loss, of images (B, 3, H, W) in [0, 1]."""
        encoder, decoder = self.networks.encoder, self.networks.decoder
        with torch.no_grad():
            style = [mean_std(features) for features in stages(encoder, styles)]
            everything = torch.ones(len(photographs), device=photographs.device)
            wanted = adapt(encoder(photographs), style[-1], everything)
        made = stages(encoder, decoder(wanted))
        parts = [F.mse_loss(mean_std(a), b) for a, b in zip(made, style, strict=True)]
        # The mean is over means and deviations together: half of their sum.
        style_loss = 2 * torch.stack(parts).sum()
        content_loss = F.mse_loss(made[-1].float(), wanted.float())
        loss = content_loss + self.style_weight * style_loss
        return {"content": content_loss, "style": style_loss, "loss": loss}


def as_input(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images (B, 3, H, W) as the networks take them, on a device."""
    return images.to(device, torch.float32, memory_format=torch.channels_last) / 255


@torch.no_grad()
def normalise(encoder: nn.Sequential, images: Tensor) -> Tensor:
    """Scale the channels of every convolution to a root mean square of 1 over images, after ReLU.

    As in the "normalised" VGG-19 (Gatys, Ecker, Bethge, CVPR 2016, section 2; there the mean is 1),
    losses at different layers become comparable. Each layer takes back the scaling of the one
    before, so that the network computes the same but for the scales of its last channels.

    Args:
        encoder: changed in place.
        images: (B, 3, H, W) in [0, 1].

    Returns:
        What the last layer's channels were divided by: (C).
    """
    scales = torch.ones(3, device=images.device)
    images = encoder[0](images)
    for layer in encoder[1:]:
        if isinstance(layer, nn.Conv2d):
            layer.weight.mul_(scales[:, None, None])
            sizes = F.relu(layer(images)).square().mean(dim=(0, 2, 3)).sqrt()
            # A channel that hardly ever answers is not blown up.
            scales = sizes.clamp(min=_LEAST_SHARE * sizes.mean().item())
            layer.weight.div_(scales[:, None, None, None])
            assert layer.bias is not None
            layer.bias.div_(scales)
        images = layer(images)
    return scales


def initialise(encoder: nn.Sequential, decoder: nn.Sequential, seed: int) -> None:
    """Draw the weights as He et al. do (arXiv 1502.01852), but let red, green and blue pass.

    The first three channels of every layer carry the colours from one end to the other, so that
    the two networks begin by copying images coarsely. Otherwise colours are learned last.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in (*encoder, *decoder):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            layer.weight.data[:3] = nn.init.dirac_(torch.empty_like(layer.weight))[:3]
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
