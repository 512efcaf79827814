"""The dataset card (README.md) and Croissant metadata (croissant.json) written with a dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.croissant import croissant
from segswap import geometry
from segswap.images import encode_jpeg
from segswap.shards import Shard, write_atomically

_EXAMPLES = 4

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

| inputs | images | segments | licences of the images |
|---|---|---|---|
{inputs}

The source images and backgrounds keep the licences of the images that they were made from; every
sample names them. {skipped} inputs could not be used; `segswap.json` lists them with the reasons.

## Examples

Source and target of the first pairs:

![source and target of the first pairs](examples.jpg)

## Content

A shard is a tar file in WebDataset naming. The members of one pair, with a nine-digit key:

| member | content |
|---|---|
| KEY.source.jpg, KEY.target.jpg | RGB images of one size; the target holds the copied regions |
| KEY.source_styled.jpg, KEY.target_styled.jpg | where there: the same in another style |
| KEY.source_mask.png, KEY.target_mask.png | uint8 label maps: 0 background, k = object k |
| KEY.json | objects with `target_from_source` (3x3), categories, where everything comes from |

Coordinates are normalised: x = 0 is the image's left edge, x = 1 its right edge, y likewise
downwards; pixel column j's centre is (j + 0.5) / width. `target_from_source` maps source to target
coordinates and holds for every pixel of the object's mask.

```python
{reader}```

## Made with

```yaml
{config}```
"""


def write(out: Path, manifest: dict[str, Any]) -> None:
    """Write README.md, its examples.jpg and croissant.json of a dataset."""
    write_atomically(out / "examples.jpg", _examples(out / _shards(manifest)[0]["name"]))
    write_atomically(out / "README.md", _card(out.resolve().name, manifest).encode())
    write_atomically(
        out / "croissant.json",
        json.dumps(croissant(out.resolve().name, manifest), indent=1).encode(),
    )


def _shards(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [shard for split in manifest["splits"].values() for shard in split["shards"]]


def _examples(shard: Path) -> bytes:
    """A JPEG of the first pairs of a shard, source and target side by side."""
    opened = Shard.open(shard)
    rows = []
    for pair in map(opened.read, range(min(_EXAMPLES, len(opened.samples)))):
        sides = [geometry.resize(image, 240, 240) for image in (pair.source, pair.target)]
        rows.append(np.hstack(sides))
    return encode_jpeg(np.vstack(rows), 90)


def _card(name: str, manifest: dict[str, Any]) -> str:
    splits = manifest["splits"]
    front = {
        "pretty_name": name,
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
        f"| {i['name']} | {i['images']} | {i['segments']} | {_counted(i['licences'])} |"
        for i in manifest["inputs"]
    ]
    text = _TEXT.format(
        name=name, generator=manifest["generator"], splits="\n".join(rows),
        inputs="\n".join(inputs), skipped=len(manifest["skipped"]),
        reader=_READER.format(shard=_shards(manifest)[0]["name"], key="000000000"),
        config=yaml.safe_dump(manifest["config"], sort_keys=False),
    )  # fmt: skip
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{text}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
