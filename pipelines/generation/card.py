"""The dataset card (README.md) and Croissant metadata (croissant.json) written with a dataset."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from pipelines.generation import attribution
from pipelines.generation.croissant import croissant
from pipelines.pages.look import contact_sheet, draw_pair
from pipelines.pages.render import render
from segswap.data.shards import Shard
from segswap.files.images import encode_jpeg
from segswap.files.storage import PathLike, base_name, join, write_atomically

_EXAMPLES = 8


FILES = (attribution.FILE, "examples.jpg", "README.md", "croissant.json")


def write(
    out: PathLike, manifest: dict[str, Any], used: list[attribution.Row],
    names: Iterable[str] = FILES,
) -> None:  # fmt: skip
    """Write README.md, its examples.jpg, attribution.csv and croissant.json of a dataset.

    Args:
        used: the images whose pixels stand in it.
        names: those of the files that are to be written.
    """
    name = base_name(out)
    made: dict[str, Callable[[], bytes]] = {
        attribution.FILE: lambda: attribution.table_file(used),
        "examples.jpg": lambda: _examples(join(out, _shards(manifest)[0]["name"])),
        "README.md": lambda: _card(name, manifest, used).encode(),
        "croissant.json": lambda: json.dumps(croissant(name, manifest), indent=1).encode(),
    }
    for file in names:
        write_atomically(join(out, file), made[file]())


def _shards(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [shard for split in manifest["splits"].values() for shard in split["shards"]]


def _size_category(pairs: int) -> str:
    """The hub's word for so many pairs."""
    words = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M",
             "100M<n<1B", "1B<n<10B")  # fmt: skip
    return words[max(len(str(pairs)) - 3, 0)]


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
        "size_categories": [_size_category(sum(entry["pairs"] for entry in splits.values()))],
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
    by_licence = Counter((row.licence, row.licence_url) for row in used)
    return render(
        "card.md", front=yaml.safe_dump(front, sort_keys=False), name=name, splits=splits,
        generator=manifest["generator"], inputs=manifest["inputs"],
        skipped=len(manifest["skipped"]), used=used, by_licence=by_licence.most_common(),
        licenses=config["licenses"], grid_stride=config["grid_stride"],
        shard=_shards(manifest)[0]["name"],
        split=next(split for split, entry in splits.items() if entry["pairs"]),
        config=yaml.safe_dump(config, sort_keys=False),
    )  # fmt: skip
