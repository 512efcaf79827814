"""The page of segswap-discover: groups of regions that repeat, and the points that they share.

It needs no server: the pictures lie beside it, everything else is inside.
"""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.pages.gallery import COLOURS, STYLE
from segswap.discovery.discovery import SharedPoints


@dataclass(frozen=True)
class Shown:
    """A member as the page shows it.

    Attributes:
        image: its number in the collection.
        name: of its file.
        picture: path of a small copy, relative to the page.
        size: width and height of that in pixels.
        outline: of its region, an SVG path in the small copy's pixels; see `outline`.
        strength: 0 to 1.
    """

    image: int
    name: str
    picture: str
    size: tuple[int, int]
    outline: str
    strength: float


def groups_page(
    title: str, groups: Sequence[tuple[Sequence[Shown], Sequence[SharedPoints]]],
    images: int, least_images: int, skipped: Sequence[tuple[str, str]],
) -> str:  # fmt: skip
    """A whole page.

    Args:
        title: its heading, plain text.
        groups: members and what pairs of them share, of each group.
        images: in the collection.
        least_images: that a group must have.
        skipped: path and reason of images that could not be read.
    """
    count = f"{len(groups)} group{'s' if len(groups) != 1 else ''} in {images} images"
    body = "".join(
        _group(number, members, shared) for number, (members, shared) in enumerate(groups)
    )
    if not groups:
        body = _NOTHING.format(images=images, least=least_images)
    if skipped:
        rows = "".join(f"<dt>{_escaped(i)}</dt><dd>{_escaped(r)}</dd>" for i, r in skipped)
        body += _SKIPPED.format(count=len(skipped), rows=rows)
    return _PAGE.format(
        title=_escaped(title), note=count, style=STYLE + _STYLE, body=body, script=_SCRIPT
    )


def outline(mask: NDArray[np.bool_], width: int, height: int) -> str:
    """The contours of a mask (H, W) as an SVG path in pixels of a picture of another size."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    scale = np.array([width / mask.shape[1], height / mask.shape[0]])
    path = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.5 / float(scale.max()), True)[:, 0]
        places = ((points + 0.5) * scale).round(1)
        path.append("M" + "L".join(f"{x:g} {y:g}" for x, y in places) + "Z")
    return "".join(path)


def _group(number: int, members: Sequence[Shown], shared: Sequence[SharedPoints]) -> str:
    links = [
        {"images": list(pair.images), "points": pair.points.reshape(-1, 4).round(4).tolist()}
        for pair in shared
    ]
    return _GROUP.format(
        number=number + 1, count=len(members), links=_escaped(json.dumps(links)),
        members="".join(_member(member, COLOURS[number % len(COLOURS)]) for member in members),
    )  # fmt: skip


def _member(member: Shown, colour: str) -> str:
    width, height = member.size
    return _MEMBER.format(
        image=member.image, name=_escaped(member.name), picture=_escaped(member.picture),
        width=width, height=height, outline=member.outline, colour=colour,
        strength=f"{member.strength:.0%}",
    )  # fmt: skip


def _escaped(text: Any) -> str:
    return html.escape(str(text), quote=True)


_GROUP = """<section class="pair group" data-links="{links}">
<header><b>{number}</b><span class="names">{count} images</span></header>
<div class="stage">{members}<svg class="lines" aria-hidden="true"></svg></div>
</section>
"""

_MEMBER = """<figure class="view" tabindex="0" data-image="{image}">
<div class="shown">
<img src="{picture}" width="{width}" height="{height}" loading="lazy" alt="{name}">
<svg viewBox="0 0 {width} {height}" aria-hidden="true"><g class="outlines">
<path class="shade" fill-rule="evenodd" d="M0 0H{width}V{height}H0Z{outline}"/>
<path class="halo" d="{outline}"/><path d="{outline}" stroke="{colour}"/></g></svg></div>
<figcaption>{name} <span>{strength}</span></figcaption></figure>
"""

_NOTHING = """<section class="pair empty"><h2>Nothing repeats here</h2>
<p>No region was found again in at least {least} of the {images} images in such a way that the
matches agree with each other. Smaller groups are found with <code>--least-images 2</code>, fainter
ones with a lower <code>--confidence</code>; the images are not matched again for it.</p></section>
"""

_SKIPPED = """<details class="pair"><summary>{count} skipped</summary><dl>{rows}</dl></details>
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{style}</style></head>
<body><div class="bar"><h1>{title}</h1><p>{note}</p>
<label><input type="checkbox" value="outlines" checked>regions</label>
<label><input type="checkbox" value="lines" checked>points</label></div>
<main>
<p class="hint">Point at a picture to see which of its points lie where in the others. The
percentage says how much of the group's agreement lies in it, measured by the strongest one.</p>
{body}</main>
<script>{script}</script></body></html>
"""

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
.bar { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; align-items: center;
  gap: .3rem 1.4rem; padding: .7rem 1.4rem; background: var(--card);
  border-bottom: 1px solid var(--rule); }
.bar h1 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
.bar p { margin: 0 auto 0 0; color: var(--faint); }
.bar label { display: inline-flex; gap: .4rem; align-items: center; cursor: pointer; }
main { padding: 1rem 1.4rem 3rem; max-width: 110rem; margin: 0 auto; display: grid; gap: 1.1rem; }
.hint { margin: 0; color: var(--faint); font-size: .9rem; }
.empty { padding: 1.2rem 1.4rem; } .empty h2 { margin: 0 0 .4rem; font-size: 1.1rem; }
.empty p { margin: 0; max-width: 46rem; }
.group .stage { display: flex; flex-wrap: wrap; gap: 1.1rem; align-items: start; }
.group .view img { width: auto; height: 11rem; }
.group .view { margin: 0; border-radius: 6px; outline-offset: 3px; }
.group .view.chosen { outline: 2px solid var(--ink); }
.shown { position: relative; }
.view .shade { fill: #000; fill-opacity: .5; stroke: none; }
.group figcaption { font-size: .8rem; color: var(--faint); overflow-wrap: anywhere;
  display: flex; justify-content: space-between; gap: .6rem; padding: .2rem .1rem 0;
  width: 0; min-width: 100%; }
summary { cursor: pointer; }
"""

