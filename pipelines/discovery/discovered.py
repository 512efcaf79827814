"""What segswap-discover leaves: masks as PNG files, small copies of the images, JSON and a page."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.command.progress import Progress
from pipelines.command.workers import Run
from pipelines.pages.groups import Shown, groups_page
from pipelines.pages.pictures import outline
from segswap import geometry
from segswap.discovery.discovery import Maps, Repeat
from segswap.discovery.refine import refine
from segswap.files.images import encode_jpeg, encode_png, read_image
from segswap.files.storage import write_atomically
from segswap.search.index import Index

GROUPS, PAGE = "groups.json", "index.html"
_SHOWN_SIDE = 360  # pixels of the longer side of the page's pictures


@dataclass(frozen=True)
class MasksTask:
    """The masks of one image to be written: PNG files by path below `out`, and their maps."""

    out: Path
    number: int
    image: str
    maps: dict[str, NDArray[np.float32]]

    @property
    def picture(self) -> str:
        """The small copy, relative to `out`."""
        return f"pictures/{self.number:05d}.jpg"


@dataclass(frozen=True)
class Drawn:
    """What was written of an image: its small copy's size, and by mask file the mask's box in the
    image's pixels and its outline in the small copy's."""

    number: int
    size: tuple[int, int]
    boxes: dict[str, tuple[int, int, int, int]]
    outlines: dict[str, str]


def draw_masks(task: MasksTask) -> Drawn:
    """Refine the maps of an image, and write them and a small copy."""
    image = read_image(task.image)
    height, width = image.shape[:2]
    scale = min(1.0, _SHOWN_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    write_atomically(task.out / task.picture, encode_jpeg(geometry.resize(image, *size), 85))
    boxes, outlines = {}, {}
    for name, values in task.maps.items():
        mask = refine(image, values)
        write_atomically(task.out / name, encode_png(mask.astype(np.uint8) * 255))
        boxes[name] = geometry.window_of(mask)
        outlines[name] = outline(mask, *size)
    return Drawn(task.number, size, boxes, outlines)


def _mask_name(number: int, group: int | None) -> str:
    folder = "masks" if group is None else f"groups/{group + 1:02d}"
    return f"{folder}/{number:05d}.png"


def write_results(
    out: Path, collection: Sequence[str], index: Index, whole: Maps, groups: Sequence[Repeat],
    settings: dict[str, Any], run: Run,
) -> None:  # fmt: skip
    """Write masks, groups.json and the page, in this order, in place of those of an earlier run.

    Args:
        out: the folder.
        collection: what the user called the images, for the page's heading.
        index: of the images; numbers are its.
        whole: maps of what the whole collection shares most.
        groups: things that repeat.
        settings: format, model and settings, as groups.json holds them.
        run: applies a function to items, here or on workers.
    """
    for name in (GROUPS, PAGE):
        (out / name).unlink(missing_ok=True)
    for name in ("masks", "groups", "pictures"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("masks", "pictures", *(f"groups/{n + 1:02d}" for n in range(len(groups)))):
        (out / name).mkdir(parents=True)
    maps: dict[int, dict[str, NDArray[np.float32]]] = {}
    for group, found in [(None, whole), *((n, repeat.maps) for n, repeat in enumerate(groups))]:
        for number, values in found.items():
            maps.setdefault(number, {})[_mask_name(number, group)] = values
    tasks = [MasksTask(out, number, index.images[number], maps[number]) for number in sorted(maps)]
    progress = Progress("masks", len(tasks), "images")
    drawn = {}
    for done in run(draw_masks, tasks):
        drawn[done.number] = done
        progress.add(1)
    progress.close()
    record = settings | as_record(index, whole, groups, drawn)
    write_atomically(out / GROUPS, json.dumps(record, indent=1).encode())
    shown = [
        (_shown(index, n, group, tasks, drawn), group.shared) for n, group in enumerate(groups)
    ]
    title = f"What repeats in {', '.join(collection)}"
    least = int(settings["settings"]["least_images"])
    page = groups_page(title, shown, len(index), least, index.skipped)
    write_atomically(out / PAGE, page.encode())


def _shown(
    index: Index, group: int, repeat: Repeat, tasks: Sequence[MasksTask], drawn: dict[int, Drawn]
) -> list[Shown]:
    pictures = {task.number: task.picture for task in tasks}
    return [
        Shown(
            number, Path(index.images[number]).name, pictures[number], drawn[number].size,
            drawn[number].outlines[_mask_name(number, group)], strength,
        )
        for number, strength in repeat.strengths.items()
    ]  # fmt: skip


def as_record(
    index: Index, whole: Maps, groups: Sequence[Repeat], drawn: dict[int, Drawn]
) -> dict[str, Any]:
    """What groups.json holds beside format, model and settings (confidence, sigma, least_images,
    neighbours).

    images, each with its path (image), width, height, and its mask in what the whole collection
    shares most (a path below OUT, or null); skipped, each with path (image) and reason; groups,
    those of most images first, each with strength, members (strongest first: image, a number in
    images; strength, relative to the strongest; mask; box as left, top, right, bottom in pixels)
    and shared (images, two numbers; points, rows of x, y in the one and x, y in the other,
    normalised).
    """
    sizes = index.sizes.tolist()
    return {
        "images": [
            {
                "image": image, "width": sizes[number][0], "height": sizes[number][1],
                "mask": _mask_name(number, None) if number in whole else None,
            }
            for number, image in enumerate(index.images)
        ],
        "skipped": [{"image": image, "reason": reason} for image, reason in index.skipped],
        "groups": [
            {
                "strength": group.strength,
                "members": [
                    {
                        "image": number, "strength": strength, "mask": _mask_name(number, n),
                        "box": drawn[number].boxes[_mask_name(number, n)],
                    }
                    for number, strength in group.strengths.items()
                ],
                "shared": [
                    {
                        "images": list(pair.images),
                        "points": pair.points.reshape(-1, 4).round(5).tolist(),
                    }
                    for pair in group.shared
                ],
            }
            for n, group in enumerate(groups)
        ],
    }  # fmt: skip
