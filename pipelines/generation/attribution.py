"""Whose images a dataset was made from: attribution.csv."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from generators.sources.index import Index
from generators.sources.licences import NOT_STATED
from segswap.data.pair import Pair

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
