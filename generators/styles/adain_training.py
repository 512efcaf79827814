"""Learn the weights of the neural style transfer: a decoder, and an encoder in place of VGG.

Huang, Belongie, ICCV 2017 (arXiv 1703.06868), section 6.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from generators.styles.adain import SIDE, adapt, fast_bfloat16, mean_std, stages
from segswap import geometry
from segswap.files.images import ImageError, read_image

_TRIES = 20
# Photographs whose features the encoder's channels are scaled by.
_SCALED_BY = 16
_LEAST_SHARE = 0.1
# Steps of rising learning rate: large ones at the start tear the colours' way through apart.
_WARM_UP = 100
Row = dict[str, float]


@dataclass(frozen=True)
class Course:
    """How the weights are learned.

    Attributes:
        encoder_steps: in which both learn to reproduce images; 0 for a given encoder.
        steps: in which the decoder learns styles.
        batch: photographs a step, and style pictures.
        lr: Adam's highest rate; it rises at the start of both parts and falls to 0 in the second.
        style_weight: of the style loss, lambda in equation 11.
        every: steps between checkpoints.
        log_every: steps that one row of the history averages.
    """

    encoder_steps: int
    steps: int
    batch: int
    lr: float
    style_weight: float
    every: int
    log_every: int = 10


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Sample n: a photograph's and a style picture's crop, uint8 (3, crop, crop); from (seed, n).

    Both are cut at random from the images as they are when they are restyled: SIDE pixels, here the
    shorter side.
    """

    def __init__(self, images: list[Path], styles: list[Path], crop: int, seed: int) -> None:
        self._images, self._styles, self._crop, self._seed = images, styles, crop, seed

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self._seed, n])
        return self._draw(self._images, rng), self._draw(self._styles, rng)

    def _draw(self, paths: list[Path], rng: np.random.Generator) -> Tensor:
        for _ in range(_TRIES):
            try:
                image = read_image(paths[rng.integers(len(paths))])
            except ImageError as error:
                failed = error
                continue
            return self._cut(image, rng)
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


class StyleTrainer:
    """Trains encoder and decoder along a course; its state is all that resuming needs.

    Attributes:
        step: steps done, of both parts.
        history: means of the losses, a row each `course.log_every` steps.
        stop: set from outside, ends `run` after the current step.
    """

    def __init__(
        self, encoder: nn.Sequential, decoder: nn.Sequential, course: Course, crops: Crops,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.encoder, self.decoder = encoder.to(device), decoder.to(device)
        self.course = course
        self.step = 0
        self.history: list[Row] = []
        self.stop = False
        self._crops = crops
        self._device = device
        self._rows: list[Row] = []
        self._optimizer: torch.optim.Optimizer
        if self.styling:
            self._normalise()
        self._choose_optimizer()

    @property
    def total(self) -> int:
        """Steps of the whole course."""
        return self.course.encoder_steps + self.course.steps

    @property
    def styling(self) -> bool:
        """Whether the encoder is finished, and the decoder learns styles."""
        return self.step >= self.course.encoder_steps

    def run(
        self, workers: int, report: Callable[[Row], None], checkpoint: Callable[[], None]
    ) -> bool:
        """Train to the end, or until `stop`.

        Args:
            workers: processes that load images; 0 loads in this one. They change no result.
            report: called with every new row of the history.
            checkpoint: called each `course.every` steps, and at the end.

        Returns:
            Whether the course is finished.

        Raises:
            RuntimeError: a loss is not finite, or images cannot be read.
        """
        loader = DataLoader(
            self._crops, batch_size=self.course.batch, num_workers=workers,
            sampler=range(self.step * self.course.batch, self.total * self.course.batch),
            worker_init_fn=_start_worker, generator=torch.Generator(),
        )  # fmt: skip
        for photographs, styles in loader:
            self._rows.append(self._learn(self._tensor(photographs), self._tensor(styles)))
            self.step += 1
            if self.step == self.course.encoder_steps:
                self._begin_styles()
            if len(self._rows) == self.course.log_every or self.step == self.total:
                self._log()
                report(self.history[-1])
            if self.stop:
                break
            if self.step % self.course.every == 0 and self.step < self.total:
                checkpoint()
        checkpoint()
        return self.step == self.total

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run follows from."""
        return {
            "step": self.step, "history": self.history, "rows": self._rows,
            "encoder": self.encoder.state_dict(), "decoder": self.decoder.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.step, self.history, self._rows = state["step"], state["history"], state["rows"]
        self._choose_optimizer()
        self.encoder.load_state_dict(state["encoder"])
        self.decoder.load_state_dict(state["decoder"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _begin_styles(self) -> None:
        scales = self._normalise()
        with torch.no_grad():
            # The decoder's input is divided by them from now on.
            next(self.decoder.parameters()).mul_(scales[:, None, None])
        self._choose_optimizer()

    def _normalise(self) -> Tensor:
        images = torch.stack([self._crops[n][0] for n in range(_SCALED_BY)])
        return normalise(self.encoder, self._tensor(images))

    def _choose_optimizer(self) -> None:
        trained = [self.decoder] if self.styling else [self.encoder, self.decoder]
        self.encoder.requires_grad_(not self.styling)
        parameters = [p for net in trained for p in net.parameters()]
        self._optimizer = torch.optim.Adam(parameters, lr=self.course.lr)

    def _learn(self, photographs: Tensor, styles: Tensor) -> Row:
        """One step."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=fast_bfloat16(self._device)):
            losses = self._style(photographs, styles) if self.styling else self._copy(photographs)
        weights = {"style": self.course.style_weight}
        loss = torch.stack([weights.get(n, 1.0) * value for n, value in losses.items()]).sum()
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} at step {self.step}; lower --lr and start anew"
            )
        self._optimizer.param_groups[0]["lr"] = self.course.lr * self._rate()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def _rate(self) -> float:
        """The learning rate as a share of its highest: each part warms up, the last one fades."""
        done = self.step - (self.course.encoder_steps if self.styling else 0)
        left = (self.total - self.step) / self.course.steps
        return min((done + 1) / _WARM_UP, left, 1.0)

    def _copy(self, images: Tensor) -> dict[str, Tensor]:
        return {"copy": F.mse_loss(self.decoder(self.encoder(images)), images)}

    def _style(self, photographs: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """Content and style loss: equations 12 and 13."""
        with torch.no_grad():
            style = [mean_std(features) for features in stages(self.encoder, styles)]
            everything = torch.ones(len(photographs), device=self._device)
            wanted = adapt(self.encoder(photographs), style[-1], everything)
        made = stages(self.encoder, self.decoder(wanted))
        parts = [F.mse_loss(mean_std(a), b) for a, b in zip(made, style, strict=True)]
        # The mean is over means and deviations together: half of their sum.
        style_loss = 2 * torch.stack(parts).sum()
        return {"content": F.mse_loss(made[-1].float(), wanted.float()), "style": style_loss}

    def _log(self) -> None:
        names = self._rows[-1].keys()
        means = {n: float(np.mean([row[n] for row in self._rows if n in row])) for n in names}
        self.history.append({"step": self.step, **means})
        self._rows = []

    def _tensor(self, images: Tensor) -> Tensor:
        images = images.to(self._device, torch.float32, memory_format=torch.channels_last)
        return images / 255


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


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # An interrupt of the whole process group is the trainer's affair: it still writes a checkpoint.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
