"""Whose images a dataset was made from: attribution.csv."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from generators.sources.index import Index
from generators.sources.licences import NOT_STATED
from segswap.data.manifest import DatasetError
from segswap.data.pair import Pair
from segswap.data.shards import Shard
from segswap.files import storage
from segswap.files.records import parse_json
from segswap.files.storage import PathLike

FILE = "attribution.csv"
Used = tuple[str, str]  # dataset and image, as pairs name them


class Row(NamedTuple):
    """One image of attribution.csv."""

    dataset: str
    image: str
    licence: str
    licence_url: str
    credit: str


def images_of(pair: Pair) -> set[Used]:
    """The images whose pixels stand in a pair."""
    used = {(item.segment["dataset"], item.segment["image"]) for item in pair.objects}
    return used | {(pair.background["dataset"], pair.background["image"])}


def read_used(out: PathLike) -> set[Used]:
    """The images that a dataset's attribution.csv names.

    Raises:
        FileNotFoundError: it has none.
    """
    text = storage.read_bytes(storage.join(out, FILE)).decode("utf-8", "surrogateescape")
    listed = csv.DictReader(io.StringIO(text, newline=""))
    if not {"dataset", "image"} <= set(listed.fieldnames or ()):
        raise DatasetError(
            f"{storage.join(out, FILE)} has no columns dataset and image; delete it, and the "
            "command that made the dataset makes it again"
        )
    return {(row["dataset"], row["image"] or "") for row in listed}


def used_in(out: PathLike, shards: dict[str, list[dict[str, Any]]]) -> set[Used]:
    """The images whose pixels stand in a dataset, by the records of all its pairs."""
    used = set()
    for entry in (entry for entries in shards.values() for entry in entries):
        shard = Shard.open(storage.join(out, entry["name"]))
        for position in range(len(shard.samples)):
            record = parse_json(shard.members(position)["json"], shard.path)
            for origin in (record["background"], *(item["segment"] for item in record["objects"])):
                used.add((origin["dataset"], origin["image"]))
    return used


def rows(used: Iterable[Used], indexes: Sequence[Index]) -> list[Row]:
    """What the indexes know of the images used, ordered by dataset and name."""
    places = {
        (index.dataset, index.image_name(i)): (index, i)
        for index in indexes
        for i in range(len(index))
    }
    found = []
    for dataset, image in sorted(set(used)):
        index, i = places.get((dataset, image), (None, 0))
        licence = index.image_licence(i) if index else NOT_STATED
        found.append(Row(dataset, image, *licence, index.image_credit(i) if index else ""))
    return found


def table_file(listed: list[Row]) -> bytes:
    """The content of attribution.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(listed)
    return text.getvalue().encode("utf-8", "surrogateescape")