_SCRIPT = """
(() => {
  const draw = (parent, name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    parent.append(node);
  };

  for (const group of document.querySelectorAll(".group")) {
    const links = JSON.parse(group.dataset.links), lines = group.querySelector(".lines");
    const stage = group.querySelector(".stage"), views = new Map();
    for (const view of group.querySelectorAll(".view")) views.set(+view.dataset.image, view);
    let chosen = views.keys().next().value;

    // Where a normalised point of a picture lies in the stage.
    const place = (image, [x, y]) => {
      const shown = views.get(image).querySelector(".shown").getBoundingClientRect();
      const box = stage.getBoundingClientRect();
      return [shown.left - box.left + x * shown.width, shown.top - box.top + y * shown.height];
    };

    const join = () => {
      lines.replaceChildren();
      for (const [image, view] of views) view.classList.toggle("chosen", image === chosen);
      const own = links.filter(link => link.images.includes(chosen));
      const total = own.reduce((sum, link) => sum + link.points.length, 0);
      let number = 0;
      for (const {images, points} of own) for (const [x, y, u, v] of points) {
        const [a, b] = place(images[0], [x, y]), [c, d] = place(images[1], [u, v]);
        const colour = `hsl(${Math.round(360 * number++ / total)} 95% 62%)`;
        draw(lines, "line", {x1: a, y1: b, x2: c, y2: d, stroke: colour});
        draw(lines, "circle", {cx: a, cy: b, r: 3.6, fill: colour});
        draw(lines, "circle", {cx: c, cy: d, r: 3.6, fill: colour});
      }
    };

    for (const [image, view] of views)
      for (const event of ["pointerenter", "pointerdown", "focus"])
        view.addEventListener(event, () => { chosen = image; join(); });
    new ResizeObserver(join).observe(stage);
  }

  for (const box of document.querySelectorAll(".bar input"))
    box.addEventListener("change", () =>
      document.body.classList.toggle("no-" + box.value, !box.checked));
})();
"""
