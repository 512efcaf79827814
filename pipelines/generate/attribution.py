"""Whose images a dataset was made from: attribution.csv, and the card's part on licences."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from generators.sources.index import Index
from generators.sources.licences import NOT_STATED
from segswap.data.pair import Pair

FILE = "attribution.csv"
_LISTED = 40  # images at most that the card itself lists
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


def card_part(listed: list[Row]) -> str:
    """Markdown: the images used by licence, and each of them where they are few."""
    by_licence = Counter((row.licence, row.licence_url) for row in listed)
    lines = ["| licence | images used |", "|---|---|"]
    lines += [
        f"| {_link(name, url)} | {count} |" for (name, url), count in by_licence.most_common()
    ]
    if len(listed) <= _LISTED:
        lines += ["", "| image | licence | origin |", "|---|---|---|"]
        lines += [f"| {_cell(r.image)} | {_cell(r.licence)} | {_cell(r.credit)} |" for r in listed]
    return "\n".join(lines)


def _link(name: str, url: str) -> str:
    return f"[{_cell(name)}]({url})" if url else _cell(name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").encode(errors="replace").decode()
