"""Links: what every matched pair of a collection's images shares, cell by cell."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.discovery.settings import RETURN_CELLS
from segswap.files.storage import PathLike, read_bytes, write_atomically
from segswap.models.prediction import Prediction, cycle_offsets

LEAST_SHARE = 0.01  # of the cells of each image; pairs that share less are no partners
PARTNERS = 5  # that each image keeps


@dataclass(frozen=True)
class Links:
    """Pairs of a collection's images and what they share, all on one grid of h x w cells.

    Half precision places a match within 0.01 cells of a grid of 40; a pair takes 12 bytes a cell.

    Attributes:
        pairs: int32 (P, 2), numbers of source and target in the collection, source below target.
        mirrored: bool (P,), whether the pair matched better with its target flipped left to right.
            Positions and masks are of the images as they are.
        to_target: float16 (P, h, w, 2), for each source cell's centre the normalised (x, y) in the
            target; NaN where there is no answer.
        to_source: float16 (P, h, w, 2), the same for target cells.
        source_mask: float16 (P, h, w) in [0, 1], what `consistent` leaves of the masks.
        target_mask: float16 (P, h, w).
    """

    pairs: NDArray[np.int32]
    mirrored: NDArray[np.bool_]
    to_target: NDArray[np.float16]
    to_source: NDArray[np.float16]
    source_mask: NDArray[np.float16]
    target_mask: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, chosen: NDArray[np.intp] | slice) -> "Links":
        return Links(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def save(self, path: PathLike) -> None:
        """Write an .npz file, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.__dict__)  # the arrays of a dataclass, none of them objects
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: PathLike) -> "Links":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as arrays:
                links = cls(**{field.name: arrays[field.name] for field in fields(cls)})
            grid = (len(links.pairs), *links.source_mask.shape[1:])
            shapes = [(*grid, 2)] * 2 + [grid] * 2
            found = [getattr(links, field.name).shape for field in fields(cls)[2:]]
            if links.pairs.shape != (grid[0], 2) or len(grid) != 3 or found != shapes:
                raise ValueError(f"pairs {links.pairs.shape}, grids {found}")
            for (name, array), kind in zip(vars(links).items(), "ibffff", strict=True):
                if array.dtype.kind != kind:
                    raise ValueError(f"{name} holds {array.dtype}")
        except Exception as error:  # unzipping and parsing raise many kinds
            raise ValueError(f"{path} cannot be read as links: {error}; delete it") from error
        return links

    @classmethod
    def joined(cls, parts: Sequence["Links"]) -> "Links":
        """All pairs of several links, one after another.

        Raises:
            ValueError: there are none, or their grids differ.
        """
        grids = {part.source_mask.shape[1:] for part in parts}
        if len(grids) != 1:
            raise ValueError(f"expected links on one grid of cells, got grids {sorted(grids)}")
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def link(
    pairs: Sequence[tuple[int, int]],
    plain: Sequence[Prediction],
    mirrored: Sequence[Prediction] | None = None,
    tolerance: float = RETURN_CELLS,
) -> Links:
    """Links of matched pairs.

    Args:
        pairs: numbers of source and target.
        plain: what a method says of them.
        mirrored: what it says of the same pairs with the target flipped left to right; a pair keeps
            the better of the two, by the sum of both consistent masks. None: not looked at.
        tolerance: of consistent masks, see `consistent`.

    Raises:
        ValueError: the predictions are on different grids.
    """
    best, flips = [], []
    for number, prediction in enumerate(plain):
        kept, flipped = consistent(prediction, tolerance), False
        if mirrored is not None:
            other = consistent(unmirrored(mirrored[number]), tolerance)
            flipped = _mask_sum(other) > _mask_sum(kept)
            kept = other if flipped else kept
        best.append(kept)
        flips.append(flipped)
    grids = {mask.shape for p in best for mask in (p.source_mask, p.target_mask)}
    if len(grids) > 1:
        raise ValueError(f"expected predictions on one grid of cells, got grids {sorted(grids)}")
    stacked = [
        np.stack([getattr(p, name) for p in best]).astype(np.float16)
        for name in ("to_target", "to_source", "source_mask", "target_mask")
    ]
    return Links(np.array(pairs, np.int32).reshape(-1, 2), np.array(flips, bool), *stacked)


def _mask_sum(prediction: Prediction) -> float:
    return float(prediction.source_mask.sum() + prediction.target_mask.sum())


def unmirrored(prediction: Prediction) -> Prediction:
    """A prediction of a pair whose target was flipped left to right, told of the target as it is.

    Positions in the target are mirrored, x to 1 - x, and the target's own maps flipped along x.
    """
    to_target = geometry.transform_points(geometry.mirroring(), prediction.to_target)
    return Prediction(
        to_target.astype(prediction.to_target.dtype), geometry.mirror(prediction.to_source),
        prediction.source_mask, geometry.mirror(prediction.target_mask), prediction.source_same,
        None if prediction.target_same is None else geometry.mirror(prediction.target_same),
    )  # fmt: skip


def consistent(prediction: Prediction, tolerance: float = RETURN_CELLS) -> Prediction:
    """The prediction with cycle-consistent masks, on the grids of its positions.

    A source cell counts with M^s * M^t at its match, if the way there and back ends at most
    `tolerance` cells from where it began; otherwise with 0. Target cells likewise.
    """
    p = prediction.on_cells()
    there = _returning(p.to_target, p.source_mask, p.to_source, p.target_mask, tolerance)
    back = _returning(p.to_source, p.target_mask, p.to_target, p.source_mask, tolerance)
    return replace(p, source_mask=there, target_mask=back)


def _returning(
    there: NDArray, mask: NDArray, back: NDArray, other_mask: NDArray, tolerance: float
) -> NDArray[np.float32]:
    """The consistent mask (h, w) of the side from which `there` leads to the other side."""
    off = np.linalg.norm(cycle_offsets(there, back), axis=-1)
    # A comparison with NaN, where either way has no answer, is False.
    carried = np.where(off <= tolerance, geometry.sample(other_mask, there), 0)
    return (carried * mask).astype(np.float32)


def sharing(links: Links, least: float = LEAST_SHARE) -> NDArray[np.bool_]:
    """Which pairs have something in common: bool (P,), whether the masks of both images hold at
    least the share `least` of the cells.
    """
    source, target = (mask.mean(axis=(1, 2), dtype=np.float32) for mask in _masks(links))
    return np.minimum(source, target) >= least


def _masks(links: Links) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    return links.source_mask, links.target_mask


def best_partners(
    links: Links, partners: int = PARTNERS, least: float = LEAST_SHARE
) -> NDArray[np.intp]:
    """Which pairs are kept: those that are among the best of one of their images.

    Args:
        partners: that each image keeps, by the sum of both masks.
        least: share of the cells of each image that a pair must have in its masks.

    Returns:
        Rising numbers of links.
    """
    shared = sum(mask.sum(axis=(1, 2), dtype=np.float32) for mask in _masks(links))
    enough = sharing(links, least)
    # Best first; of equal ones the first.
    order = np.argsort(-shared, kind="stable")
    taken: dict[int, int] = {}
    kept = []
    for number in order[enough[order]].tolist():
        pair = links.pairs[number].tolist()
        if any(taken.get(image, 0) < partners for image in pair):
            kept.append(number)
        for image in pair:
            taken[image] = taken.get(image, 0) + 1
    return np.sort(np.array(kept, np.intp))
