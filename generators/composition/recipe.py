"""The numbers of a composition, and how its images look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generators.styles.style import Styler

BLEND_NAMES = ("poisson", "poisson-mixed", "feather", "paste")


@dataclass(frozen=True)
class Recipe:
    """Numbers of a composition."""

    objects: int = 1
    """Objects copied out of one source image, 1 to 4, of different categories."""
    scale: tuple[float, float] = (0.7, 1.0)
    """Limits of the independent scales of x and y."""
    rotation: float = 15.0
    """Largest rotation to either side, degrees."""
    ratio: tuple[float, float] = (0.2, 1.0)
    """Limits of the object's size, as a share of the box that it is put into."""
    ratio_steps: int = 10
    """How many sizes there are between the limits."""
    crop: float = 0.2
    """Probability that the source is cropped tight at the side nearest to the object."""
    dilation: int = 20
    """Margin copied around a segment, pixels of the source image."""
    min_share: float = 0.01
    """Smallest share of the frame that the shared region must take in both images."""

    def __post_init__(self) -> None:
        expected = {
            "objects": (1 <= self.objects <= 4, "1 to 4"),
            "scale": (0 < self.scale[0] <= self.scale[1], "two rising positive numbers"),
            "rotation": (0 <= self.rotation <= 180, "0 to 180"),
            "ratio": (0 < self.ratio[0] <= self.ratio[1] <= 1, "two rising shares"),
            "ratio_steps": (self.ratio_steps >= 1, "at least 1"),
            "crop": (0 <= self.crop <= 1, "a probability"),
            "dilation": (self.dilation >= 0, "at least 0"),
            "min_share": (0 <= self.min_share <= 1, "a share"),
        }
        for name, (holds, what) in expected.items():
            if not holds:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {what}")


ONE_OBJECT = Recipe()
TWO_OBJECTS = Recipe(objects=2, ratio=(0.5, 1.0), crop=0.0)


@dataclass(frozen=True)
class Look:
    """Size and appearance of the pairs.

    Attributes:
        size: side of all images in pixels.
        fit: how images become square. "squash": both sides are scaled on their own, as published;
            "crop": cut at the longer side, around the objects or the background's middle; "pad":
            black at the shorter side, where no object is put.
        blends: weight of each way of blending, by its name in BLENDS.
        styler: restyles both images of every pair, or None.
    """

    size: int = 480
    fit: str = "squash"
    blends: Mapping[str, float] = field(default_factory=lambda: {"poisson": 1.0})
    styler: "Styler | None" = None
