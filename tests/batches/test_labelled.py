"""Pictures and their classes out of a CSV file, right and wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import textured
from PIL import Image

from segswap.batches.labelled import read_labels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("one.png", "two.png", "more/three.png")):
        Image.fromarray(textured(40, 48, number)).save(folder / name)
    return folder


def labels(photos: Path, text: str) -> Path:
    path = photos.parent / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [
    "file,classes\none.png,cat\ntwo.png,cat; dog\nmore/three.png,dog\n",
    "\ufeffid,class,file\n1,cat,one.png\n2,dog,two.png\n2,cat,two.png\n3,dog,more/three.png\n",
    'file,classes\r\n"one.png","cat"\r\ntwo.png,dog;cat;\r\nmore\\three.png,dog\r\n',
])  # fmt: skip
def test_classes_of_pictures(text: str, photos: Path) -> None:
    """Several in one cell or in rows of their own; in quotation marks, with a byte order mark."""
    bad: list[str] = []
    found = read_labels(labels(photos, text), photos, bad)
    assert bad == []
    assert found.kinds == ("cat", "dog")
    assert [picture.labels.tolist() for picture in found.pictures] == [[1, 0], [1, 1], [0, 1]]
    assert [picture.read().shape for picture in found.pictures] == [(40, 48, 3)] * 3


def test_a_row_that_is_wrong_costs_itself(photos: Path) -> None:
    os.mkfifo(photos / "pipe.png")
    names = ["gone.png", "../one.png", "/one.png", "pipe.png", "more", "one.png/two.png", ""]
    text = "\n".join(["file,classes", *(f"{name},cat" for name in names), "two.png,dog"])
    bad: list[str] = []
    found = read_labels(labels(photos, text), photos, bad)
    assert [Path(picture.path).name for picture in found.pictures] == ["two.png"]
    assert len(bad) == len(names)
    said = dict(zip(names, bad, strict=True))
    assert said["gone.png"] == "gone.png: missing"
    assert "outside the folder" in said["../one.png"]
    assert "is a pipe" in said["pipe.png"]
    assert "a folder" in said["more"]
    assert all("Errno" not in reason for reason in bad)


@pytest.mark.parametrize(("content", "expected"), [
    (None, "cannot be read: missing"),
    (b"", "has the columns none; expected CSV with a first line `file,classes`"),
    (b"one.png,cat\n", "has the columns one.png, cat; expected CSV with a first line"),
    (b"file,name\none.png,cat\n", "has the columns file, name"),
    (b"file,classes\n\xff\xfe,cat\n", "cannot be read: 'utf-8' codec"),
    (b'file,classes\n"one.png,cat\n', "cannot be read: unexpected end of data"),
])  # fmt: skip
def test_files_that_are_no_labels(content: bytes | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        read_labels(path, tmp_path, [])


def test_rows_without_classes_show_nothing(photos: Path) -> None:
    found = read_labels(
        labels(photos, "file,classes\none.png,\ntwo.png\nmore/three.png,a"), photos, []
    )
    assert [picture.labels.tolist() for picture in found.pictures] == [[0], [0], [1]]
    assert found.pictures[2].labels.dtype == np.int8
