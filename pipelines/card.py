"""The dataset card (README.md) and Croissant metadata (croissant.json) written with a dataset."""

import json
from pathlib import Path
from typing import Any

import yaml

from segswap.shards import write_atomically

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

| inputs | images | segments |
|---|---|---|
{inputs}

The source images and backgrounds keep the licences of the images that they were made from; every
sample names them. {skipped} inputs could not be used; `segswap.json` lists them with the reasons.

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
    """Write README.md and croissant.json of a dataset."""
    write_atomically(out / "README.md", _card(out.resolve().name, manifest).encode())
    write_atomically(
        out / "croissant.json",
        json.dumps(_croissant(out.resolve().name, manifest), indent=1).encode(),
    )


def _shards(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [shard for split in manifest["splits"].values() for shard in split["shards"]]


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
    inputs = [f"| {i['name']} | {i['images']} | {i['segments']} |" for i in manifest["inputs"]]
    text = _TEXT.format(
        name=name, generator=manifest["generator"], splits="\n".join(rows),
        inputs="\n".join(inputs), skipped=len(manifest["skipped"]),
        reader=_READER.format(shard=_shards(manifest)[0]["name"], key="000000000"),
        config=yaml.safe_dump(manifest["config"], sort_keys=False),
    )  # fmt: skip
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{text}"


def _croissant(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Croissant 1.0 metadata: the shards with their hashes, and the fields of a sample."""
    shards = _shards(manifest)
    files = [
        {
            "@type": "cr:FileObject", "@id": shard["name"], "name": shard["name"],
            "contentUrl": shard["name"], "contentSize": f"{shard['bytes']} B",
            "encodingFormat": "application/x-tar", "sha256": shard["sha256"],
        }
        for shard in shards
    ]  # fmt: skip
    members = {
        "source.jpg": ("image/jpeg", "sc:ImageObject"),
        "target.jpg": ("image/jpeg", "sc:ImageObject"),
        "source_mask.png": ("image/png", "sc:ImageObject"),
        "target_mask.png": ("image/png", "sc:ImageObject"),
        "json": ("application/json", "sc:Text"),
    }  # fmt: skip
    sets, fields = [], []
    for part, (encoding, kind) in members.items():
        identity = part.replace(".", "-")
        sets.append(
            {
                "@type": "cr:FileSet", "@id": identity, "name": identity,
                "containedIn": [{"@id": shard["name"]} for shard in shards],
                "encodingFormat": encoding, "includes": f"*.{part}",
            }
        )  # fmt: skip
        fields.append(
            {
                "@type": "cr:Field", "@id": f"pairs/{identity}", "name": f"pairs/{identity}",
                "dataType": kind,
                "source": {"fileSet": {"@id": identity}, "extract": {"fileProperty": "content"}},
            }
        )  # fmt: skip
    return {
        "@context": {
            "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/",
            "conformsTo": "dct:conformsTo", "containedIn": "cr:containedIn",
            "data": {"@id": "cr:data", "@type": "@json"},
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject",
            "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet", "includes": "cr:includes",
            "recordSet": "cr:recordSet", "source": "cr:source",
        },
        "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name, "datePublished": manifest["created"][:10], "version": "1.0.0",
        "description": "Image pairs that share regions, with masks and exact correspondences.",
        "license": "The licences of the input images; each sample names its inputs.",
        "url": "README.md",
        "distribution": files + sets,
        "recordSet": [
            {"@type": "cr:RecordSet", "@id": "pairs", "name": "pairs", "field": fields}
        ],
    }  # fmt: skip
