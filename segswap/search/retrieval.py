"""Find a detail in a collection: which images show it, and where."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap import geometry
from segswap.files.images import pixel_hash
from segswap.geometry import Box
from segswap.matchers.base import Matches
from segswap.matchers.encoding import Encoding
from segswap.matchers.sampling import sample
from segswap.models.model import ImageLike, Model, as_array, load
from segswap.models.score import cell_scores, pooled, self_consistent
from segswap.search.index import Index
from segswap.search.settings import SHORTLIST

LOG = logging.getLogger("segswap")
CHANGED = "left out %d hits whose files have changed since they were indexed: %s; run segswap-index"
_COMPARED = 25  # times as many are compared cell by cell
_CONTEXT = 2.0  # side of what is shown of the query around a box, in its longer sides
_AT_ONCE = 4  # images compared at a time
_SURE = 0.25  # score of a cell from which its match is told


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        image: uint8 (H, W, 3).
        box: the detail in it; None for the whole image.
    """

    image: NDArray[np.uint8]
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.box is None:
            return
        height, width = self.image.shape[:2]
        left, top, right, bottom = self.box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"the box {self.box} does not lie in the query, which is {width} x {height} px; "
                "expected left, top, right, bottom with 0 <= left < right <= width and "
                "0 <= top < bottom <= height"
            )

    @property
    def outline(self) -> Box:
        """The box, or the whole image's."""
        return self.box or (0.0, 0.0, float(self.image.shape[1]), float(self.image.shape[0]))

    @cached_property
    def pixel_hash(self) -> str:
        """See `segswap.files.images.pixel_hash`."""
        return pixel_hash(self.image)


@dataclass(frozen=True)
class Hit:
    """What was found in one image of a collection.

    Attributes:
        number: of the image in the collection.
        image: its path.
        score: how much of the detail was found; comparable among hits of one query.
        box: of the found region, in the image's pixels; None where nothing was found.
        mask: float32 (h, w) in [0, 1], the found region on a grid over the image; None where the
            method finds none.
        source_points, target_points: float32 (N, 2), corresponding points (x, y) in pixels of the
            query and of the image, the surest first.
    """

    number: int
    image: str
    score: float
    box: Box | None
    mask: NDArray[np.float32] | None
    source_points: NDArray[np.float32]
    target_points: NDArray[np.float32]


class Retriever(Protocol):
    """Ranks the images of a collection for a query.

    Attributes:
        images: their paths.
    """

    @property
    def images(self) -> Sequence[str]: ...

    def search(self, query: Query, among: Sequence[int] | None = None) -> list[Hit]:
        """Hits, best first; of equal ones the lower number.

        The query's own image, one with the same pixels, is left out.

        Args:
            among: numbers of the images to look at; None for all.
        """
        ...


