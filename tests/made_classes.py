"""What tests of SEAM and SC-CAM share: a small trunk, and pictures of two classes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import textured
from torch import Tensor, nn

from generators.networks.classes import predictor
from generators.networks.classes.trunk import Trunk

CLASSES = ("disc", "square")


class Tiny(nn.Module):
    """A few layers with maps of stride 4, 8 and 8, the first of which tells yellow from blue."""

    channels = 8, 8, 16
    frozen = ("first",)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, 4)
        with torch.no_grad():
            for row, colour in enumerate(([1.0, 1, -2], [-1.0, -1, 2])):
                self.first.weight[row] = torch.tensor(colour)[:, None, None] / 16
        self.bn = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, 2, 1)
        self.last = nn.Conv2d(16, 16, 1)
        with torch.no_grad():
            self.last.weight[:2] = torch.eye(16)[:2, :, None, None]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one = self.bn(self.first(images)).relu()
        two = self.second(one).relu()
        both = torch.cat([nn.functional.interpolate(one, two.shape[-2:]), two], dim=1)
        return one, two, 8 * self.last(both).relu()


def tiny_trunk(seed: int = 0) -> Trunk:
    """A trunk with the same random weights each time."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    net = Tiny()
    torch.set_rng_state(state)
    return Trunk(net, (0.5,) * 3, (0.5,) * 3)


def use_tiny_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs that take no time: every trunk is a small one."""
    monkeypatch.setattr(predictor, "build_trunk", lambda name, weights=None: tiny_trunk())


def picture(seed: int, shown: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A dark texture with a yellow disc, a blue square, or both: BGR, and masks by class."""
    rng = np.random.default_rng(seed)
    image = (textured(80, 96, seed) * 0.4).astype(np.uint8)
    masks = {}
    for name in shown:
        x, y = int(rng.integers(14, 34)) + 48 * (name == "square"), int(rng.integers(18, 62))
        mask = np.zeros((80, 96), np.uint8)
        if name == "disc":
            cv2.circle(mask, (x, y), 14, 255, -1)
        else:
            cv2.rectangle(mask, (x - 13, y - 13), (x + 13, y + 13), 255, -1)
        image[mask > 0] = (60, 220, 240) if name == "disc" else (230, 120, 40)
        masks[name] = mask > 0
    return image, masks


def shown_in(number: int) -> tuple[str, ...]:
    """The classes in a picture with a number: one, the other, both."""
    return (CLASSES[:1], CLASSES[1:], CLASSES)[number % 3]


def write_folders(root: Path, count: int = 12) -> Path:
    """A folder a class; a picture of both lies in both."""
    for number in range(count):
        image, _ = picture(number, shown_in(number))
        for name in shown_in(number):
            (root / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name / f"{number:02}.png"), image)
    return root
