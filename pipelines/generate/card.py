"""The dataset card (README.md) and Croissant metadata (croissant.json) written with a dataset."""

import json
from typing import Any

import yaml

from pipelines.generate import attribution
from pipelines.generate.croissant import croissant
from pipelines.pages.look import contact_sheet, draw_pair
from segswap.data.shards import Shard
from segswap.files.images import encode_jpeg
from segswap.files.storage import PathLike, base_name, join, write_atomically

_EXAMPLES = 8

_READER = """\
import io, json, tarfile
import numpy as np
from PIL import Image

with tarfile.open("{shard}") as tar:
    parts = {{m.name.split(".", 1)[1]: tar.extractfile(m).read()
             for m in tar if m.name.startswith("{key}.")}}
source, target = (np.array(Image.open(io.BytesIO(parts[f"{{side}}.jpg"])))
                  for side in ("source", "target"))
mask = np.array(Image.open(io.BytesIO(parts["source_mask.png"])))      # 0, or the object's label
for item in json.loads(parts["json"])["objects"]:
    xy = np.argwhere(mask == item["label"])[0][::-1]                      # a pixel of the object
    p = np.array(item["target_from_source"]) @ [*((xy + 0.5) / mask.shape[::-1]), 1]
    print(item["category"], "source", xy, "is target", p[:2] / p[2] * mask.shape[::-1] - 0.5)
"""

_TEXT = """\
# {name}

Pairs of images that share one or more regions, with label-map masks of the regions in both images
and the exact map of every region's points. Made by {generator}.

| split | pairs | shards | bytes |
|---|---|---|---|
{splits}

## Inputs

| inputs | images | segments | images left out by licence |
|---|---|---|---|
{inputs}

{skipped} inputs could not be used; `segswap.json` lists them with the reasons.

## Licences and attribution

Sources and targets keep the licences of the images that they were made from{asked}. Every sample
names its images; `attribution.csv` lists all {used} of them with licence and origin.

{attribution}

## Examples

The first pairs, source and target, the shared regions outlined and points joined along the map:

![the first pairs](examples.jpg)

## Content

A shard is a tar file in WebDataset naming. The members of one pair, with a nine-digit key:

| member | content |
|---|---|
| KEY.source.jpg, KEY.target.jpg | RGB images of one size; the target holds the copied regions |
| KEY.source_styled.jpg, KEY.target_styled.jpg | where there: the same in another style |
| KEY.source_mask.png, KEY.target_mask.png | uint8 label maps: 0 background, k = object k |
{grids}| KEY.json | objects with `target_from_source` (3x3), categories, where all comes from |

Coordinates are normalised: x = 0 is the image's left edge, x = 1 its right edge, y likewise
downwards; pixel column j's centre is (j + 0.5) / width. `target_from_source` maps source to target
coordinates and holds for every pixel of the object's mask.

```python
{reader}```

## Made with

```yaml
{config}```
"""


_ASKED = {
    "any": "",
    "shareable": ", of which only those were used that allow derived works",
    "commercial": ", of which only those were used that allow derived works and commercial use",
}
_GRIDS = (
    "| KEY.source_grid.npy, KEY.target_grid.npy | float32 (3, rows, columns) on cells of {0} x {0} "
    "pixels: x, y in the other image, share of the cell that is shared |\n"
)


def write(out: PathLike, manifest: dict[str, Any], used: list[attribution.Row]) -> None:
    """Write README.md, its examples.jpg, attribution.csv and croissant.json of a dataset.

    Args:
        used: the images whose pixels stand in it.
    """
    name = base_name(out)
    write_atomically(join(out, attribution.FILE), attribution.table_file(used))
    write_atomically(join(out, "examples.jpg"), _examples(join(out, _shards(manifest)[0]["name"])))
    write_atomically(join(out, "README.md"), _card(name, manifest, used).encode())
    description = json.dumps(croissant(name, manifest), indent=1)
    write_atomically(join(out, "croissant.json"), description.encode())


def _shards(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [shard for split in manifest["splits"].values() for shard in split["shards"]]


def _examples(shard: str) -> bytes:
    """A JPEG contact sheet of the first pairs of a shard."""
    opened = Shard.open(shard)
    first = map(opened.read, range(min(_EXAMPLES, len(opened.samples))))
    return encode_jpeg(contact_sheet([draw_pair(pair, 240) for pair in first]), 90)


def _card(name: str, manifest: dict[str, Any], used: list[attribution.Row]) -> str:
    splits, config = manifest["splits"], manifest["config"]
    front = {
        "pretty_name": name,
        "license": "other",
        "task_categories": ["image-segmentation", "image-feature-extraction"],
        "tags": ["image-matching", "correspondence", "co-segmentation", "webdataset"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"{split}-*.tar"}
                    for split, entry in splits.items()
                    if entry["pairs"]
                ],
            }
        ],
    }
    rows = [
        f"| {split} | {entry['pairs']} | {len(entry['shards'])} "
        f"| {sum(shard['bytes'] for shard in entry['shards'])} |"
        for split, entry in splits.items()
    ]
    inputs = [
        f"| {i['name']} | {i['images']} | {i['segments']} | {sum(i['left_out'].values())} |"
        for i in manifest["inputs"]
    ]
    text = _TEXT.format(
        name=name, generator=manifest["generator"], splits="\n".join(rows),
        inputs="\n".join(inputs), skipped=len(manifest["skipped"]),
        reader=_READER.format(shard=_shards(manifest)[0]["name"], key="000000000"),
        asked=_ASKED[config["licenses"]], used=len(used), attribution=attribution.card_part(used),
        grids="" if config["grid_stride"] is None else _GRIDS.format(config["grid_stride"]),
        config=yaml.safe_dump(config, sort_keys=False),
    )  # fmt: skip
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{text}"
