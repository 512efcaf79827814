"""The page of a search: the detail, the images that show it, and which point is where."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.pages.gallery import STYLE
from segswap.files.images import ImageError, encode_jpeg, read_image
from segswap.geometry import Box
from segswap.models.prediction import enlarge
from segswap.search.retrieval import Hit, Query

Image = NDArray[np.uint8]
_HEIGHT = 300  # px, of the pictures in a card
_WIDEST = 560
_POINTS = 10  # joined in a card
_GAP = 10


def hits_page(query: Query, name: str, hits: Sequence[Hit], searched: int) -> str:
    """A whole page, its pictures inside it.

    Args:
        query: what was looked for.
        name: of its image.
        hits: best first.
        searched: how many images the collection has.
    """
    left, top, right, bottom = query.outline
    detail = _Picture(query.image, (left, top, right, bottom))
    whole = _Picture(query.image)
    found = sum(hit.box is not None for hit in hits)
    return _PAGE.format(
        style=STYLE + _STYLE, name=_escaped(Path(name).name), path=_escaped(name),
        whole=f'<svg viewBox="0 0 {whole.width} {whole.height}" class="query">'
        f"{whole.image('the query')}{whole.rectangle((left, top, right, bottom))}</svg>",
        note=f"found in {found} of the {len(hits)} best of {searched} images",
        cards="".join(_card(rank, hit, detail) for rank, hit in enumerate(hits, 1))
        or "<p>The collection holds no other image.</p>",
    )  # fmt: skip


class _Picture:
    """An image, or a part of it, as it is shown: a JPEG of `width` x `height`."""

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
        self._data = base64.b64encode(encode_jpeg(resized, 85)).decode()

    def place(self, points: NDArray) -> NDArray[np.float64]:
        """Where points of the image (N, 2), in its pixels, are shown."""
        return (np.asarray(points, float).reshape(-1, 2) - self._corner) * self._scale

    def image(self, text: str) -> str:
        """An SVG image."""
        return (
            f'<image width="{self.width}" height="{self.height}" aria-label="{_escaped(text)}" '
            f'href="data:image/jpeg;base64,{self._data}"/>'
        )

    def rectangle(self, box: Box) -> str:
        """A box of the image, in its pixels, as SVG."""
        (x, y), (right, bottom) = self.place(np.array(box))
        return "".join(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" '
            f'height="{bottom - y:.1f}"/>'
            for kind in ("halo", "box")
        )

    def outline(self, mask: NDArray[np.float32]) -> str:
        """A mask on a grid over the image, cut at 0.5, as SVG."""
        region = (enlarge(mask, self.width, self.height) > 0.5).astype(np.uint8)
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        path = "".join(
            "M" + "L".join(f"{x} {y}" for x, y in cv2.approxPolyDP(c, 0.8, True)[:, 0]) + "Z"
            for c in contours
        )
        return f'<path class="halo" d="{path}"/><path class="region" d="{path}"/>'


def _card(rank: int, hit: Hit, detail: _Picture) -> str:
    path = Path(hit.image)
    caption = (
        f"<figcaption><b>{rank}</b> <span><small>{_escaped(path.parent.name)}/</small>"
        f"{_escaped(path.name)}</span> "
        f'<i title="score">{hit.score:.1f}</i></figcaption>'
    )
    title = f'<figure class="card{" none" * (hit.box is None)}" title="{_escaped(hit.image)}">'
    try:
        picture = _Picture(read_image(hit.image))
    except ImageError as error:  # it was there when the index was made
        return f"{title}{caption}<p>{_escaped(str(error))}</p></figure>"
    marks = picture.outline(hit.mask) if hit.mask is not None and hit.box else ""
    marks += picture.rectangle(hit.box) if hit.box else ""
    offset = detail.width + _GAP
    height = max(detail.height, picture.height)
    lines = _lines(hit, detail, picture, offset) if hit.box else ""
    return (
        f'{title}{caption}<svg viewBox="0 0 {offset + picture.width} {height}">'
        f'{detail.image("the detail")}<g transform="translate({offset})">'
        f"{picture.image(hit.image)}{marks}</g>{lines}</svg></figure>"
    )


def _lines(hit: Hit, detail: _Picture, picture: _Picture, offset: int) -> str:
    """Some of the surest points, apart from each other, joined."""
    start, end = detail.place(hit.source_points), picture.place(hit.target_points)
    chosen: list[int] = []
    apart = 0.12 * np.hypot(detail.width, detail.height)
    for number, point in enumerate(start):
        if all(np.hypot(*(point - start[other])) >= apart for other in chosen):
            chosen.append(number)
        if len(chosen) == _POINTS:
            break
    parts = []
    for number, point in enumerate(chosen):
        (a, b), (c, d) = start[point], end[point] + (offset, 0)
        colour = f"hsl({round(360 * number / max(len(chosen), 1))} 95% 60%)"
        parts.append(
            f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" stroke="{colour}"/>'
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.4" fill="{colour}"/>'
            f'<circle cx="{c:.1f}" cy="{d:.1f}" r="3.4" fill="{colour}"/>'
        )
    return f'<g class="points">{"".join(parts)}</g>'


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)


_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
header { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: center;
  padding: 1.2rem 1.4rem; background: var(--card); border-bottom: 1px solid var(--rule); }
header h1 { font-size: 1.3rem; margin: 0; overflow-wrap: anywhere; }
header p { margin: .2rem 0; color: var(--faint); overflow-wrap: anywhere; }
header .query { height: 190px; border-radius: 5px; }
main { display: grid; gap: 1.1rem; padding: 1.2rem 1.4rem 3rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
.card { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: .6rem .8rem .8rem; min-width: 0; }
.card.none { opacity: .6; }
.card svg { width: 100%; height: auto; max-height: 24rem; display: block; }
figcaption { display: flex; gap: .6rem; margin-bottom: .4rem; }
figcaption b { color: var(--faint); font-weight: 500; }
figcaption span { font-weight: 600; margin-right: auto; overflow-wrap: anywhere; }
figcaption small { color: var(--faint); font-weight: 400; }
figcaption i { font-style: normal; font-variant-numeric: tabular-nums; color: var(--faint); }
rect, path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.box { stroke: #ffd02b; stroke-width: 2; } .region { stroke: #35c4ff; stroke-width: 1.6; }
.halo { stroke: #000; stroke-opacity: .5; stroke-width: 4; }
.points line { stroke-width: 1.1; stroke-opacity: .8; }
.points circle { stroke: #000; stroke-opacity: .7; stroke-width: 1; }
body:has(#points:not(:checked)) .points,
body:has(#regions:not(:checked)) :is(.region, .box, .card .halo) { display: none; }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: hits</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>{style}</style></head>
<body><header>{whole}<div><h1>{name}</h1><p>{path}</p><p>{note}</p>
<p><label><input type="checkbox" id="regions" checked> regions</label>
<label><input type="checkbox" id="points" checked> points</label></p></div></header>
<main>
{cards}</main></body></html>
"""
