"""What segswap-look does: pairs of a dataset as a page without a server, and a contact sheet."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipelines.command.outputs import check_file
from pipelines.command.progress import Progress
from pipelines.pages.gallery import POINTS, gallery_page, pair_view
from pipelines.pages.look_config import LookConfig
from segswap.data.manifest import split_shards
from segswap.data.pair import Pair
from segswap.data.shards import Members, Shard
from segswap.drawing.draw import beside, join, outlined, spread_points
from segswap.files import storage
from segswap.files.images import encode_png
from segswap.files.storage import write_atomically


def look(config: LookConfig) -> int:
    """Write the page, the contact sheet, or both, and say where they are.

    Raises:
        ValueError: no such dataset or split, it is unfinished or damaged, --first is beyond it, or
            the page or the sheet cannot be written.
    """
    for flag, path in (("--out", config.out), ("--png", config.png)):
        if path and not storage.is_url(path):
            check_file(flag, path)
    total = sum(entry["pairs"] for entry in split_shards(config.data, config.split))
    if config.first >= total:
        raise ValueError(
            f"--first is {config.first}; the split {config.split} has pairs 0 to {total - 1}"
        )
    count = min(config.pairs, total - config.first)
    progress = Progress("pairs", count, "pairs")
    shown, drawn = [], []
    for members, pair in islice(read_samples(config.data, config.split, config.first), count):
        if config.out:
            shown.append(pair_view(pair, members))
        if config.png:
            drawn.append(draw_pair(pair, 240))
        progress.add(1)
    progress.close()
    if config.out:
        note = f"{config.split}, pairs {config.first} to {config.first + count - 1} of {total}"
        text = gallery_page(config.data.rstrip("/"), note, shown)
        write_atomically(config.out, text.encode())
        print(f"{config.out}: {count} pairs, {len(text) / 1e6:.1f} MB")
    if config.png:
        sheet = contact_sheet(drawn)
        write_atomically(config.png, encode_png(sheet))
        print(f"{config.png}: {count} pairs, {sheet.shape[1]} x {sheet.shape[0]} px")
    return 0


def read_samples(
    dataset: storage.PathLike, split: str, first: int = 0
) -> Iterator[tuple[Members, Pair]]:
    """Files and content of the pairs of a split, in order, from a position on.

    Raises:
        DatasetError: of `split_shards`, or a shard is damaged.
    """
    for entry in split_shards(dataset, split):
        if first >= entry["pairs"]:
            first -= entry["pairs"]
            continue
        shard = Shard.open(storage.join(dataset, entry["name"]), entry["sha256"])
        for position in range(first, len(shard.samples)):
            yield shard.members(position), shard.read(position)
        first = 0


def draw_pair(pair: Pair, height: int = 320) -> NDArray[np.uint8]:
    """A pair side by side: the objects outlined, points joined along the ground truth."""
    picture = beside(
        outlined(pair.source, pair.source_mask), outlined(pair.target, pair.target_mask), height
    )
    each = max(2, POINTS // max(len(pair.objects), 1))
    start = [spread_points(pair.source_mask == item.label, each) for item in pair.objects]
    end = [pair.to_target(p, item.label) for p, item in zip(start, pair.objects, strict=True)]
    if start:
        join(
            picture, np.concatenate(start), np.concatenate(end), pair.source.shape,
            pair.target.shape, height,
        )  # fmt: skip
    return picture


def contact_sheet(pictures: list[NDArray[np.uint8]], gap: int = 16) -> NDArray[np.uint8]:
    """Pictures of any sizes, at least one, on a white sheet about as wide as high."""
    width, height = (max(picture.shape[axis] for picture in pictures) for axis in (1, 0))
    columns = max(1, round(np.sqrt(len(pictures) * height / width)))
    rows = -(-len(pictures) // columns)
    sheet = np.full(
        (gap + rows * (height + gap), gap + min(columns, len(pictures)) * (width + gap), 3),
        255, np.uint8,
    )  # fmt: skip
    for number, picture in enumerate(pictures):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
