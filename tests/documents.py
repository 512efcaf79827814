"""What stands in the documents, for the tests of them, and a folder with the files they name."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
from conftest import ROOT
from made_benchmarks import write_davis
from PIL import Image

from generators.sources.photos import photos
from segswap.models.hub import find_model

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [path.name for path in DOCUMENTS]
# Numbers by which a command, or a call in Python, is made small.
SMALLER = {
    "pairs": "8", "val-pairs": "3", "steps": "2", "shard-pairs": "4", "batch": "2", "size": "96",
    "match-size": "96", "every": "2", "pool": "4", "only": "1",
}  # fmt: skip
ADDED = {
    "segswap-train": {"--steps": "2", "--size": "96", "--match-size": "96", "--batch": "2"},
    "segswap-train-proposer": {"--steps": "2", "--size": "64", "--batch": "2"},
    "segswap-train-style": {"--encoder-steps": "2", "--batch": "2", "--crop": "64"},
}


def fenced(document: Path, language: str) -> list[str]:
    """A document's fenced blocks of a language."""
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, document.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    """All command lines of a document's blocks, without comments, continued lines joined.

    Of blocks that are indented, those that call segswap.
    """
    indented = re.findall(r"^    (segswap-.*)$", document.read_text(), flags=re.MULTILINE)
    lines = "".join(fenced(document, "bash")).replace("\\\n", " ").splitlines() + indented
    found = [line.split(" #")[0].strip() for line in lines]
    return [line for line in found if line and not line.startswith("#")]


def smaller(command: str) -> str:
    """A command with the numbers of a test."""
    for name, number in SMALLER.items():
        command = re.sub(rf"--{name} \d+", f"--{name} {number}", command)
    for flag, value in ADDED.get(command.split()[0], {}).items():
        if f"{flag} " not in command and "transformer" not in command:
            command += f" {flag} {value}"
    return command


def smaller_python(text: str) -> str:
    """Calls with the numbers of a test."""
    for name, number in SMALLER.items():
        name = name.replace("-", "_")
        text = re.sub(rf"\b{name}=\d+", f"{name}={number}", text)
    return text


def links(document: Path) -> list[str]:
    """What a document links to in this repository: paths from its own folder, with anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    return [link for link in found if "://" not in link]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    heads = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def lay_out(place: Path, document: Path, dataset: Path) -> None:
    """A folder with the files that a document's commands name and do not make.

    Args:
        dataset: what `pairs/` is where the document makes none.
    """
    annotations, images = photos()
    for folder in ("photos", "my_photos", "paintings", "scans", "graf"):
        (place / folder).mkdir()
    listed = json.loads(annotations.read_text())
    listed["images"] = listed["images"][:6]  # of all of them discovery matches every two
    shown = {image["id"] for image in listed["images"]}
    listed["annotations"] = [a for a in listed["annotations"] if a["image_id"] in shown]
    for item in listed["annotations"]:  # so that pictures show things of one kind
        item["category_id"] = 1 + item["category_id"] % 13
    (place / "instances.json").write_text(json.dumps(listed))
    for image in listed["images"]:
        for copy in ("photos", "my_photos"):
            shutil.copy(images / image["file_name"], place / copy)
    (place / "masks").mkdir()
    for photo in (place / "photos").iterdir():
        with Image.open(photo) as image:
            mask = Image.new("L", image.size)
        mask.paste(255, tuple(side * part // 4 for part in (1, 3) for side in mask.size))
        mask.save(place / "masks" / f"{photo.stem}.png")
    for kind, names in {"cups": ("coffee.png",), "cats": ("chelsea.png",)}.items():
        (place / "labelled" / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(images / name, place / "labelled" / kind)
    shutil.copy(images / "ihc.png", place / "paintings")
    for kinds in ("kinds", "animals"):
        _kinds(place / kinds, images)
    for name, image in (("img1.png", "camera.png"), ("img2.png", "camera.png")):
        shutil.copy(images / image, place / "graf" / name)
    np.savetxt(place / "graf" / "H1to2p", np.eye(3))
    shutil.copy(images / "motorcycle_left.png", place / "a.jpg")
    shutil.copy(images / "motorcycle_right.png", place / "b.jpg")
    for name in ("camera.png", "coffee.png", "ihc.png"):
        shutil.copy(images / name, place / "scans")
    shutil.copy(images / "motorcycle_left.png", place / "engraving.jpg")
    write_davis(place / "benchmarks" / "davis")
    made = "\n".join([*commands(document), *fenced(document, "python")])
    if not re.search(r'segswap-generate pairs/|generate\("pairs/"', made):
        (place / "pairs").symlink_to(dataset)
    if "--out runs/first" not in made:
        (place / "runs").mkdir()
        (place / "runs" / "first").symlink_to(find_model("segswap-tiny"))


def _kinds(place: Path, images: Path) -> None:
    """Two pictures of each of two kinds, with masks."""
    shown = {"cups": ("coffee.png", "ihc.png"), "cats": ("chelsea.png", "astronaut.png")}
    for kind, names in shown.items():
        for part in ("images", "masks"):
            (place / part / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(images / name, place / "images" / kind)
            with Image.open(images / name) as picture:
                mask = Image.new("L", picture.size)
            mask.paste(255, (100, 100, 300, 300))
            mask.save(place / "masks" / kind / name)
