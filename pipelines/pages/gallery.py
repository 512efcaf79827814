"""Pairs as HTML that needs no server: masks outlined, points joined, the map under the pointer.

Everything is inside the page: images as data: URLs, masks as run lengths, and the matrices, from
which the script computes every point that it shows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.pages.pictures import colour, data_url, outline
from pipelines.pages.render import render
from segswap.data.pair import Pair
from segswap.data.shards import Members
from segswap.drawing.draw import spread_points

POINTS = 8  # joined in a pair, over all its objects


def gallery_page(title: str, note: str, pairs: Sequence[dict[str, Any]]) -> str:
    """A whole page of pairs.

    Args:
        title: its heading.
        note: a line beside the heading.
        pairs: of `pair_view`.
    """
    return render("gallery.html", title=title, note=note, pairs=pairs)


def pair_view(pair: Pair, members: Members) -> dict[str, Any]:
    """What the macro `viewer` of parts.html shows of a pair.

    Args:
        pair: the pair.
        members: the sample's files; its JPEGs are shown as they are.
    """
    names = [str(item.category or f"object {item.label}") for item in pair.objects]
    shown = " + ".join(dict.fromkeys(names))
    texts = {
        "source": f"the photograph with {shown}" if shown else "a photograph",
        "target": f"the background with {shown} blended in" if shown else "another photograph",
    }
    sides = [_side(pair, members, side, text) for side, text in texts.items()]
    return {
        "index": pair.index,
        "names": shown,
        "styled": any(len(side["images"]) > 1 for side in sides),
        "data": _data(pair, names),
        "sides": sides,
        "origins": _origins(pair, names),
    }


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
                "colour": colour(item.label),
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


def _side(pair: Pair, members: Members, side: str, shown: str) -> dict[str, Any]:
    """One image with its outlines and what it shows; the styled version lies in the same place."""
    mask = getattr(pair, f"{side}_mask")
    kinds = {"plain": f"{side}.jpg", "styled": f"{side}_styled.jpg"}
    texts = {"plain": "", "styled": ", styled"}
    return {
        "name": side,
        "images": [
            {
                "kind": kind,
                "text": f"{side} of pair {pair.index}: {shown}{texts[kind]}",
                "url": data_url(members[file]),
            }
            for kind, file in kinds.items()
            if file in members
        ],
        "outlines": [
            (outline(mask == item.label, pair.width, pair.height), colour(item.label))
            for item in pair.objects
        ],
    }


def _origins(pair: Pair, names: list[str]) -> list[dict[str, str]]:
    """Where all comes from, a line each; objects' lines have their colour."""
    lines = [
        {
            "name": name,
            "colour": colour(item.label),
            "text": f"{_origin(item.segment)}, {item.blend}",
        }
        for item, name in zip(pair.objects, names, strict=True)
    ]
    lines.append({"name": "background", "colour": "", "text": _origin(pair.background)})
    return lines + [
        {"name": f"{side} style", "colour": "", "text": _styled(style)}
        for side, style in pair.styles.items()
        if style
    ]


def _origin(record: dict[str, Any]) -> str:
    place = " / ".join(str(record[key]) for key in ("dataset", "image") if key in record)
    annotation = record.get("annotation")
    return (place or "not recorded") + ("" if annotation is None else f" #{annotation}")


def _styled(style: dict[str, Any]) -> str:
    rest = [f"{key} {value}" for key, value in style.items() if key not in ("method", "image")]
    return ", ".join([str(style.get("method")), *rest, str(style.get("image", ""))])
