"""segswap-retrieve: find a detail in an indexed collection, and show where it was found."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from pipelines.command import cli
from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.outputs import check_file
from pipelines.command.progress import Progress
from pipelines.pages.hits import hits_page
from segswap.files.images import read_image
from segswap.files.storage import write_atomically
from segswap.geometry import Box
from segswap.models.model import load
from segswap.search.index import Index
from segswap.search.retrieval import SHORTLIST, Hit, Query, retrieve


@dataclass(frozen=True)
class RetrieveConfig:
    """Find a detail in a collection that segswap-index has indexed.

    An image of the collection with the same pixels as the query is left out.
    """

    index: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INDEX")]
    """Folder that segswap-index made."""
    query: str
    """The image that shows the detail."""
    box: str | None = None
    """Where the detail is: left,top,right,bottom in the query's pixels; without it all of the
    image is looked for."""
    top: int = 20
    """How many images to show."""
    out: str = "hits.html"
    """The page to write."""
    json: str | None = None
    """Write the hits to this file too."""
    mirrored: bool = False
    """Look for the mirrored detail too, as prints show it of a painting; takes twice the time."""
    shortlist: int = SHORTLIST
    """In a larger collection than this, only so many images are matched: those with the cells most
    like the detail's. Where it has over 25 times as many, those are sought among the images that
    are most like the detail as wholes."""
    model: str | None = None
    """The model that made the index, where it is not found under its name any more."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        for flag, value in (("top", self.top), ("shortlist", self.shortlist)):
            if value < 1:
                raise ValueError(f"--{flag} is {value}; expected at least 1")
        if self.box is not None:
            parse_box(self.box)


def parse_box(text: str) -> Box:
    """left,top,right,bottom of a --box.

    Raises:
        ValueError: it is not four numbers.
    """
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--box is {text!r}; expected left,top,right,bottom in pixels, as in 120,80,310,260"
        ) from error
    return left, top, right, bottom


def main() -> None:
    """Entry point of segswap-retrieve."""
    cli.run(RetrieveConfig, find)


def find(config: RetrieveConfig) -> int:
    """Search, write page and JSON, and say what the best hits are.

    Raises:
        ValueError: index, query, box, model or an output's name cannot be used.
        RuntimeError: the hub with the model cannot be reached, or memory runs out.
    """
    check_file("--out", config.out)
    if config.json:
        check_file("--json", config.json)
    index = Index.open(config.index)
    query = Query(read_image(config.query), parse_box(config.box) if config.box else None)
    model = load(config.model or index.settings["model"], device_of(config.device))
    progress = Progress("matching", min(len(index), config.shortlist), "images")
    with out_of_memory_says("use --device cpu"):
        hits = retrieve(
            index, query.image, query.box, model=model, top=config.top,
            shortlist=config.shortlist, mirrored=config.mirrored, progress=progress.add,
        )  # fmt: skip
    progress.close()
    if config.json:
        content = {"settings": cli.as_dict(config), "hits": [as_json(hit) for hit in hits]}
        write_atomically(Path(config.json), json.dumps(content, indent=1).encode())
    write_atomically(Path(config.out), hits_page(query, config.query, hits, len(index)).encode())
    found = [hit for hit in hits if hit.box]
    print(f"{config.out}: found in {len(found)} of the {len(hits)} best of {len(index)} images")
    for hit in found[:5]:
        print(f"{hit.score:8.1f}  {hit.image}")
    return 0


def as_json(hit: Hit) -> dict[str, Any]:
    """A hit as plain values: image, score, box (left, top, right, bottom in its pixels, or null),
    mask (rows of numbers from 0 to 1 on a grid over the image, or null) and points, each
    [x, y in the query, x, y in the image], in pixels.
    """
    points = np.concatenate([hit.source_points, hit.target_points], axis=1)
    return {
        "image": hit.image,
        "score": round(hit.score, 4),
        "box": hit.box and [round(value, 2) for value in hit.box],
        "mask": None if hit.mask is None else hit.mask.astype(float).round(3).tolist(),
        "points": points.astype(float).round(2).tolist(),
    }
