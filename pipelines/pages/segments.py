"""A page of what a proposer finds in images, before pairs are made of it."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from generators.sources.folder import BATCH, Proposed, propose
from pipelines.command.outputs import check_file
from pipelines.command.progress import Progress
from pipelines.pages.look_config import LookConfig
from pipelines.pages.pictures import colour, data_url, outline
from pipelines.pages.render import render
from segswap import geometry
from segswap.files import storage
from segswap.files.folders import image_files
from segswap.files.images import encode_jpeg, read_image

AREA = (0.015, 0.5)  # as segswap-generate has it by default
_SIDE = 420  # px, of the pictures


def look_at_segments(config: LookConfig) -> int:
    """Write the page, and say where it is and what was found.

    Raises:
        ValueError: no such folder or proposer, --first is beyond the images, or the page cannot be
            written.
    """
    assert config.out is not None
    if not storage.is_url(config.out):
        check_file("--out", config.out)
    names = image_files(config.data)
    if config.first >= len(names):
        raise ValueError(f"--first is {config.first}; {config.data} has images 0 to "
                         f"{len(names) - 1}")  # fmt: skip
    names = names[config.first : config.first + config.pairs]
    progress = Progress("images", len(names), "images")
    cards = []
    for found in _proposed(config, names):
        cards.append(_card(found, os.path.relpath(found.path, config.data)))
        progress.add(1)
    progress.close()
    usable = [card for card in cards if not card["reason"]]
    count = sum(len(card["segments"]) for card in usable)
    bare = sum(not card["segments"] for card in usable)
    note = f"{count} segments in {len(usable)} images; nothing found in {bare}"
    if len(usable) < len(cards):
        note += f"; {len(cards) - len(usable)} cannot be used"
    title = f"{config.segments} in {config.data}"
    text = render("segments.html", title=title, note=note, cards=cards)
    storage.write_atomically(config.out, text.encode())
    print(f"{config.out}: {note}, {len(text) / 1e6:.1f} MB")
    return 0


def _proposed(config: LookConfig, names: list[str]) -> Iterator[Proposed]:
    """What the images give, in batches, in the order of their names."""
    for first in range(0, len(names), BATCH):
        paths = [str(storage.join(config.data, name)) for name in names[first : first + BATCH]]
        found = propose(paths, config.segments, None, AREA)
        yield from sorted(found, key=lambda each: paths.index(each.path))


def _card(found: Proposed, name: str) -> dict[str, Any]:
    """What the template shows of an image."""
    card: dict[str, Any] = {"name": name, "reason": found.reason, "segments": []}
    if found.reason:
        return card
    factor = min(1.0, _SIDE / max(found.width, found.height))
    width, height = (max(1, round(side * factor)) for side in (found.width, found.height))
    picture = geometry.resize(read_image(found.path), width, height)
    card |= {"width": width, "height": height, "url": data_url(encode_jpeg(picture, 85))}
    for number, (counts, score, category) in enumerate(found.segments, 1):
        mask = _mask(counts, found)
        card["segments"].append({
            "colour": colour(number), "path": outline(mask, width, height),
            "text": f"{category or 'segment'} {number}: score {score:.2f}, "
                    f"{mask.mean():.0%} of the image",
        })  # fmt: skip
    return card


def _mask(counts: bytes, found: Proposed) -> NDArray[np.bool_]:
    decoded = rle.decode({"size": [found.height, found.width], "counts": counts})
    return np.ascontiguousarray(decoded).astype(bool)
