"""Pairs as HTML that needs no server: masks outlined, points joined, the map under the pointer.

A page puts STYLE into its head, the pairs' HTML into its body and SCRIPT after them. Everything is
inside the page: images as data: URLs, masks as run lengths, and the matrices, from which the script
computes every point that it shows.
"""

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap.data.pair import Pair
from segswap.data.shards import Members
from segswap.drawing.draw import spread_points

# Colours of objects 1, 2, ...; told apart with any kind of colour vision, on light and on dark.
COLOURS = ("#ff5a4d", "#35c4ff", "#ffd02b", "#b58cff", "#4ddb7e", "#ff8ad1")
POINTS = 8  # joined in a pair, over all its objects


def pair_html(pair: Pair, members: Members) -> str:
    """One pair as an <article>.

    Args:
        pair: the pair.
        members: the sample's files; its JPEGs are shown as they are.
    """
    names = [str(item.category or f"object {item.label}") for item in pair.objects]
    views = "".join(_view(pair, members, side) for side in ("source", "target"))
    styled = any(f"{side}_styled.jpg" in members for side in ("source", "target"))
    return _ARTICLE.format(
        data=_escaped(json.dumps(_data(pair, names))), index=pair.index,
        names=_escaped(" + ".join(dict.fromkeys(names))), switch=_SWITCH if styled else "",
        views=views, provenance=_provenance(pair, names),
    )  # fmt: skip


def page(title: str, note: str, articles: Sequence[str]) -> str:
    """A whole page of pairs.

    Args:
        title: its heading, plain text.
        note: a line below the heading, plain text.
        articles: of `pair_html`.
    """
    styled = any(_SWITCH in article for article in articles)
    return _PAGE.format(
        title=_escaped(title), note=_escaped(note), style=STYLE, script=SCRIPT,
        switch=_SWITCH if styled else "", pairs="".join(articles),
    )  # fmt: skip


def _data(pair: Pair, names: list[str]) -> dict[str, Any]:
    """What the script needs to know of a pair."""
    each = max(2, POINTS // max(len(pair.objects), 1))
    return {
        "width": pair.width,
        "height": pair.height,
        "objects": [
            {
                "label": item.label,
                "name": name,
                "colour": _colour(item.label),
                "target_from_source": item.target_from_source.ravel().tolist(),
                "points": spread_points(pair.source_mask == item.label, each).round(5).tolist(),
            }
            for item, name in zip(pair.objects, names, strict=True)
        ],
        "masks": {"source": _runs(pair.source_mask), "target": _runs(pair.target_mask)},
    }


def _runs(labels: NDArray[np.uint8]) -> list[int]:
    """A label map row by row as label, length, label, length, ..."""
    flat = labels.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    return np.stack([flat[starts], lengths], axis=1).ravel().tolist()


def _view(pair: Pair, members: Members, side: str) -> str:
    """One image with its outlines; the styled version lies in the same place."""
    mask = getattr(pair, f"{side}_mask")
    images = [_image(members[f"{side}.jpg"], "plain", f"{side} of pair {pair.index}")]
    if f"{side}_styled.jpg" in members:
        data = members[f"{side}_styled.jpg"]
        images.append(_image(data, "styled", f"{side} of pair {pair.index}, styled"))
    outlines = "".join(
        f'<path class="halo" d="{path}"/><path d="{path}" stroke="{_colour(item.label)}"/>'
        for item in pair.objects
        for path in [_outline(mask == item.label)]
    )
    return _VIEW.format(
        side=side, kind=" has-styled" if len(images) > 1 else "", images="".join(images),
        width=pair.width, height=pair.height, outlines=outlines,
    )  # fmt: skip


def _image(jpeg: bytes, kind: str, text: str) -> str:
    data = base64.b64encode(jpeg).decode()
    return f'<img class="{kind}" alt="{_escaped(text)}" src="data:image/jpeg;base64,{data}">'


def _outline(mask: NDArray[np.bool_]) -> str:
    """The mask's contours as an SVG path in pixels, x = 0 the left edge."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    path = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.6, True)[:, 0] + 0.5
        path.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z")
    return "".join(path)


def _provenance(pair: Pair, names: list[str]) -> str:
    rows = [
        f'<dt><i style="background:{_colour(item.label)}"></i>{_escaped(name)}</dt>'
        f"<dd>{_escaped(_origin(item.segment))}, {_escaped(item.blend)}</dd>"
        for item, name in zip(pair.objects, names, strict=True)
    ]
    rows.append(f"<dt>background</dt><dd>{_escaped(_origin(pair.background))}</dd>")
    for side, style in pair.styles.items():
        if style:
            rows.append(f"<dt>{_escaped(side)} style</dt><dd>{_escaped(_styled(style))}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _origin(record: dict[str, Any]) -> str:
    place = " / ".join(str(record[key]) for key in ("dataset", "image") if key in record)
    annotation = record.get("annotation")
    return (place or "not recorded") + ("" if annotation is None else f" #{annotation}")


def _styled(style: dict[str, Any]) -> str:
    rest = [f"{key} {value}" for key, value in style.items() if key not in ("method", "image")]
    return ", ".join([str(style.get("method")), *rest, str(style.get("image", ""))])


def _colour(label: int) -> str:
    return COLOURS[(label - 1) % len(COLOURS)]


def _escaped(text: str) -> str:
    return html.escape(str(text), quote=True)


_SWITCH = (
    '<span class="switch" role="group" aria-label="images shown">'
    '<button type="button" value="plain" aria-pressed="true">plain</button>'
    '<button type="button" value="styled" aria-pressed="false">styled</button></span>'
)

_ARTICLE = """<article class="pair" data-pair="{data}">
<header><b>{index}</b><span class="names">{names}</span>{switch}</header>
<div class="stage">{views}<svg class="lines" aria-hidden="true"></svg></div>
<output class="readout"></output>
{provenance}
</article>
"""

_VIEW = """<div class="view {side}{kind}" data-side="{side}">{images}
<svg viewBox="0 0 {width} {height}" aria-hidden="true"><g class="outlines">{outlines}</g>
<g class="mark" visibility="hidden"><circle class="halo" r="7"/><circle r="7"/>
<path class="halo" d="M-13 0h9M4 0h9M0-13v9M0 4v9"/><path d="M-13 0h9M4 0h9M0-13v9M0 4v9"/></g>
</svg></div>"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }}
.bar {{ position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; align-items: center;
  gap: .3rem 1.4rem; padding: .7rem 1.4rem; background: var(--card);
  border-bottom: 1px solid var(--rule); }}
.bar h1 {{ font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }}
.bar p {{ margin: 0 auto 0 0; color: var(--faint); }}
.bar label {{ display: inline-flex; gap: .4rem; align-items: center; cursor: pointer; }}
main {{ padding: 1.2rem 1.4rem 3rem; max-width: 110rem; margin: 0 auto; }}
{style}</style></head>
<body><div class="bar"><h1>{title}</h1><p>{note}</p>{switch}
<label><input type="checkbox" value="outlines" checked>outlines</label>
<label><input type="checkbox" value="lines" checked>points</label></div>
<main class="pairs">
{pairs}</main>
<script>{script}</script></body></html>
"""

STYLE = """
:root { --ink: #1d2330; --faint: #5f6878; --page: #f3f4f7; --card: #fff; --rule: #dde1e8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ee; --faint: #98a1b3; --page: #14171d; --card: #1d2129; --rule: #323845; }
}
.pairs { display: grid; gap: 1.1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 38rem), 1fr)); }
.pair { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: .7rem .8rem .8rem; container-type: inline-size; min-width: 0; }
.pair header { display: flex; align-items: center; gap: .6rem; min-height: 2rem;
  margin-bottom: .5rem; }
