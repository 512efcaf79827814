"""The page of a search: the detail, the images that show it, and which point is where."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.pages.pictures import data_url, outline
from pipelines.pages.render import render
from segswap.files.images import ImageError, encode_jpeg, read_image
from segswap.geometry import Box
from segswap.models.prediction import enlarge
from segswap.search.retrieval import Hit, Query

Image = NDArray[np.uint8]
_HEIGHT = 300  # px, of the pictures in a card
_WIDEST = 560
_POINTS = 10  # joined in a card
_GAP = 10


def hits_page(
    query: Query, name: str, hits: Sequence[Hit], searched: int,
    changed: Sequence[str] = (),
) -> str:  # fmt: skip
    """A whole page, its pictures inside it.

    Args:
        query: what was looked for.
        name: of its image.
        hits: best first.
        searched: how many images the collection has.
        changed: images that would be among the hits, but are others now than in the index.
    """
    left, top, right, bottom = query.outline
    detail = _Picture(query.image, (left, top, right, bottom))
    whole = _Picture(query.image)
    return render(
        "hits.html", name=Path(name).name, path=name, whole=whole, detail=detail,
        box=whole.rectangle((left, top, right, bottom)), searched=searched,
        found=sum(hit.box is not None for hit in hits), cards=[_card(hit, detail) for hit in hits],
        changed=changed,
    )  # fmt: skip


class _Picture:
    """An image, or a part of it, as it is shown: a JPEG of `width` x `height` at `url`."""

    def __init__(self, image: Image, part: Box | None = None) -> None:
        rows, columns = image.shape[:2]
        left, top, right, bottom = part or (0.0, 0.0, float(columns), float(rows))
        edges = [int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))]
        shown = image[edges[1] : edges[3], edges[0] : edges[2]]
        self._corner = np.array(edges[:2], float)
        self._scale = min(_HEIGHT / shown.shape[0], _WIDEST / shown.shape[1])
        self.width = max(1, round(shown.shape[1] * self._scale))
        self.height = max(1, round(shown.shape[0] * self._scale))
        smaller = cv2.INTER_AREA if self._scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(shown, (self.width, self.height), interpolation=smaller)
        self.url = data_url(encode_jpeg(resized, 85))

    def place(self, points: NDArray) -> NDArray[np.float64]:
        """Where points of the image (N, 2), in its pixels, are shown."""
        return (np.asarray(points, float).reshape(-1, 2) - self._corner) * self._scale

    def rectangle(self, box: Box) -> list[float]:
        """Left, top, width and height of a box of the image, in its pixels, as it is shown."""
        (x, y), (right, bottom) = self.place(np.array(box))
        return np.round([x, y, right - x, bottom - y], 1).tolist()

    def outline(self, mask: NDArray[np.float32]) -> str:
        """A mask on a grid over the image, cut at 0.5, as an SVG path."""
        region = enlarge(mask, self.width, self.height) > 0.5
        return outline(region, self.width, self.height)


def _card(hit: Hit, detail: _Picture) -> dict[str, Any]:
    """What hits.html shows of a hit."""
    name = Path(hit.image).name
    card = {
        "folder": hit.image.removesuffix(name),
        "name": name,
        "score": f"{hit.score:.1f}",
        "found": hit.box is not None,
    }
    try:
        shown = _Picture(read_image(hit.image))
    except ImageError as error:  # it was there when the index was made
        return card | {"unreadable": str(error)}
    offset = detail.width + _GAP
    joined = _joined(hit, detail, shown, offset) if hit.box else []
    seen = f"what was found of it outlined, {len(joined)} points joined" if hit.box else "not found"
    return card | {
        "unreadable": "",
        "text": f"left the detail, right {name}: {seen}",
        "offset": offset,
        "shown": shown,
        "region": shown.outline(hit.mask) if hit.mask is not None and hit.box else "",
        "box": shown.rectangle(hit.box) if hit.box else None,
        "joined": joined,
    }


def _joined(hit: Hit, detail: _Picture, shown: _Picture, offset: int) -> list[list[float]]:
    """Some of the surest points, apart from each other: x, y in the detail, x, y in the image."""
    start = detail.place(hit.source_points)
    end = shown.place(hit.target_points) + np.array([offset, 0])
    chosen: list[int] = []
    apart = 0.12 * np.hypot(detail.width, detail.height)
    for number, point in enumerate(start):
        if all(np.hypot(*(point - start[other])) >= apart for other in chosen):
            chosen.append(number)
        if len(chosen) == _POINTS:
            break
    return np.hstack([start, end])[chosen].round(1).tolist()
