"""What SEAM is taught by: equations 3 to 7 of the paper, and what its release adds to them."""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.networks.classes.network import soft_margin
from generators.networks.classes.seam import SEAM

_TINY = 1e-5
_MINED = 0.2  # share of the places whose differences count
_LOWEST = 4  # a quarter of the places are to show nothing


class SEAMLoss(nn.Module):
    """The sum of the terms of an image o and of a smaller one, t = A(o).

    cls: soft margin of both; er: activation maps that differ between A of o's and t's; ecr: refined
    maps that differ from the other view's activation maps; rvmin: refined maps where a quarter of
    the image should be empty. ecr and rvmin teach the pixel correlation module alone.
    """

    def __init__(self, network: SEAM, rescale: float = 0.3, without: Collection[str] = ()) -> None:
        """
        Args:
            network: what learns.
            rescale: of A.
            without: what is left out, of "er" and "mining"; "pcm" is where the network has none.
        """
        super().__init__()
        self.network, self.rescale = network, rescale
        self.equivariant, self.mined = "er" not in without, "mining" not in without
        self.terms = ("cls", *(("er",) if self.equivariant else ()),
                      *(("ecr", "rvmin") if network.pcm is not None else ()))  # fmt: skip

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms and the loss, of images (B, 3, H, W) in [0, 1] and labels (B, C)."""
        smaller = F.interpolate(
            images, scale_factor=self.rescale, mode="bilinear", align_corners=True
        )
        size = smaller.shape[-2:]
        (maps_o, refined_o), (maps_t, refined_t) = self.network(images), self.network(smaller)
        terms = {"cls": (classified(maps_o, labels) + classified(maps_t, labels)) / 2}
        with_background = F.pad(labels, (1, 0), value=1.0)[:, :, None, None]
        one = rescaled(scaled(maps_o), size) * with_background
        other = scaled(maps_t) * with_background
        if self.equivariant:
            terms["er"] = difference(one[:, 1:], other[:, 1:])
        if refined_o is not None and refined_t is not None:
            small_o = rescaled(scaled(refined_o), size) * with_background
            small_t = scaled(refined_t) * with_background
            terms["ecr"] = self._apart(one_hot(other), small_o) + self._apart(one_hot(one), small_t)
            shown = [(maps * with_background)[:, 1:] for maps in (refined_o, refined_t)]
            terms["rvmin"] = (lowest(shown[0]) + lowest(shown[1])) / 2
        return terms | {"loss": torch.stack(list(terms.values())).sum()}

    def _apart(self, told: Tensor, found: Tensor) -> Tensor:
        """How far refined maps are from what they are told, where that is most."""
        apart = (told.detach() - found).abs().flatten(1)
        if self.mined:
            apart = apart.topk(int(apart.shape[1] * _MINED), dim=1).values
        return apart.mean()


def classified(maps: Tensor, labels: Tensor) -> Tensor:
    """The soft margin loss of the means of maps (B, C + 1, H, W)."""
    return soft_margin(maps[:, 1:].mean(dim=(2, 3)), labels)


def difference(one: Tensor, other: Tensor) -> Tensor:
    """The mean of |one - other|."""
    return (one - other).abs().mean()


def rescaled(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """A: maps at another size."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def scaled(maps: Tensor) -> Tensor:
    """Each map (B, C, H, W) from its least value, at 0, to its largest, just below 1, of what is
    over 0; a constant one is 0.
    """
    found = F.relu(maps)
    low, high = found.amin(dim=(2, 3), keepdim=True), found.amax(dim=(2, 3), keepdim=True)
    return F.relu(found - low - _TINY) / (high - low + _TINY)


def one_hot(maps: Tensor) -> Tensor:
    """Maps (B, C + 1, H, W) in [0, 1] of which only the largest class at a place is kept, the
    background what is left.
    """
    largest = maps[:, 1:].amax(dim=1, keepdim=True)
    return torch.cat([1 - largest, maps[:, 1:] * (maps[:, 1:] == largest)], dim=1)


def lowest(maps: Tensor) -> Tensor:
    """The mean over the quarter of places where the largest of maps (B, C, H, W) is least."""
    top = maps.amax(dim=1).flatten(1)
    return F.relu(top.topk(top.shape[1] // _LOWEST, dim=1, largest=False).values).mean()
