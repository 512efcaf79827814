"""Pictures with the classes that they show, listed in a CSV file.

    file,classes
    one.jpg,cat
    more/two.jpg,dog;sofa

Names are relative to the folder of the pictures; several classes stand apart by ; or in rows of
their own. Further columns are passed over.
"""

import csv
import io
import os
from collections.abc import Iterator

import numpy as np

from segswap.batches.picture import Picture, Pictures
from segswap.batches.pictures import content_key
from segswap.files.images import ImageError
from segswap.files.located import locate
from segswap.files.opening import UnreadableError, open_regular
from segswap.files.storage import PathLike, local_path

_FILE, _CLASSES = "file", ("classes", "class")
_EXPECTED = "expected CSV with a first line `file,classes`"


def read_labels(labels: PathLike, images: PathLike, bad: list[str]) -> Pictures:
    """The pictures that a CSV file lists, whose kinds are their classes, sorted.

    Args:
        labels: the file.
        images: folder of the pictures.
        bad: what cannot be used is added to it, by name and with the reason.

    Raises:
        ValueError: the file cannot be read, or has no such columns.
    """
    listed: dict[str, set[str]] = {}
    for name, classes in _rows(labels):
        listed.setdefault(name, set()).update(classes)
    kinds = sorted(set[str]().union(*listed.values()))
    pictures = []
    for name, told in listed.items():
        try:
            path = local_path(os.path.join(images, locate(images, name)))
            key = content_key(path)
        except ImageError as error:
            bad.append(f"{name}: {error.reason}")
            continue
        shown = np.array([kind in told for kind in kinds], np.int8)
        pictures.append(Picture(path, key, shown))
    return Pictures(str(labels), tuple(kinds), (), tuple(pictures))


def _rows(path: PathLike) -> Iterator[tuple[str, list[str]]]:
    """File and classes of each row."""
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = rows.fieldnames or []
        column = next((name for name in _CLASSES if name in names), None)
        if _FILE not in names or column is None:
            said = ", ".join(map(str, names)) or "none"
            raise ValueError(f"{path} has the columns {said}; {_EXPECTED}")
        for row in rows:
            classes = [one.strip() for one in (row[column] or "").split(";")]
            yield row[_FILE] or "", [one for one in classes if one]
    except (UnreadableError, UnicodeDecodeError, csv.Error) as error:
        said = error.reason if isinstance(error, UnreadableError) else str(error)
        raise ValueError(f"{path} cannot be read: {said}; {_EXPECTED}") from error