class ModelRetriever:
    """Ranks by S(s, t) of a matcher (Shen et al., arXiv 2110.15904, section 4).

    Of a query with a box, a square around it is shown to the matcher, and the cells within the box
    count, as much as they find themselves when the query is matched with itself.

    Args:
        model: what the index was made with.
        index: the collection.
        mirrored: look for the mirrored detail too, as prints show it of a painting; the better of
            both counts.
        progress: told how many more images were matched.

    Raises:
        ValueError: another model made the index.
    """

    def __init__(
        self, model: Model, index: Index, mirrored: bool = False,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:  # fmt: skip
        index.check_model(model)
        self.model, self.index, self.mirrored = model, index, mirrored
        self._progress = progress

    @property
    def images(self) -> Sequence[str]:
        """Paths of the collection."""
        return self.index.images

    def search(self, query: Query, among: Sequence[int] | None = None) -> list[Hit]:
        """See `Retriever.search`."""
        numbers = range(len(self.index)) if among is None else among
        views = [self._view(query, flip) for flip in (False, True)[: 1 + self.mirrored]]
        same = set(self.index.with_pixels(query.pixel_hash).tolist())
        wanted = [number for number in numbers if number not in same]
        hits: list[Hit] = []
        at_once = self.model.pairs_at_once
        for first in range(0, len(wanted), at_once):
            part = wanted[first : first + at_once]
            found = zip(*(self._look(view, part) for view in views), strict=True)
            hits += [max(each, key=lambda hit: hit.score) for each in found]
            self._progress(len(part))
        return sorted(hits, key=lambda hit: (-hit.score, hit.number))

    def similar(self, query: Query, count: int) -> tuple[list[int], list[float]]:
        """Numbers of the images whose pooled features are most like the detail's, best first, and
        the cosines; the query's own image left out.
        """
        view = self._view(query, False)
        descriptor = pooled(self.model.matcher, view.query, view.inside)[0].cpu().numpy()
        same = set(self.index.with_pixels(query.pixel_hash).tolist())
        numbers, cosines = self.index.nearest(descriptor, count + len(same))
        found = [each for each in zip(numbers, cosines, strict=True) if each[0] not in same]
        return [int(n) for n, _ in found[:count]], [float(c) for _, c in found[:count]]

    @torch.inference_mode()
    def shortlist(self, query: Query, count: int) -> list[int]:
        """Numbers of the images that are worth being matched, best first: those in which the cells
        of the detail have the most similar cells, wherever these lie.

        That takes a hundredth of the time of matching. In collections of more than 25 times
        `count` images only so many are compared, those that are the most similar as wholes.
        """
        if len(self.index) > _COMPARED * count:
            numbers = self.similar(query, _COMPARED * count)[0]
        else:
            same = set(self.index.with_pixels(query.pixel_hash).tolist())
            numbers = [number for number in range(len(self.index)) if number not in same]
        views = [self._view(query, flip) for flip in (False, True)[: 1 + self.mirrored]]
        own = self.model.matcher.compared(views[0].query)
        likeness: list[Tensor] = []
        for first in range(0, len(numbers), _AT_ONCE):
            part = numbers[first : first + _AT_ONCE]
            cells = self.index.compared(part, like=own).flatten(2)
            found = [self._likeness(view, cells.to(view.weight)) for view in views]
            likeness.append(torch.stack(found).amax(0).cpu())
        if not likeness:
            return []
        order = torch.cat(likeness).argsort(descending=True, stable=True)
        return [numbers[at] for at in order[:count].tolist()]

    def _likeness(self, view: "_View", cells: Tensor) -> Tensor:
        """Sum over the detail's cells of the cosine with the most similar of (B, D, n): (B)."""
        inside = view.inside[0].flatten() > 0
        own = self.model.matcher.compared(view.query)[0].flatten(1)[:, inside]
        best = torch.matmul(own.T, cells).amax(2)
        return (best * view.weight[0].flatten()[inside]).sum(1)

    @torch.inference_mode()
    def _view(self, query: Query, flip: bool) -> "_View":
        shown = _shown(query, flip)
        size = self.model.settings["size"]
        encoded = self.model.encode([geometry.warp(query.image, shown, size, size)])
        compared = self.model.matcher.compared(encoded)
        rows, columns = compared.shape[2:]
        centres = geometry.transform_points(
            np.linalg.inv(shown), geometry.cell_centres(rows, columns)
        )
        centres = centres * query.image.shape[1::-1]
        left, top, right, bottom = query.outline
        inside = ((centres >= (left, top)) & (centres <= (right, bottom))).all(-1)
        kept = torch.from_numpy(inside)[None].to(compared)
        weight = self_consistent(self.model.matcher, encoded, kept)
        return _View(encoded, kept, weight, centres.astype(np.float32))

    @torch.inference_mode()
    def _look(self, view: "_View", numbers: Sequence[int]) -> Iterator[Hit]:
        targets = self.index.encoding(numbers, like=view.query).to(self.model.device)
        sources = view.query.repeated(len(numbers))
        matches = self.model.matcher.match(sources, targets).float()
        scores = cell_scores(matches, view.weight)
        masks = _regions(matches, view.inside)
        arrays = [a.cpu().numpy() for a in (scores, matches.source.positions, masks)]
        for number, cells, to_target, mask in zip(numbers, *arrays, strict=True):
            yield self._hit(number, view, cells, to_target, mask)

    def _hit(
        self, number: int, view: "_View", scores: NDArray, to_target: NDArray, mask: NDArray
    ) -> Hit:
        size = self.index.sizes[number]
        order = np.argsort(-scores, axis=None, kind="stable")
        order = order[scores.ravel()[order] > _SURE]
        return Hit(
            number, self.index.images[number], float(scores.sum()),
            box_of(mask, int(size[0]), int(size[1])), mask,
            view.centres.reshape(-1, 2)[order],
            (to_target.reshape(-1, 2)[order] * size).astype(np.float32),
        )  # fmt: skip


@dataclass(frozen=True)
class _View:
    """What the matcher sees of a query: its encoding; which cells lie in the box, and what they
    count, (1, h, w); the cells' centres in the query's pixels, (h, w, 2).
    """

    query: Encoding
    inside: Tensor
    weight: Tensor
    centres: NDArray[np.float32]


def retrieve(
    index: Index | str, query: ImageLike, box: Box | None = None, *, model: Model | None = None,
    top: int = 20, shortlist: int = SHORTLIST, mirrored: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    changed: Callable[[str], None] = lambda image: LOG.warning(CHANGED, 1, image),
) -> list[Hit]:  # fmt: skip
    """The images of a collection that show a detail, best first.

    Args:
        index: what segswap-index made, or its folder.
        query: a path, uint8 array (H, W[, 3]) or PIL image. An image of the collection with the
            same pixels is left out.
        box: the detail: left, top, right, bottom in the query's pixels; None for all of it.
        model: the one that made the index; by default it is loaded.
        top: most hits.
        shortlist: in a larger collection than this, only so many images are matched; see
            `ModelRetriever.shortlist`.
        mirrored: look for the mirrored detail too, in twice the time.
        progress: told how many more images were matched.
        changed: told of images that would be hits, but whose files hold other images now than when
            they were indexed; by default it warns.

    Raises:
        ValueError: the index, the query, the box or a number cannot be used, or another model made
            the index.
        RuntimeError: the hub with the model cannot be reached.
    """
    if top < 1 or shortlist < 1:
        raise ValueError(f"top is {top} and shortlist {shortlist}; expected at least 1")
    opened = index if isinstance(index, Index) else Index.open(index)
    asked = Query(as_array(query, "query"), box)
    chosen = model or load(opened.settings["model"])
    retriever = ModelRetriever(chosen, opened, mirrored, progress)
    among = retriever.shortlist(asked, shortlist) if len(opened) > shortlist else None
    hits: list[Hit] = []
    for hit in retriever.search(asked, among)[: 2 * top]:
        if len(hits) == top:
            break
        if opened.changed(hit.number):
            changed(hit.image)
        else:
            hits.append(hit)
    return hits


def box_of(mask: NDArray[np.float32], width: int, height: int) -> Box | None:
    """The box around the largest connected part of a mask on a grid, cut at 0.5, in pixels of an
    image of this size; None where nothing reaches that.
    """
    count, _, stats, _ = cv2.connectedComponentsWithStats((mask > 0.5).astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, columns, rows = (int(value) for value in stats[largest, :4])
    x, y = width / mask.shape[1], height / mask.shape[0]
    return left * x, top * y, (left + columns) * x, (top + rows) * y


def _regions(matches: Matches, inside: Tensor) -> Tensor:
    """The found regions of the targets (B, h', w'): what is the very same thing as in the detail.

    Args:
        inside: (1, h, w), which source cells belong to the detail.
    """
    source, target = matches.source.same() * inside, matches.target
    return target.same() * sample(source[:, None], target.positions)[:, 0]


def _shown(query: Query, flip: bool) -> NDArray[np.float64]:
    """The affine map from the query's normalised coordinates to those of what the matcher sees."""
    flipped = geometry.mirroring() if flip else np.eye(3)
    if query.box is None:
        return flipped
    height, width = query.image.shape[:2]
    left, top, right, bottom = query.box
    longer = max(right - left, bottom - top)
    side = max(longer, min(_CONTEXT * longer, max(width, height)))
    corner = (left + right - side) / 2, (top + bottom - side) / 2
    return (
        flipped @ geometry.scaling(1 / side, 1 / side)
        @ geometry.translation(-corner[0], -corner[1]) @ geometry.scaling(width, height)
    )  # fmt: skip
