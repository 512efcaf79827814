"""What segswap-retrieve does: find a detail in a collection, and show where it was found."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.command import cli
from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.outputs import check_file
from pipelines.command.progress import Progress
from pipelines.pages.hits import hits_page
from pipelines.search.retrieve_config import RetrieveConfig, parse_box
from segswap.files.images import read_image
from segswap.files.storage import write_atomically
from segswap.models.model import load
from segswap.search.index import Index
from segswap.search.retrieval import CHANGED, Hit, Query, retrieve


def find(config: RetrieveConfig) -> int:
    """Search, say what was found, and write page and JSON if they are asked for.

    Raises:
        ValueError: index, query, box, model or an output's name cannot be used.
        RuntimeError: the hub with the model cannot be reached, or memory runs out.
    """
    check_file("--out", config.out)
    check_file("--json", config.json)
    index = Index.open(config.index)
    query = Query(read_image(config.query), parse_box(config.box) if config.box else None)
    model = load(config.model or index.settings["model"], device_of(config.device))
    changed: list[str] = []
    progress = Progress("matching", min(len(index), config.shortlist), "images")
    with out_of_memory_says("use --device cpu"):
        hits = retrieve(
            index, query.image, query.box, model=model, top=config.top,
            shortlist=config.shortlist, mirrored=config.mirrored, progress=progress.add,
            changed=changed.append,
        )  # fmt: skip
    progress.close()
    if config.json:
        content = {
            "settings": cli.as_dict(config), "hits": [as_json(hit) for hit in hits],
            "changed": changed,
        }  # fmt: skip
        write_atomically(Path(config.json), json.dumps(content, indent=1).encode())
    if config.out:
        page = hits_page(query, config.query, hits, len(index), changed)
        write_atomically(Path(config.out), page.encode())
    found = [hit for hit in hits if hit.box]
    print(f"found in {len(found)} of the {len(hits)} best of {len(index)} images")
    for hit in found:
        print(f"{hit.score:8.1f}  {hit.image}")
    if changed:
        print(CHANGED % (len(changed), ", ".join(changed)))
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