.pair header b { color: var(--faint); font-weight: 500; font-variant-numeric: tabular-nums; }
.pair .names { font-weight: 600; margin-right: auto; overflow-wrap: anywhere; }
.stage { position: relative; display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
@container (max-width: 400px) {
  .stage { grid-template-columns: 1fr; } .pair .readout { min-height: 3em; } }
.view { position: relative; cursor: crosshair; align-self: start; }
.view img { display: block; width: 100%; height: auto; border-radius: 5px; }
.view .styled, .pair[data-shown=styled] .has-styled .plain { display: none; }
.pair[data-shown=styled] .has-styled .styled { display: block; }
.stage svg { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none;
  overflow: visible; fill: none; }
.view path, .view circle { vector-effect: non-scaling-stroke; stroke-width: 1.8;
  stroke-linejoin: round; }
.view .halo { stroke: #000; stroke-opacity: .55; stroke-width: 3.8; }
.lines line { stroke-width: 1.2; stroke-opacity: .75; }
.lines circle { stroke: #000; stroke-opacity: .7; stroke-width: 1; }
.stage.pointed .lines { opacity: .18; }
.no-outlines .outlines, .no-lines .lines { display: none; }
.readout { display: block; min-height: 1.5em; margin: .35rem 0 .1rem; font-size: .85rem;
  color: var(--faint); font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.readout b { color: var(--ink); font-weight: 600; }
.pair dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0;
  font-size: .85rem; }
.pair dt { color: var(--faint); max-width: 12rem; overflow-wrap: anywhere; }
.pair dd { margin: 0; overflow-wrap: anywhere; }
.pair dt i { display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .45em; }
.switch { display: inline-flex; border: 1px solid var(--rule); border-radius: 7px;
  overflow: hidden; }
.switch button { font: inherit; font-size: .85rem; padding: .15rem .7rem; border: 0;
  background: none; color: var(--faint); cursor: pointer; }
.switch button[aria-pressed=true] { background: var(--ink); color: var(--card); }
.switch button:focus-visible { outline: 2px solid #35c4ff; outline-offset: -2px; }
"""

SCRIPT = """
(() => {
  const OTHER = {source: "target", target: "source"};

  // A homogeneous 3x3 matrix, row by row, on a point.
  const map = (m, [x, y]) => {
    const w = m[6] * x + m[7] * y + m[8];
    return [(m[0] * x + m[1] * y + m[2]) / w, (m[3] * x + m[4] * y + m[5]) / w];
  };
  // Its inverse up to scale, which a homogeneous matrix does not show.
  const inverse = ([a, b, c, d, e, f, g, h, i]) => [
    e * i - f * h, c * h - b * i, b * f - c * e,
    f * g - d * i, a * i - c * g, c * d - a * f,
    d * h - e * g, b * g - a * h, a * e - b * d];

  const expand = (runs, size) => {
    const labels = new Uint8Array(size);
    for (let at = 0, n = 0; n < runs.length; at += runs[n + 1], n += 2)
      labels.fill(runs[n], at, at + runs[n + 1]);
    return labels;
  };

  const draw = (parent, name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    parent.append(node);
  };

  for (const article of document.querySelectorAll("article.pair")) {
    const {width, height, objects, masks} = JSON.parse(article.dataset.pair);
    const stage = article.querySelector(".stage"), lines = article.querySelector(".lines");
    const readout = article.querySelector(".readout");
    const views = {}, labels = {};
    for (const side in OTHER) views[side] = article.querySelector(`.view.${side}`);
    for (const item of objects)
      item.map = {source: item.target_from_source, target: inverse(item.target_from_source)};

    // Where a normalised point of a view lies in the stage.
    const place = (view, [x, y]) =>
      [view.offsetLeft + x * view.clientWidth, view.offsetTop + y * view.clientHeight];

    const join = () => {
      lines.replaceChildren();
      const total = objects.reduce((sum, item) => sum + item.points.length, 0);
      let number = 0;
      for (const item of objects) for (const point of item.points) {
        const [a, b] = place(views.source, point);
        const [c, d] = place(views.target, map(item.map.source, point));
        const colour = `hsl(${Math.round(360 * number++ / total)} 95% 62%)`;
        draw(lines, "line", {x1: a, y1: b, x2: c, y2: d, stroke: colour});
        draw(lines, "circle", {cx: a, cy: b, r: 3.6, fill: colour});
        draw(lines, "circle", {cx: c, cy: d, r: 3.6, fill: colour});
      }
    };

    const mark = (side, [x, y], colour) => {
      const node = views[side].querySelector(".mark");
      const scale = width / views[side].clientWidth;
      node.setAttribute("transform", `translate(${x * width} ${y * height}) scale(${scale})`);
      node.setAttribute("stroke", colour);
      node.setAttribute("visibility", "visible");
    };

    const clear = () => {
      for (const side in views)
        views[side].querySelector(".mark").setAttribute("visibility", "hidden");
      stage.classList.remove("pointed");
      readout.textContent = objects.length ? "Point at an outlined object, in either image." : "";
    };

    const point = (side, event) => {
      const box = views[side].getBoundingClientRect();
      const here = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      const column = Math.floor(here[0] * width), row = Math.floor(here[1] * height);
      labels[side] ??= expand(masks[side], width * height);
      const framed = column >= 0 && column < width && row >= 0 && row < height;
      const label = framed ? labels[side][row * width + column] : 0;
      const item = objects.find(item => item.label === label);
      clear();
      if (!item) return;
      const there = map(item.map[side], here);
      stage.classList.add("pointed");
      mark(side, here, item.colour);
      mark(OTHER[side], there, item.colour);
      const pixels = ([x, y]) => `(${(x * width).toFixed(1)}, ${(y * height).toFixed(1)})`;
      const name = document.createElement("b");
      name.textContent = item.name;
      readout.replaceChildren(
        name, ` ${side} ${pixels(here)} is ${OTHER[side]} ${pixels(there)} px`);
    };

    for (const side in views) {
      views[side].addEventListener("pointermove", event => point(side, event));
      views[side].addEventListener("pointerdown", event => point(side, event));
      views[side].addEventListener("pointerleave", clear);
    }
    clear();
    new ResizeObserver(join).observe(stage);
  }

  // A switch acts on the pair that it stands in, or on all.
  for (const button of document.querySelectorAll(".switch button"))
    button.addEventListener("click", () => {
      const scope = button.closest(".pair") ?? document;
      for (const article of scope === document ? document.querySelectorAll(".pair") : [scope])
        article.dataset.shown = button.value;
      for (const other of scope.querySelectorAll(".switch button"))
        other.setAttribute("aria-pressed", other.value === button.value);
    });
  for (const box of document.querySelectorAll(".bar input"))
    box.addEventListener("change", () =>
      document.body.classList.toggle("no-" + box.value, !box.checked));
})();
"""
